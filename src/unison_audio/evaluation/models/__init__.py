"""Metric models, one file a network; start with `weights`."""

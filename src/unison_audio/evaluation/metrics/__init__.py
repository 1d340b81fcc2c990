"""Metrics; start with `table`, then `metric`."""

"""Metrics, judges and the test sets."""

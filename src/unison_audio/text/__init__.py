"""Frozen text encoders; start with `table`, then `states`."""

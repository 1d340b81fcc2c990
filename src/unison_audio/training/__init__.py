"""Training; start with `run`, then `trainer`."""

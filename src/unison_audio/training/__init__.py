"""The training loops and their recipes."""

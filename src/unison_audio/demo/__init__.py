"""The demo page: one example of each task; start with `demo`."""

"""The 15 tasks; start with `table`."""

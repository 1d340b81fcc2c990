"""Tables and figures of results; start with `layouts`."""

"""The evaluation engine; start with `engine`, then `suite`."""

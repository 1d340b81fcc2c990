"""What only the nano variant needs; start with `vocabulary`, then `recipe`."""

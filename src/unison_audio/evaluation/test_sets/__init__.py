"""Test sets; start with `build`."""

"""The network and its sampling; start with `backbone`, then `flow`."""

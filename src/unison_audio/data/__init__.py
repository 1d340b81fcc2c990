"""Corpora as training clips; start with `records`, then `stream`."""

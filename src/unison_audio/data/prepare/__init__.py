"""Corpus preparation into shards; start with `prepare`."""

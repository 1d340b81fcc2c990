"""Sounds of any length: `long_speech` speaks texts, `regions` edits recordings, `timeline` composes."""

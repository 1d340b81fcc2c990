"""Sounds of any length: `long_speech` speaks long texts, `regions` edits long recordings."""

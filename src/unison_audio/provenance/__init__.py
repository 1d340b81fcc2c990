"""Marks of generated audio and their detection; begin with `marks.py`."""

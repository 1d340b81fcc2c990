"""Sounds of any length: texts (`long_speech`), recordings (`regions`) and timelines."""

"""Frozen audio codecs between waveforms and latents; start with `table`."""

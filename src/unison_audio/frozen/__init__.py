"""What is only ever run: the audio codecs and the text encoders."""

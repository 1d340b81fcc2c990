"""The HTTP server: OpenAI's speech routes, sounds, edits and timelines; start with `app`."""

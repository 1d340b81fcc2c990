"""`Limits`: what one client may ask of the server."""

from dataclasses import dataclass, fields

from unison_audio.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one client may ask of the server; more is refused."""

    max_body_mb: float = 50.0
    """Megabytes of a request with files; requests without files are limited to 1 MB."""
    max_upload_seconds: float = 600.0
    """Seconds of one uploaded recording."""
    max_upload_samples: int = 120_000_000
    """Samples of one uploaded recording after decoding, all channels counted."""
    max_input_characters: int = 4096
    """Characters of a text or an instruction."""
    max_output_seconds: float = 600.0
    """Seconds of one timeline or sound."""
    max_requests: int = 64
    """Requests that run or wait at the same time; more get the status 429."""
    max_batch: int = 16
    """Sounds that are sampled together, candidates included."""
    deadline_seconds: float = 600.0
    """Seconds until the first byte of an answer, and between two parts of it; then 504."""
    max_voices: int = 20
    """Stored voices."""
    max_voice_mb: float = 10.0
    """Megabytes of a voice's recording."""
    max_voice_seconds: float = 30.0
    """Seconds of a voice's recording."""

    def __post_init__(self) -> None:
        """Check that every limit leaves something to do."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not 0 < value < float("inf"):
                raise InputError(f"{field.name} is {value!r}; give a number above 0.")

    @property
    def max_body_bytes(self) -> int:
        """Bytes of a request with files."""
        return int(self.max_body_mb * 1_000_000)

    @property
    def max_voice_bytes(self) -> int:
        """Bytes of a voice's recording; OpenAI counts in units of 1024."""
        return int(self.max_voice_mb * (1 << 20))


MAX_JSON_BYTES = 1_000_000
"""Bytes of a request without files."""

RECEIVE_SECONDS = 60.0
"""Seconds that a client may let pass between two pieces of its request."""

SEND_SECONDS = 120.0
"""Seconds that a client may take to accept one piece of an answer."""

"""Server-sent events of speech, exactly those that OpenAI documents."""

import base64
import json
from collections.abc import Iterable, Iterator

from unison_audio.server.batching import Ticket

MEDIA_TYPE = "text/event-stream"


def as_events(
    parts: Iterable[bytes], ticket: Ticket, text: str, frames_a_second: float
) -> Iterator[bytes]:
    """Send coded sound as events.

    Args:
        parts: The coded sound.
        ticket: The request, with the seconds of its sound.
        text: What is spoken; its words are the input tokens.
        frames_a_second: Latent frames a second; they are the output tokens.

    Yields:
        One `speech.audio.delta` for each part that is not empty, and one `speech.audio.done`.
    """
    for part in parts:
        if part:
            yield _event({"type": "speech.audio.delta", "audio": base64.b64encode(part).decode()})
    given, made = len(text.split()), round(ticket.audio_seconds * frames_a_second)
    usage = {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
    yield _event({"type": "speech.audio.done", "usage": usage})


def _event(values: dict[str, object]) -> bytes:
    return f"data: {json.dumps(values, separators=(',', ':'))}\n\n".encode()

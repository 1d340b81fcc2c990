"""Answers that every route documents in the OpenAPI document."""

from typing import Any

ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
"""The body of every error."""

_MEANINGS = {
    400: "The request cannot be used",
    401: "The API key is missing or wrong",
    403: "The web page may not call the server",
    404: "There is no such thing",
    408: "The body came too slowly",
    409: "It exists already, or a limit is reached",
    413: "The body is too large",
    429: "Too many requests; Retry-After says when to try again",
    500: "The server failed",
    503: "The model's process was lost; Retry-After says when to try again",
    504: "The deadline passed",
    507: "The disk is full",
}

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": meaning, "content": {"application/json": {"schema": ERROR_SCHEMA}}}
    for status, meaning in _MEANINGS.items()
}
"""Status -> description, for a route's `responses`."""

_BINARY = {"schema": {"type": "string", "format": "binary"}}

_KINDS = ("mpeg", "ogg", "aac", "flac", "wav", "pcm")

SOUND: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Sound, or server-sent events with it",
        "content": {
            **{f"audio/{kind}": _BINARY for kind in _KINDS},
            "text/event-stream": _BINARY,
        },
    }
}
"""A successful answer of sound."""

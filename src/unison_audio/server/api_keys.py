"""API keys: read from a file or the environment, and compared in constant time."""

import hashlib
import hmac
import os
from pathlib import Path

from unison_audio.errors import InputError

ENVIRONMENT = "UNISON_AUDIO_API_KEYS"
"""Environment variable with keys, separated by commas."""

LEAST_CHARACTERS = 8
"""Shorter keys are refused: they can be guessed."""


class ApiKeys:
    """The keys that open the server; without any, it is open.

    Args:
        keys: The keys.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        # Digests have one length, so that comparing them tells nothing about a key's.
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        """Whether a key is needed."""
        return bool(self._digests)

    def allows(self, authorization: str, other: str) -> bool:
        """Whether a request may pass.

        Args:
            authorization: Its header `Authorization`, `Bearer KEY`.
            other: Its header `xi-api-key`, in which clients of ElevenLabs send a key.
        """
        scheme, _, key = authorization.partition(" ")
        given = key.strip() if scheme.lower() == "bearer" and key.strip() else other.strip()
        digest = _digest(given)
        # All are compared, so that the time does not tell which one agreed.
        agreeing = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(agreeing) or not self._digests


def read_keys(file: Path | None) -> ApiKeys:
    """Read keys from a file and from the environment.

    Args:
        file: One key a line; lines that begin with # are skipped.

    Raises:
        InputError: The file cannot be read, holds no key, or a key is too short.
    """
    keys = [key.strip() for key in os.environ.get(ENVIRONMENT, "").split(",")]
    if file is not None:
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"The file of keys {file} cannot be read; check the path.") from error
        found = [line.strip() for line in lines if not line.lstrip().startswith("#")]
        if not any(found):
            raise InputError(f"The file of keys {file} holds no key; write one a line.")
        keys += found
    keys = [key for key in keys if key]
    if any(len(key) < LEAST_CHARACTERS for key in keys):
        raise InputError(
            f"A key has fewer than {LEAST_CHARACTERS} characters; use longer ones, such as from "
            "'openssl rand -hex 24'."
        )
    return ApiKeys(tuple(keys))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()

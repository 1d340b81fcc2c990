"""A full disk for tests: the system refuses the byte beyond a limit in the same way.

Everything smaller, such as a log or a config, still fits.
"""

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOM = 16_000
"""Bytes that fit: enough for configs and logs, and for no weights of a tiny model."""


@contextmanager
def full_disk(room: int = ROOM) -> Iterator[None]:
    """No file grows beyond `room` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def left(folder: Path) -> list[str]:
    """Names of the files that a failed write would leave, in a folder and those below it."""
    marks = re.compile(r"partial|incomplete|\.part$|\.tmp|safetensors|\.pt$")
    return [path.name for path in folder.rglob("*") if marks.search(path.name)]


def one_sentence(code: int, error: str) -> str:
    """The line that a refused command printed; notes aside, there must be one alone."""
    lines = error.splitlines()
    said = [line for line in lines if not line.startswith("unison-audio: note:")]
    assert (code, len(said)) == (2, 1), lines
    return said[0]

"""Texts of the experiment with spelled transcripts, kept in a file, and how they are read."""

import json
from dataclasses import asdict
from pathlib import Path

from unison_audio.errors import InputError
from unison_audio.nano.open_texts import Texts, open_texts
from unison_audio.text.spelling import letters

TRANSCRIPTS = {"spelled": letters, "wordpieces": str}
"""How the text encoder reads a transcript, by name."""


def read_texts(path: Path) -> Texts:
    """Reads what `write_texts` wrote.

    Raises:
        InputError: If there is no such file.
    """
    try:
        return Texts(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; write it with the command 'data'.") from error


def write_texts(path: Path) -> Texts:
    """Reads the texts in ``path``, or makes and writes them."""
    if path.exists():
        return read_texts(path)
    texts = open_texts(path.parent / "packages")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(texts)), "utf-8")
    return texts

"""Tells nano's own corpus from others by its index, without importing torch."""

from pathlib import Path

from unison_audio.data.shards import INDEX_FILE, read_index
from unison_audio.errors import InputError

NAME = "nano"
"""The corpus's name in its index."""


def require_own_folder(out: Path) -> None:
    """Checks that a folder holds no other corpus, which nano's would overwrite.

    Raises:
        InputError: If it holds one.
    """
    if (out / INDEX_FILE).is_file() and (found := read_index(out).name) != NAME:
        raise InputError(f"{out} holds the corpus {found}; choose another folder for nano's corpus")


def require_nano_corpus(corpus: Path, purpose: str) -> None:
    """Checks that a corpus is nano's own.

    Args:
        corpus: The corpus' folder.
        purpose: What needs it; starts the message.

    Raises:
        InputError: If it is another corpus, or none.
    """
    found = read_index(corpus).name
    if found != NAME:
        raise InputError(
            f"{purpose} needs nano's own corpus, and {corpus} holds {found}; build one with: "
            "unison-audio data nano --out FOLDER"
        )

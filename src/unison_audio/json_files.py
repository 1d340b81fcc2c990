"""Reads JSON files of bounded size: whatever is wrong with one is said in one sentence."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from unison_audio.errors import InputError

MOST_BYTES = 64 << 20
"""Largest JSON file that is read whole. An index of 100,000 shards has 20 MB."""

_BLOCK = 1 << 20


def read_json(path: Path, cure: str, *, most: int = MOST_BYTES) -> Any:
    """Read a JSON file.

    Args:
        path: The file, in UTF-8, with or without a byte order mark.
        cure: What to do about a damaged file, such as "download it again".
        most: Largest number of bytes.

    Raises:
        FileNotFoundError: If there is none, so that the caller says what is missing.
        InputError: If it is a folder, too large, not UTF-8, not JSON or nested too deeply.
    """
    try:
        with path.open("rb") as file:
            data = read_bounded(file, most)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be read ({reason}); {cure}.") from error
    if len(data) > most:
        raise InputError(f"{path} holds more than {most:,} bytes, and is no such file; {cure}.")
    return parse_json(data, str(path), cure)


def read_bounded(file: IO[bytes], most: int) -> bytes:
    """Read at most so many bytes and one more, which tells that there is more.

    Args:
        file: An open file or stream.
        most: Number of bytes that are expected at most.
    """
    # read(most + 1) would allocate that much before it knows how much there is.
    blocks, left = [], most + 1
    while left > 0 and (block := file.read(min(_BLOCK, left))):
        blocks.append(block)
        left -= len(block)
    return b"".join(blocks)


def parse_json(data: bytes | str, name: str, cure: str) -> Any:
    """Parse JSON.

    Args:
        data: The text, or its UTF-8 bytes with or without a byte order mark.
        name: Name of the text in messages.
        cure: What to do about a damaged one.

    Raises:
        InputError: If it is not UTF-8, not JSON, nested too deeply, has endless numbers, or has a
            key twice.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        return json.loads(text, object_pairs_hook=unique_keys)
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 ({error.reason}); {cure}.") from error
    except RecursionError as error:
        raise InputError(f"{name} is nested too deeply; {cure}.") from error
    except ValueError as error:
        raise InputError(f"{name} is not JSON ({error}); {cure}.") from error


def unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The object of some JSON, for `json.loads`, which would keep the last of two equal keys.

    Raises:
        ValueError: A key is there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r:.60} is there twice")
    return found

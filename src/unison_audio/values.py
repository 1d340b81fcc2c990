"""Numbers and texts as callers give them: Python's, numpy's, out of JSON, from a command line."""

import math
import numbers
import os
from pathlib import Path
from typing import Any

from unison_audio.errors import InputError

MOST_SHOWN = 120
"""Characters of a value that a message shows."""


MOST_NAME_BYTES, MOST_PATH_BYTES = 255, 4096
"""Longest name of a file, and longest path, on Linux and macOS."""


def as_whole(value: object) -> int | None:
    """A whole number of Python or numpy as an int; None for anything else, truth values too."""
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        return None
    return int(value)


def as_real(value: object) -> int | float | None:
    """A finite number of Python or numpy; None for anything else, truth values too."""
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        number = value if isinstance(value, int) else float(value)
        return number if math.isfinite(number) else None
    except OverflowError:  # a whole number beyond the largest float
        return None


def as_pair(value: object) -> tuple[Any, Any] | None:
    """The two entries of a tuple, list or array; None for anything else."""
    to_list = getattr(value, "tolist", None)
    if callable(to_list):  # an array of numpy or a tensor
        value = to_list()
    if isinstance(value, list | tuple) and len(value) == 2:
        return value[0], value[1]
    return None


def require_truth(value: object, name: str) -> bool:
    """Check that a value is True or False, of Python or numpy.

    Args:
        value: The value.
        name: Its name in the message, such as "compiled".

    Raises:
        InputError: If it is anything else, such as a text, which would count as true.
    """
    value = _scalar(value)
    if not isinstance(value, bool):
        raise InputError(f"{name} is {shown(value)}; give True or False.")
    return value


def check_seed(seed: object) -> int:
    """Check a seed, and return it as Python's int.

    Raises:
        InputError: If it is not a whole number from 0 to 2^63 - 1.
    """
    number = as_whole(seed)
    if number is None or not 0 <= number < 1 << 63:
        raise InputError(f"The seed is {shown(seed)}; give a whole number from 0 to 2^63 - 1.")
    return number


def require_text(value: object, name: str) -> str:
    """Check that a value is a text that can be written as UTF-8, without NUL characters.

    Args:
        value: The value.
        name: Its name in the message, such as "The instruction".

    Raises:
        InputError: If it is no text, or holds a NUL or half of a surrogate pair, which JSON and
            command lines can bring in and which no file name or text encoder takes.
    """
    if not isinstance(value, str):
        raise InputError(f"{name} is {shown(value)}; it must be a text.")
    if "\0" in value:
        raise InputError(f"{name} {shown(value)} holds a NUL character; take it out.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} {shown(value)} holds half of a character ({value[error.start]!r}) at position "
            f"{error.start}; write the text as whole UTF-8."
        ) from error
    return value


def _scalar(value: object) -> object:
    """The entry of an array or tensor without dimensions; anything else as it is."""
    # What lies under the mask of a masked entry is no value.
    if getattr(value, "shape", None) == () and not isinstance(value, numbers.Number):
        if getattr(value, "mask", False):
            return value
        item = getattr(value, "item", None)
        return item() if callable(item) else value
    return value


def require_path(value: object, name: str) -> Path:
    """Check that a value can be the path of a file.

    Args:
        value: A text or an `os.PathLike`.
        name: Its name in the message, such as "The output".

    Raises:
        InputError: If it is of another kind, empty, holds a NUL, or is longer than file systems
            take: 255 bytes for one name, 4,096 for the whole.
    """
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{name} is {shown(value)}; give the path of a file.")
    text = os.fspath(value)
    if not isinstance(text, str) or not text:
        raise InputError(f"{name} is {shown(text)}; give the path of a file as text.")
    if "\0" in text:
        raise InputError(f"{name} {shown(text)} holds a NUL character; give another name.")
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError as error:  # half a surrogate pair, out of JSON
        raise InputError(
            f"{name} {shown(text)} holds half of a character; give another name."
        ) from error
    longest = max(map(len, data.split(b"/")))
    if longest > MOST_NAME_BYTES or len(data) >= MOST_PATH_BYTES:
        raise InputError(
            f"{name} {shown(text)} has a name of {longest} bytes in a path of {len(data)}, where "
            f"file systems take {MOST_NAME_BYTES} and {MOST_PATH_BYTES}; give a shorter one."
        )
    return Path(text)


def shown(value: object) -> str:
    """The beginning of a value on one line, for messages."""
    text = " ".join(repr(value).split())
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."

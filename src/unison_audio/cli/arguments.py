"""Reads the words of a command line: whole numbers are whole, numbers finite, paths possible."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import cyclopts

from unison_audio.errors import InputError
from unison_audio.values import require_path, shown

_WHOLE = re.compile(r"[+-]?[0-9]+")

_OUTPUTS = {
    "generate": "generate needs a file to write; add -o FILE, such as -o rain.wav.",
    "batch": "batch needs a folder to write to; add -o FOLDER, such as -o sounds.",
}
"""Command -> what is said where its output is not named."""

MOST_DIGITS = 40
"""Digits of a number that is still read: a seed has at most 19."""


def convert(type_: Any, tokens: Sequence[cyclopts.Token], *, most: int | None = None) -> Any:
    """Convert the words of one option; cyclopts alone would round 1.5 to a whole number.

    Args:
        type_: Type of the option.
        tokens: Its words.
        most: Largest number of a command whose numbers are all above 0, for the message.

    Raises:
        InputError: If a word is no value of that type; the message names the option.
    """
    kinds = _leaves(type_)
    whole = "such as 3" if most is None else f"from 1 to {most:,}"
    number = "such as 1.5" if most is None else f"above 0 and at most {most:,}"
    for token in tokens:
        name = token.keyword or "The value"
        if int in kinds and float not in kinds and not _is_whole(token.value):
            raise InputError(
                f"{name} is {shown(token.value)}; give a whole number in digits, {whole}."
            )
        if float in kinds and not _is_finite(token.value):
            raise InputError(f"{name} is {shown(token.value)}; give a number, {number}.")
        if Path in kinds:
            require_path(token.value, name)
    return cyclopts.convert(type_, tokens)


def message_of(error: cyclopts.CycloptsError) -> str:
    """The sentence about a command line that cannot be read."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):  # raised by `convert`: it already says everything
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, cyclopts.UnusedCliTokensError):
        extra = " ".join(map(shown, error.unused_tokens or ()))
        return f"Nothing takes {extra}; leave it out, or see --help."
    if isinstance(error, cyclopts.MissingArgumentError) and error.argument is not None:
        chain = " ".join(error.command_chain or ())
        if error.argument.name == "--output" and chain in _OUTPUTS:
            return _OUTPUTS[chain]
    return str(error)


def _leaves(type_: Any) -> set[Any]:
    """The types out of which a type is made, without literals."""
    inner = get_args(type_)
    if not inner:
        return {type_}
    parts = [each for each in inner if isinstance(each, type) or get_args(each)]
    return {leaf for part in parts for leaf in _leaves(part)}


def _is_whole(text: str) -> bool:
    return len(text) <= MOST_DIGITS and _WHOLE.fullmatch(text) is not None


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False

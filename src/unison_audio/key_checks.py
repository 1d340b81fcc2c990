"""Refuses keys that are missing, unknown or wrong, all kinds of them in one message."""

from collections.abc import Mapping, Sequence
from typing import Any

from unison_audio.errors import InputError

MOST_NAMES = 12
"""Keys of a kind that a message names: weights of another model differ in a thousand."""


def complain(what: str, wrong: Mapping[str, Sequence[str]]) -> None:
    """Raise one error with the lists that are not empty, and how much longer a long one is."""
    lists = [f"{kind}: {_listed(names)}" for kind, names in wrong.items() if names]
    if lists:
        raise InputError(f"{what}; {'; '.join(lists)}.")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def require_same_keys(
    what: str, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Any]
) -> None:
    """Refuse tensors that are not exactly the expected ones.

    Args:
        what: Start of the message.
        expected: Name -> shape.
        found: Name -> tensor; what has no shape counts as missing.

    Raises:
        InputError: Some differ; the message lists up to `MOST_NAMES` of each kind.
    """
    shapes = {name: tuple(value.shape) for name, value in found.items() if hasattr(value, "shape")}
    wrong = {
        "missing": [name for name in expected if name not in shapes],
        "unknown": [name for name in found if name not in expected or name not in shapes],
        "misshapen": [
            f"{name} {shapes[name]} (should be {shape})"
            for name, shape in expected.items()
            if name in shapes and shapes[name] != shape
        ],
    }
    complain(what, wrong)

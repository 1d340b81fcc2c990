"""Refuses keys that are missing, unknown or wrong, all of them in one message."""

from collections.abc import Iterable, Mapping
from typing import Any

from unison_audio.errors import InputError


def complain(what: str, wrong: Mapping[str, Iterable[str]]) -> None:
    """Raise one error with all lists that are not empty."""
    lists = [f"{kind}: {', '.join(names)}" for kind, names in wrong.items() if names]
    if lists:
        raise InputError(f"{what}; {'; '.join(lists)}.")


def require_same_keys(
    what: str, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Any]
) -> None:
    """Refuse tensors that are not exactly the expected ones.

    Args:
        what: Start of the message.
        expected: Name -> shape.
        found: Name -> tensor; what has no shape counts as missing.

    Raises:
        InputError: Some differ; the message lists every key that is wrong.
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

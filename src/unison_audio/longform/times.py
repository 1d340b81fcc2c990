"""Times and regions as people write them: `1.5 s`, `1:05`, `3.2-7.5`."""

import itertools
import math
import re
from collections.abc import Sequence

from unison_audio.errors import InputError
from unison_audio.values import as_pair, as_real, shown

LEAST_REGION_SECONDS = 0.05
"""Minimum length of a region; the cross-fades would fill a shorter one."""

_TIME = r"(?:(?:\d+:)?\d+:)?\d+(?:[.,]\d+)?"

_UNIT = r"\s*(?:seconds?|secs?|s)?"

_TIME_PATTERN = re.compile(rf"\s*({_TIME}){_UNIT}\s*", re.IGNORECASE)

_REGION_PATTERN = re.compile(
    rf"\s*(?:from\s+)?(-?{_TIME}{_UNIT})\s*(?:-|–|—|\bto\b|\.\.)\s*(-?{_TIME}{_UNIT})\s*",
    re.IGNORECASE,
)

Region = tuple[float, float]
"""Seconds, from and to."""


def parse_time(text: str) -> float:
    """Read a time.

    Args:
        text: Seconds (`1.5`, `1s`, `1.5 s`), `minutes:seconds` or `hours:minutes:seconds`.

    Returns:
        Seconds.

    Raises:
        InputError: It is none of these, or negative.
    """
    if text.strip().startswith("-"):
        raise InputError(f"The time {text.strip()!r} is negative; times count from 0.")
    match = _TIME_PATTERN.fullmatch(text)
    if match is None:
        raise InputError(
            f"The time {text!r} is not understood; write seconds (1.5, 1.5 s) or "
            "minutes:seconds (1:05, 0:01.5)."
        )
    *sixties, seconds = match[1].replace(",", ".").split(":")
    if (sixties and float(seconds) >= 60) or (len(sixties) == 2 and int(sixties[1]) >= 60):
        raise InputError(f"The time {text!r} has 60 or more where less than 60 belong; mend it.")
    total = 0
    for number in sixties:
        total = total * 60 + int(number)
    return total * 60 + float(seconds)


def parse_region(text: str) -> Region:
    """Read a region such as `3.2-7.5`, `0:01.5 - 1:05` or `1s to 2.5 s`.

    Returns:
        Seconds, from and to.

    Raises:
        InputError: It is not two times, one is negative, or they are reversed or equal.
    """
    match = _REGION_PATTERN.fullmatch(text)
    if match is None:
        raise InputError(
            f"The region {text!r} is not understood; write two times with a hyphen between them, "
            "such as 3.2-7.5 or 0:01.5-1:05."
        )
    return parse_time(match[1]), parse_time(match[2])


def check_regions(regions: object, length: float) -> list[Region]:
    """Check regions against a recording's length, and sort them.

    Regions may touch; each is then edited by itself.

    Args:
        regions: Pairs of seconds, from and to, in any order.
        length: The recording's length in seconds.

    Returns:
        The regions in the order of time.

    Raises:
        InputError: One is negative, reversed, too short, past the end, or overlaps another.
    """
    pairs = [_pair(region) for region in _listed(regions)]
    for start, stop in pairs:
        name = f"The region {_number(start)}-{_number(stop)}"
        if min(start, stop) < 0:
            raise InputError(f"{name} holds a negative time; times count from 0.")
        if start > stop:
            raise InputError(f"{name} is reversed; write the earlier time first.")
        if stop > length + 1e-6:
            raise InputError(
                f"{name} ends past the end of the recording, {math.floor(length * 1000) / 1000} s; "
                "end it there or earlier."
            )
        if stop - start < LEAST_REGION_SECONDS:
            raise InputError(f"{name} is shorter than {LEAST_REGION_SECONDS} s; make it longer.")
    ordered = sorted(pairs)
    for (start, stop), (second, end) in itertools.pairwise(ordered):
        # Touching regions are allowed: 1.0-2.0 and 2.0-3.0 may differ in the last bit.
        if second < stop - 1e-9:
            raise InputError(
                f"The regions {_number(start)}-{_number(stop)} and {_number(second)}-"
                f"{_number(end)} overlap; join them, or leave one out."
            )
    return ordered


def _listed(regions: object) -> Sequence[object]:
    """The regions one by one."""
    found = regions.tolist() if hasattr(regions, "tolist") else regions
    if isinstance(found, str) or not isinstance(found, Sequence) or not found:
        raise InputError(
            f"The regions are {shown(regions)}; give a list of pairs of seconds, such as "
            "[(3.2, 7.5)]."
        )
    return found


def _pair(region: object) -> Region:
    """One region as two numbers."""
    pair = as_pair(region)
    start, stop = (None, None) if pair is None else map(as_real, pair)
    if start is None or stop is None:
        raise InputError(
            f"The region {shown(region)} is not two numbers of seconds; give a list of pairs, "
            "such as [(3.2, 7.5)]."
        )
    return start, stop


def _number(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")

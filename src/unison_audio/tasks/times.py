"""Times and regions as people write them: `1.5 s`, `500 ms`, `1:05`, `3.2-7.5`, `两秒`."""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from unison_audio.errors import InputError, UnplacedError
from unison_audio.values import as_pair, as_real, shown

LEAST_REGION_SECONDS = 0.05
"""Minimum length of a region; the cross-fades would fill a shorter one."""

_UNITS: tuple[tuple[str, float], ...] = (
    (r"milliseconds?|millisecs?|msecs?|ms|毫秒", 0.001),
    (r"seconds?|secs?|s|秒钟|秒", 1.0),
    (r"minutes?|mins?|分钟|分", 60.0),
    (r"hours?|hrs?|h|小时", 3600.0),
)
"""Patterns of a unit -> its seconds."""

_ENGLISH = tuple(
    word
    for row in (
        "zero one two three four five six seven eight nine ten",
        "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty",
    )
    for word in row.split()
)

_CHINESE = {c: n for n, c in enumerate("零一二三四五六七八九十")} | {"〇": 0, "两": 2, "半": 0.5}

# Digits are bounded and begin only where no digit stands before: a search then takes linear time.
_DIGITS = r"(?:\d{1,9}(?:[.,]\d{1,9})?|\.\d{1,9})(?!\d)"

_CLOCK = r"\d{1,9}(?::\d{1,9}){1,2}(?:[.,]\d{1,9})?(?!\d)"

_WORDS = (
    rf"(?:half\s{{1,3}}an?|(?:{'|'.join(reversed(_ENGLISH))})\b)"
    r"|[零〇一二两三四五六七八九十半]{1,3}"
)

_ANY_UNIT = "|".join(pattern for pattern, _ in _UNITS)

# The full stop of an abbreviation belongs to it; that of "s." ends a sentence.
_UNIT = rf"(?:(?P<unit>{_ANY_UNIT})(?![a-z0-9])(?:(?<=sec|min|hrs)\.|(?<=secs|mins|msec)\.)?)"

_MINUTES = r"(?P<minutes>\d{1,9})\s{0,2}(?:minutes?|mins?\.?|m|分钟|分)\s{0,2}(?:and\s{1,2})?"

TIME = re.compile(
    r"(?<![A-Za-z0-9_])(?<![\s(][a-gi-rt-z]-)(?<!^[a-gi-rt-z]-)(?<!\d[.,:])(?P<minus>(?<![\w)])[-−])?"
    rf"(?:{_MINUTES}(?=\d{{1,9}}(?:[.,]\d{{1,9}})?\s{{0,2}}(?:s|秒)))?"
    rf"(?:(?P<clock>{_CLOCK})|(?P<digits>{_DIGITS})|(?P<words>{_WORDS}))"
    rf"(?:(?P<gap>[\s-]{{0,3}}){_UNIT})?",
    re.IGNORECASE,
)
"""A number that may be a time: with a unit, or as minutes:seconds, or bare."""

_TO = re.compile(
    r"\s{0,9}(?:to|until|till|through|up to|-|–|—|~|～|→|\.\.{1,2}|到|至|直到)第?\s{0,9}",
    re.IGNORECASE,
)

Region = tuple[float, float]
"""Seconds, from and to."""


@dataclass(frozen=True, kw_only=True)
class TimeWord:
    """A number in a text that may be a time."""

    start: int
    """Position in the text."""
    end: int
    """Position after it."""
    text: str
    """As it is written."""
    number: float
    """Its value, in `scale`, or in seconds where it has colons."""
    scale: float | None
    """Seconds of its unit; None without one."""
    clock: bool
    """Whether it is minutes:seconds, or hours:minutes:seconds."""
    spelled: bool
    """Whether it is a word, such as "two"."""
    adjective: bool
    """Whether it stands before a noun, as in "a 5-second beep"."""

    @property
    def is_time(self) -> bool:
        """Whether it is a time by itself."""
        return self.clock or self.scale is not None

    @property
    def seconds(self) -> float:
        """The time; a bare number counts seconds."""
        return self.in_unit(None)

    def in_unit(self, scale: float | None) -> float:
        """The time, a bare number counted in another's unit."""
        if self.clock:
            return self.number
        return self.number * (self.scale or scale or 1.0)


def read_time(match: re.Match[str]) -> TimeWord:
    """Read a match of `TIME`.

    Raises:
        InputError: It has 60 or more minutes or seconds after a colon.
    """
    written = match["unit"]
    scale = None
    if written:
        scale = next(s for p, s in _UNITS if re.fullmatch(p, written, re.IGNORECASE))
    if match["clock"]:
        number = _clock_seconds(match[0], match["clock"])
    elif match["digits"]:
        number = _number_of(match["digits"], thousands=scale == 0.001)
    else:
        number = _spelled(match["words"].lower())
    if match["minutes"]:
        number, scale = 60 * int(match["minutes"]) + number, 1.0
    singular = (written or "").lower() in ("second", "minute", "hour", "millisecond")
    return TimeWord(
        start=match.start(),
        end=match.end(),
        text=match[0],
        number=-number if match["minus"] else number,
        scale=scale,
        clock=bool(match["clock"]),
        spelled=bool(match["words"]),
        adjective=bool(written) and ("-" in match["gap"] or (singular and number > 1)),
    )


def time_words(text: str) -> list[TimeWord]:
    """The numbers of a text that may be times, in order.

    Raises:
        InputError: One has 60 or more minutes or seconds after a colon.
    """
    return [read_time(match) for match in TIME.finditer(text)]


def is_range(text: str, first: TimeWord, last: TimeWord) -> bool:
    """Whether two neighboring times of a text are joined, as by "to" or a hyphen."""
    between = text[first.end : last.start]
    # The sign of "1s -3s" is a hyphen.
    return bool(_TO.fullmatch(between)) or (not between.strip() and last.text.startswith("-"))


def range_seconds(first: TimeWord, last: TimeWord) -> tuple[float, float]:
    """The seconds of two times; one without a unit has that of the other."""
    return first.in_unit(last.scale), last.in_unit(first.scale)


def _clock_seconds(written: str, clock: str) -> float:
    *sixties, seconds = clock.replace(",", ".").split(":")
    if float(seconds) >= 60 or (len(sixties) == 2 and int(sixties[1]) >= 60):
        raise UnplacedError(
            f'the time "{written.strip()}" has 60 or more where less than 60 belong; mend it'
        )
    total = 0
    for number in sixties:
        total = total * 60 + int(number)
    return total * 60 + float(seconds)


def _number_of(digits: str, thousands: bool) -> float:
    # "1,5 s" has a decimal comma; "1,500 ms" can only mean thousands.
    if thousands and re.fullmatch(r"\d{1,3},\d{3}", digits):
        return float(digits.replace(",", ""))
    return float(digits.replace(",", "."))


def _spelled(words: str) -> float:
    if words.startswith("half"):
        return 0.5
    if words in _ENGLISH:
        return float(_ENGLISH.index(words))
    tens, ten, ones = words.rpartition("十")
    if not ten:
        return float(sum(_CHINESE[c] * 10**k for k, c in enumerate(reversed(words))))
    return (_CHINESE[tens[-1]] if tens else 1) * 10.0 + (_CHINESE[ones[0]] if ones else 0)


def parse_length(text: str) -> float:
    """Read a length of time such as `3`, `1.5 s`, `2 minutes` or `0:03`.

    Returns:
        Seconds.

    Raises:
        InputError: It is no time, or negative.
    """
    times = time_words(text) if len(text) < 200 else []
    if len(times) != 1 or text.strip() != times[0].text.strip():
        raise InputError(
            f"The length {text[:100]!r} is not understood; write seconds (1.5, 1.5 s) or "
            "minutes:seconds (1:05)."
        )
    if times[0].number < 0:
        raise InputError(f"The length {text!r} is negative; give a time above 0.")
    return times[0].in_unit(None)


def parse_region(text: str) -> Region:
    """Read a region such as `3.2-7.5`, `0:01.5 - 1:05` or `1s to 2.5 s`.

    Returns:
        Seconds, from and to.

    Raises:
        InputError: It is not two times, one is negative, or they are reversed or equal.
    """
    try:
        times = time_words(text) if len(text) < 200 else []
    except UnplacedError as error:
        raise InputError(f"The region {text!r} is not understood: {error}.") from error
    whole = len(times) == 2 and is_range(text, *times)
    if (
        not whole
        or not re.fullmatch(r"\s*(?:from\s+|从)?", text[: times[0].start], re.IGNORECASE)
        or text[times[1].end :].strip()
    ):
        raise InputError(
            f"The region {text[:100]!r} is not understood; write two times with a hyphen between "
            "them, such as 3.2-7.5 or 0:01.5-1:05."
        )
    if min(time.number for time in times) < 0 or times[0].text.startswith(("-", "−")):
        raise InputError(f"The region {text!r} holds a negative time; times count from 0.")
    return range_seconds(*times)


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

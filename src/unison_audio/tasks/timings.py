"""Reads the times in an instruction's words: windows of events, and lengths.

`From 1s to 3s, thunder` has a window, `thunder for 2 seconds` and `3 to 5 seconds of rain` have a
length. A time that is neither is refused with its place, since nothing else would follow it.
"""

import re
from dataclasses import dataclass, replace
from itertools import pairwise

from unison_audio.errors import UnplacedError
from unison_audio.tasks.quotes import shorten
from unison_audio.tasks.times import TimeWord, is_range, range_seconds, time_words

_REACH = 24
"""Characters before and after a time that tell what it is; bounded, so that time stays linear."""

_WINDOW_BEFORE = re.compile(
    r"(?:\b(?P<between>between)|\b(?:from|during|at)|从|(?P<zai>在)|(?=第))\s{0,3}第?$",
    re.IGNORECASE,
)

_FOR = re.compile(
    r"(?:\b(?:for|lasting|lasts?|of length|with a length of|(?:is|are) about|about|around|"
    r"approximately|exactly|long:|length:?|duration:?)|持续|时长|长度|长达|长|约|大约)\s{0,3}(?:为|是|约|[:：])?"
    r"\s{0,3}(?:about|around|exactly|at least|up to|a total of)?\s{0,3}$",
    re.IGNORECASE,
)

_EVERY = re.compile(r"(?:\b(?:every|each|per|once in|once every)|每隔?)\s{0,3}$", re.IGNORECASE)

_ONE_END_BEFORE = re.compile(
    r"(?:\b(?:at|after|until|till|before|from|since|by|starting|beginning|ending|first|last|within|"
    r"in|to|around)\s{1,3}(?:at|from|the|exactly|about)?\s{0,3}|(?:在|从|到|至|直到|第|前|最后|开头|"
    r"之前)\s{0,3})$",
    re.IGNORECASE,
)

_ONE_END_AFTER = re.compile(
    r"\s{0,3}(?:\b(?:later|in|on|onwards?|before|mark|into)\b|(?:之?后|以后|之?前|起|开始|处|时)(?!的))",
    re.IGNORECASE,
)

_LENGTH_AFTER = re.compile(
    r"\s{0,3}(?:(?:-\s{0,2})?\b(?:of|long|worth|in length)\b|['’]s? worth|长|钟?的)", re.IGNORECASE
)

_OF_DAY = re.compile(r"\s{0,3}(?:a\.?m\b|p\.?m\b|o'?clock|点|时|hours?\b)", re.IGNORECASE)

_DECADE = re.compile(r"(?:(?:1[5-9]|20)\d0|[1-9]0)s", re.IGNORECASE)

_THE = re.compile(r"(?:\b(?:the|early|mid|late)[\s-]|['’])\s{0,3}$", re.IGNORECASE)

_AND = re.compile(r"\s{0,9}(?:and|和|与|及)\s{0,9}", re.IGNORECASE)

_WINDOW_AFTER = re.compile(
    r"\s{0,3}(?:之间|期间|内|时)?\s{0,3}[,，:：]?\s{0,3}(?:我们|有|是|出现|响起)?"
)

_SENTENCE = re.compile(r"[.;!?](?=\s|$)|[。；！？\n]")

_LINKS = re.compile(
    r"(?:(?:(?:and|then|also|plus|followed by|next|after that)(?![a-z])|和|与|然后|接着|再|并)"
    r"[\s,.;:，。；：、]*)+",
    re.IGNORECASE,
)

_BREAK = re.compile(r"[,，;；]|\b(?:and then|and|then|while)\b|(?:然后|接着)", re.IGNORECASE)

_TRIM = " \t\r\n,.;:!?()（），。；：、！？"

_TRAINED = re.compile(
    r"(?:from|between) \d{1,9}(?:\.\d{1,9})?s? (?:to|and) \d{1,9}(?:\.\d{1,9})?(?:s| seconds)", re.I
)
"""The spellings of a window that the templates have."""


@dataclass(frozen=True, kw_only=True)
class TimedEvent:
    """A sound with its window."""

    start: float
    """Seconds."""
    end: float
    """Seconds."""
    text: str
    """What sounds."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Two times, or one, with the words around them that belong to them."""

    start: int
    """Position in the words."""
    end: int
    """Position after it."""
    low: float
    """Seconds: the start of a window, or the least length."""
    high: float
    """Seconds: the end of a window, or the greatest length."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The times in some words."""

    words: str
    """The words."""
    windows: tuple[Span, ...]
    """Windows from one time to another, in the order of the words."""
    lengths: tuple[Span, ...]
    """Lengths of the whole."""

    @property
    def length(self) -> tuple[float, float] | None:
        """The least and the greatest length that the words ask for; None if they ask for none."""
        return (self.lengths[0].low, self.lengths[0].high) if self.lengths else None

    def without_times(self) -> str:
        """The words with a comma in the place of each time."""
        spans = sorted((*self.windows, *self.lengths), key=lambda span: span.start)
        edges = [0, *(edge for span in spans for edge in (span.start, span.end)), len(self.words)]
        return ",".join(self.words[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))


def read_timing(words: str) -> Timing:
    """Find the windows and lengths in some words.

    Args:
        words: Words of one clause.

    Raises:
        UnplacedError: A time is reversed, negative, or neither of a window nor a length.
    """
    times = time_words(words)
    edges = len(words) - len(words.lstrip(_TRIM)), len(words.rstrip(_TRIM))
    windows: list[Span] = []
    lengths: list[Span] = []
    k = 0
    while k < len(times):
        first = times[k]
        following = times[k + 1] if k + 1 < len(times) else None
        before, opened = words[max(0, first.start - _REACH) : first.start], first.start
        window = _WINDOW_BEFORE.search(before)
        if window:
            opened = first.start - (len(before) - window.start())
        if following is not None and _joined(words, first, following, window):
            k += 2
            span = _range(words, opened, first, following, window)
            if span is None:
                continue
            if _is_length(words, first, following, window):
                lengths.append(_checked(words, _with_link(words, span), True))
            else:
                windows.append(_checked(words, span, False))
            continue
        k += 1
        if first.is_time and not (first.clock and _OF_DAY.match(words, first.end)):
            length = _single(words, first, edges)
            if length is not None:
                lengths.append(length)
    if len(lengths) > 1 or (lengths and windows):
        part = words[lengths[-1].start : lengths[-1].end].strip()
        what = "a second length" if len(lengths) > 1 else "a length beside a window"
        raise UnplacedError(
            f'"{part}" is {what}; give each sound a window, as in "From 1s to 3s, thunder."'
        )
    return Timing(words=words, windows=tuple(windows), lengths=tuple(lengths))


def timed_events(timing: Timing) -> list[TimedEvent]:
    """Assign the words of a timeline to its windows.

    Raises:
        UnplacedError: A window has no sound, or a sound has no window.
    """
    words = timing.words
    events: list[TimedEvent] = []
    for begin, end, windows in _sentences(words, timing.windows):
        edges = [begin, *(e for span in windows for e in (span.start, span.end)), end]
        texts = [_tidy(words[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True)]
        if not windows:
            if texts[0]:
                sound = shorten(texts[0])
                raise UnplacedError(
                    f'"{sound}" has no times; write "From 1s to 3s, {sound}.", or leave out '
                    "the other times."
                )
            continue
        events += _assign(words, windows, texts)
    return events


def is_trained_spelling(timing: Timing) -> bool:
    """Whether the windows are spelled as in the templates, one in each sentence."""
    one_each = all(
        len(spans) == 1 or not timing.words[begin:end].strip(_TRIM)
        for begin, end, spans in _sentences(timing.words, timing.windows)
    )
    return one_each and all(
        _TRAINED.fullmatch(timing.words[span.start : span.end].rstrip(" ,:"))
        for span in timing.windows
    )


def timeline_text(events: list[TimedEvent]) -> str:
    """A timeline in the words of its first template."""
    return " ".join(
        f"From {_tenths(event.start)}s to {_tenths(event.end)}s, {event.text}." for event in events
    )


def _joined(words: str, first: TimeWord, last: TimeWord, window: re.Match[str] | None) -> bool:
    """Whether two neighboring times form a range."""
    if is_range(words, first, last):
        return True
    # "1s and 3s" are two times, "between 1s and 3s" is a range.
    between = bool(window and (window["between"] or window["zai"]))
    return between and bool(_AND.fullmatch(words[first.end : last.start]))


def _range(
    words: str, opened: int, first: TimeWord, last: TimeWord, window: re.Match[str] | None
) -> Span | None:
    """A range of times; None if its numbers are none, as in "3 to 5 dogs"."""
    if not (first.is_time or last.is_time):
        # "one to three" in a caption counts things; "from 1 to 3" may well be seconds.
        if window and not first.spelled and not last.spelled:
            part = words[opened : last.end].strip()
            raise UnplacedError(
                f'"{part}" has no unit; write "From {first.text.strip()}s to '
                f'{last.text.strip()}s, ..." if it is a time'
            )
        return None
    if first.clock and _OF_DAY.match(words, last.end):
        return None
    low, high = range_seconds(first, last)
    # A full stop after the window ends its sentence and is left.
    after = _WINDOW_AFTER.match(words, last.end)
    return Span(start=opened, end=after.end() if after else last.end, low=low, high=high)


def _is_length(words: str, first: TimeWord, last: TimeWord, window: re.Match[str] | None) -> bool:
    """Whether a range is one of lengths: "3 to 5 seconds of rain"."""
    if window and not window["between"]:
        return False
    before = words[max(0, first.start - _REACH) : first.start]
    after = bool(_LENGTH_AFTER.match(words, last.end))
    return last.adjective or after or bool(_FOR.search(before))


def _with_link(words: str, span: Span) -> Span:
    """A length with the words that link it to its sound, such as "for" and "of"."""
    before = words[max(0, span.start - _REACH) : span.start]
    stated = _FOR.search(before)
    after = _LENGTH_AFTER.match(words, span.end)
    return replace(
        span,
        start=span.start - (len(before) - stated.start()) if stated else span.start,
        end=after.end() if after else span.end,
    )


def _checked(words: str, span: Span, is_length: bool) -> Span:
    """A range whose numbers are in order."""
    part = words[span.start : span.end].strip(_TRIM)
    if span.low < 0 or span.high < 0:
        raise UnplacedError(f'"{part}" holds a negative time; times count from 0')
    if span.low > span.high:
        raise UnplacedError(f'"{part}" ends before it begins; write the earlier time first')
    if span.low == span.high and not is_length:
        raise UnplacedError(f'"{part}" has no length; write a later end')
    if is_length and span.high <= 0:
        raise UnplacedError(f'"{part}" is no length above 0; write a longer one')
    return span


def _single(words: str, time: TimeWord, edges: tuple[int, int]) -> Span | None:
    """The length that a lone time is; None for a part of a caption, as in "every 2 seconds".

    `edges` are the positions of the first word and after the last one.
    """
    before = words[max(0, time.start - _REACH) : time.start]
    stated = _FOR.search(before)
    start = time.start - (len(before) - stated.start()) if stated else time.start
    after = _LENGTH_AFTER.match(words, time.end)
    span = Span(
        start=start,
        end=after.end() if after else time.end,
        low=time.seconds,
        high=time.seconds,
    )
    if stated:
        return _checked(words, span, True)
    if _EVERY.search(before):
        return None
    one_end = _ONE_END_BEFORE.search(before)
    if (one_end and not time.adjective) or _ONE_END_AFTER.match(words, time.end):
        opened = time.start - (len(before) - one_end.start()) if one_end else time.start
        raise UnplacedError(
            f'"{words[opened : time.end].strip()}" gives one time of a sound; give both its start '
            'and its end, as in "From 1s to 3s, thunder."'
        )
    if after or time.adjective:
        return _checked(words, span, True)
    at_end = time.end >= edges[1]
    if _DECADE.fullmatch(time.text) and (not at_end or _THE.search(before)):
        return None
    if at_end or time.start <= edges[0]:
        return _checked(words, span, True)
    raise UnplacedError(
        f'"{time.text.strip()}" is neither a length nor the time of a sound; write "for '
        f'{time.text.strip()}" or "From 1s to 3s, thunder."'
    )


def _sentences(words: str, windows: tuple[Span, ...]) -> list[tuple[int, int, list[Span]]]:
    """Begin, end and windows of each sentence."""
    inside = [(span.start, span.end) for span in windows]
    ends: list[int] = []
    k = 0
    for mark in _SENTENCE.finditer(words):
        while k < len(inside) and inside[k][1] <= mark.start():
            k += 1
        if k == len(inside) or mark.start() < inside[k][0]:  # not the point of "0.5 sec."
            ends.append(mark.end())
    found: list[tuple[int, int, list[Span]]] = []
    k = 0
    for begin, end in pairwise([0, *ends, len(words) + 1]):
        own: list[Span] = []
        while k < len(windows) and windows[k].start < end:
            own.append(windows[k])
            k += 1
        found.append((begin, min(end, len(words)), own))
    return found


def _assign(words: str, windows: list[Span], texts: list[str]) -> list[TimedEvent]:
    """The events of one sentence: texts[i] stands before window i, the last one at the end."""
    named = list(texts)
    if texts[0]:  # "thunder from 1s to 3s, rain from 4s to 5s"
        named = texts[:-1]
        if texts[-1]:
            named[-1] = f"{named[-1]} {texts[-1]}"
    else:
        named = texts[1:]
        if len(named) > 1 and not named[-1]:  # "from 1s to 3s, thunder, and rain from 4s to 5s"
            named[-2:] = _divide(named[-2])
        # "from 1s to 2s and from 3s to 4s, thunder": windows without words share the next ones.
        for i in reversed(range(len(named) - 1)):
            named[i] = named[i] or named[i + 1]
    for span, text in zip(windows, named, strict=True):
        if not text:
            part = words[span.start : span.end].strip(_TRIM)
            raise UnplacedError(
                f'"{part}" names no sound; write what is heard then, as in "{part}, thunder."'
            )
    return [
        TimedEvent(start=span.low, end=span.high, text=text)
        for span, text in zip(windows, named, strict=True)
    ]


def _divide(text: str) -> list[str]:
    """Two events between two windows, of which the second stands before its own."""
    breaks = list(_BREAK.finditer(text))
    for cut in reversed(breaks):
        parts = [_tidy(text[: cut.start()]), _tidy(text[cut.end() :])]
        if all(parts):
            return parts
    return [text, ""]


def _tidy(text: str) -> str:
    """Words without the punctuation and the links at their ends."""
    text = " ".join(text.split()).strip(_TRIM)
    links = _LINKS.match(text)
    text = text[links.end() :] if links else text
    return re.sub(r"(?:\band|\bthen|\bwhile|和|然后)$", "", text.rstrip(_TRIM), flags=re.I).strip(
        _TRIM
    )


def _tenths(seconds: float) -> str:
    """A time as in training, with one decimal; more where it has more."""
    return f"{seconds:.1f}" if abs(seconds * 10 - round(seconds * 10)) < 1e-6 else f"{seconds:.6g}"

"""Finds quoted text: straight, curly, angular and Chinese quotes, one inside the other."""

import re
from dataclasses import dataclass

_MARKS = re.compile(r'["＂“”„«»「」『』]')

_DOUBLE = frozenset('"＂“”„')

_PAIRS = {"「": "」", "『": "』", "«": "»", "»": "«"}

_OPENS = frozenset("([{<（【《：:，、—-")
"""What may stand before an opening mark without a space between."""

_ENDS = frozenset(".,;:!?)]}>[…。，、；：！？）】》［【")
"""What may stand after a closing mark without a space between."""

_SINGLE_OPEN = re.compile(r"(?:(?<=[\s\]:,(（：，、])|^)['‘](?=\S)")

_SINGLE_CLOSE = re.compile(r"(?<=\S)['’](?=[\s.,;:!?)\[。，；！？、]|$)")


@dataclass(frozen=True)
class Quote:
    """A quoted text."""

    start: int
    """Position of the opening mark."""
    marked: str
    """The text with its marks."""

    @property
    def end(self) -> int:
        """Position after the closing mark."""
        return self.start + len(self.marked)

    @property
    def text(self) -> str:
        """What stands between the marks; quotes inside it belong to it."""
        return self.marked[1:-1]


def find_quotes(text: str) -> list[Quote]:
    """Find the outermost quotes of a text, in one pass.

    A mark that is never closed is no quote. Single quotes count where there are no others, since
    most of them are apostrophes.

    Args:
        text: Any text.
    """
    found: list[Quote] = []
    # Positions and closing marks of the quotes that are open, the outermost first.
    stack: list[tuple[int, str]] = []
    for mark in _MARKS.finditer(text):
        place, sign = mark.start(), mark[0]
        depth = _closed_depth(text, place, sign, stack)
        if depth is None:
            closing = '"' if sign in _DOUBLE else _PAIRS.get(sign, "")
            if closing:  # a lone closing bracket opens nothing
                stack.append((place, closing))
            continue
        start = stack[depth][0]
        del stack[depth:]
        while found and found[-1].start > start:
            found.pop()
        found.append(Quote(start, text[start : place + 1]))
    return found or _single_quotes(text)


def _closed_depth(text: str, place: int, sign: str, stack: list[tuple[int, str]]) -> int | None:
    """Depth of the open quote that a mark closes; None if it opens one."""
    if not stack or sign == "„":
        return None
    kind = '"' if sign in _DOUBLE else sign
    # Only the two innermost can be meant, and a bounded look keeps the whole pass linear.
    depth = next((d for d in range(len(stack) - 1, -1, -1)[:2] if stack[d][1] == kind), None)
    if depth is None or sign not in '"＂“':
        return depth
    before, after = text[place - 1], text[place + 1 : place + 2]
    opens = before.isspace() or before in _OPENS or before in _DOUBLE
    ends = not after or after.isspace() or after in _ENDS or after in _DOUBLE
    if sign == "“" and not opens and not ends:
        return None
    return None if opens and not ends else depth


def _single_quotes(text: str) -> list[Quote]:
    """Quotes in single marks, such as 'go' and ‘go’."""
    found: list[Quote] = []
    end = 0
    closings = iter([match.start() for match in _SINGLE_CLOSE.finditer(text)])
    closing = next(closings, None)
    for opening in _SINGLE_OPEN.finditer(text):
        if opening.start() < end:
            continue
        while closing is not None and closing <= opening.end():
            closing = next(closings, None)
        if closing is None:
            break
        end = closing + 1
        found.append(Quote(opening.start(), text[opening.start() : end]))
    return found


def outside_quotes(text: str) -> tuple[list[str], list[Quote]]:
    """Split a text into what stands outside of its quotes, and the quotes.

    Returns:
        One part more than there are quotes, and the quotes between them.
    """
    quotes = find_quotes(text)
    edges = [0, *(edge for quote in quotes for edge in (quote.start, quote.end)), len(text)]
    parts = [text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return parts, quotes


def shorten(part: str, most: int = 60) -> str:
    """A part of an instruction as an error quotes it: a long one's beginning is enough."""
    part = " ".join(part[: 4 * most].split())
    return part if len(part) <= most else f"{part[:most]}..."

"""Windows of an edit: cut to the length that a variant takes, joined at quiet places."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

from unison_audio.variants import Variant

OVERLAP = 0.25
"""Share of a window that the next one covers too. The join is looked for inside it."""

JOIN_REACH = 0.075
"""Share of a window by which a join may lie off the middle of the overlap: near its edges a window
is at its worst, because it knows the sound of one side only."""


@dataclass(frozen=True, kw_only=True)
class EditWindow:
    """One stretch that is edited at once; all positions are samples of the recording."""

    start: int
    """First sample that the model is given."""
    stop: int
    """The sample after the last one."""
    begin: int
    """First sample of its result: the start of the region, or a join."""
    end: int
    """End of its result: the end of the region, or the next join."""
    opens: bool
    """Whether `begin` is the start of a region, where the fade lies inside the region."""
    closes: bool
    """Whether `end` is the end of a region."""


class WindowModel(Protocol):
    """The part of `pipeline.Unison` that makes windows, of edits, speech and timelines."""

    variant: Variant

    @property
    def generate(self) -> Callable[..., Any]:
        """`Unison.generate`, called with a list of instructions."""
        ...


def derive_seed(seed: int, index: int) -> int:
    """The seed of one window, so that any window can be made again alone.

    Args:
        seed: The seed of the request, which the first window has itself.
        index: Which window, from 0.
    """
    if index == 0:
        return seed
    # A hash, and not seed + index: a user who tries the seeds 0, 1, 2 would get the same noise
    # again in the next window. The shift keeps the result below 2^63.
    digest = blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def plan_windows(
    region: tuple[int, int],
    frames: int,
    longest: int,
    context: int,
    quietest: Callable[[int, int], int],
) -> list[EditWindow]:
    """Cut a region into windows.

    Args:
        region: First sample, and the one after the last.
        frames: Samples of the recording.
        longest: Samples that the variant takes at once.
        context: Samples that the model is given at least, where the recording has them: of a
            shorter region it also hears what is around it.
        quietest: Called with two positions; returns the quietest place between them.

    Returns:
        The windows, in order. Neighbors overlap and meet at `end` of one, `begin` of the next.
    """
    begin, end = region
    if end - begin <= longest:
        start, stop = _around(region, frames, min(longest, max(context, end - begin)))
        return [EditWindow(start=start, stop=stop, begin=begin, end=end, opens=True, closes=True)]
    length, overlap = end - begin, round(OVERLAP * longest)
    count = -(-(length - overlap) // (longest - overlap))
    # Evenly spaced, so that joins lie at least a fifth of a window apart.
    starts = [begin + i * (length - longest) // (count - 1) for i in range(count)]
    reach = round(JOIN_REACH * longest)
    joins = []
    for start, following in itertools.pairwise(starts):
        middle = (following + start + longest) // 2
        # Mixing two versions of a loud sound can be heard; in a quiet place there is little to mix.
        joins.append(quietest(middle - reach, middle + reach))
    edges = [begin, *joins, end]
    return [
        EditWindow(
            start=start,
            stop=start + longest,
            begin=edges[i],
            end=edges[i + 1],
            opens=i == 0,
            closes=i == len(starts) - 1,
        )
        for i, start in enumerate(starts)
    ]


def _around(region: tuple[int, int], frames: int, wanted: int) -> tuple[int, int]:
    """A stretch of the wanted length around a region, moved to lie inside the recording."""
    begin, end = region
    start = max(0, min(begin - (wanted - (end - begin)) // 2, frames - wanted))
    return start, min(frames, start + wanted)

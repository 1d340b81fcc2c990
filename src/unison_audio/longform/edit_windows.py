"""Cuts an edit of any length into windows that fit a variant, joined at quiet places."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

OVERLAP = 0.25
"""Share of a window that the next one covers too. The join lies inside it."""

JOIN_REACH = 0.075
"""Largest distance of a join from the middle of the overlap, as a share of a window. A window is
worst near its edges, where the model knows the sound on one side only."""


@dataclass(frozen=True, kw_only=True)
class EditWindow:
    """A stretch that the model edits at once; all positions are samples of the recording."""

    start: int
    """First sample that the model is given."""
    stop: int
    """The sample after the last one."""
    begin: int
    """Where its result takes over: the start of the region, or a join."""
    end: int
    """Where its result ends: the end of the region, or the next join."""
    opens: bool
    """Whether `begin` is the start of a region, where the fade lies inside the region."""
    closes: bool
    """Whether `end` is the end of a region."""


def derive_seed(seed: int, index: int) -> int:
    """The seed of one window, so that each window can be made again alone.

    Args:
        seed: The seed of the request, which the first window has itself.
        index: Which window, from 0.
    """
    if index == 0:
        return seed
    # Not seed + index: a user who tries the seeds 0, 1, 2 would get the same noise in shifted
    # windows. The shift keeps the result below 2^63, torch's limit.
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
        context: Minimum samples of a window. A shorter region gets the sound around it as context.
        quietest: Called with two positions; returns the quietest place between them.

    Returns:
        The windows, in order. Neighbors overlap; one's `end` is the next one's `begin`.
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
        # A cross-fade of two versions of a sound can be heard; in a quiet place there is little to
        # mix.
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

"""Levels of edits: what is added is audible and fits, and the recording keeps its own level."""

import torch
from torch import Tensor

from unison_audio.audio import frame_levels, rms
from unison_audio.frame_layout import PEAK

AUDIBLE_RMS = 0.01
"""-40 dB: what is added to a quieter recording is raised to this level, since the model adds at
the level of its source."""

_FRAME = 320
"""Samples of a frame; the level is that of the frames within `_ACTIVE_DB` of the loudest."""

_ACTIVE_DB = 20.0

_NOTHING = 1e-7
"""Level below which nothing was added that could be raised."""

MAX_LOWERING_DB = 12.0
"""An addition is lowered so far at most. The rest of what is missing lowers the whole."""


def fit_addition(source: Tensor, result: Tensor) -> tuple[Tensor, list[str]]:
    """Raise an inaudible addition, and lower one that does not fit.

    Args:
        source: (samples,), the recording.
        result: (samples,), the recording with what was added.

    Returns:
        The recording with the addition at its new level, and what has to be said about it.
    """
    added = result - source
    notes: list[str] = []
    level = _active_rms(added)
    if float(rms(source)) < AUDIBLE_RMS and _NOTHING < level < AUDIBLE_RMS:
        added = added * (AUDIBLE_RMS / level)
        notes.append(
            f"The source is so quiet that what is added would be at "
            f"{_db(level):.0f} dB; it was raised to {_db(AUDIBLE_RMS):.0f} dB."
        )
    mixed = source + added
    if float(mixed.abs().max()) <= 1.0:
        return (mixed if notes else result), notes
    least = 10 ** (-MAX_LOWERING_DB / 20)
    gain = max(least, _largest_gain(source, added))
    notes.append(
        f"What is added was lowered by {-_db(gain):.1f} dB, or the result would exceed full scale."
    )
    whole, more = fit_whole(source + gain * added)
    return whole, notes + more


def fit_whole(result: Tensor) -> tuple[Tensor, list[str]]:
    """Scale a result that exceeds full scale, and say by how much.

    Args:
        result: (samples,).

    Returns:
        The result within full scale, and what has to be said about it.
    """
    peak = float(result.abs().max())
    if peak <= 1.0:
        return result, []
    return result * (PEAK / peak), [
        f"The whole result was lowered by {_db(peak / PEAK):.1f} dB, or it would exceed full scale."
    ]


def _largest_gain(source: Tensor, added: Tensor) -> float:
    """The largest factor of an addition with which no sample exceeds the peak."""
    # From each sample to the limit that the addition moves it to; a source that is over the limit
    # by itself leaves no room.
    room = (PEAK - source * added.sign()).clamp_min(0)
    moved = added.abs()
    ratios = torch.where(moved > 1e-9, room / moved.clamp_min(1e-9), torch.ones_like(room))
    return min(1.0, float(ratios.min()))


def _active_rms(added: Tensor) -> float:
    """Level of a sound while it sounds."""
    powers = 10 ** (frame_levels(added, _FRAME) / 10)
    active = powers[powers >= powers.max() * 10 ** (-_ACTIVE_DB / 10)]
    return float(active.mean().sqrt())


def _db(ratio: float) -> float:
    return float(20 * torch.tensor(ratio).clamp_min(1e-9).log10())

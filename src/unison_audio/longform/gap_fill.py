"""Fills gaps in recordings of any length, rate and channels, exact outside them.

The frames around a gap are fixed to their noised latents on the flow's path while those of the gap
are sampled (`model.sampling`). No model was trained for this: the paper's tasks that generate give
the velocities.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unison_audio import audio
from unison_audio.errors import InputError
from unison_audio.longform.edit_changes import FADE_SECONDS
from unison_audio.longform.edit_windows import WindowModel, derive_seed
from unison_audio.longform.gap_plan import (
    CONTEXT_SHARE,
    GapFilling,
    GapWindow,
    plan_gap_windows,
)
from unison_audio.longform.native_audio import NativeAudio, write_recording
from unison_audio.longform.surroundings import Surroundings, mirror
from unison_audio.output_format import OutputFormat
from unison_audio.sample_codings import Samples, from_float, to_float

MAX_CHANNEL_GAIN = 4.0
"""Highest gain of one channel over the mean of all, which is nothing where two cancel out."""

_BLOCK = 1 << 18


def fill_blocks(
    unison: WindowModel,
    filling: GapFilling,
    on_window: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Iterator[Samples]:
    """Fill the gaps of a recording piece by piece.

    Args:
        unison: The model.
        filling: What `plan_inpainting` or `plan_extension` made.
        on_window: Called with the windows done and the windows in all.
        **options: Sampling options, as for `Unison.generate`.

    Yields:
        (samples, channels) of the recording's own type, together the whole result.
    """
    plans = [_windows(unison, filling, gap) for gap in filling.gaps]
    total, done, position = sum(len(windows) for windows in plans), 0, 0

    def count() -> None:
        nonlocal done
        done += 1
        if on_window is not None:
            on_window(done, total)

    for gap, windows in zip(filling.gaps, plans, strict=True):
        yield from _copies(filling, position, gap[0])
        seeds = [derive_seed(filling.seed, done + i) for i in range(len(windows))]
        yield _fill(unison, filling, gap, list(zip(windows, seeds, strict=True)), count, options)
        position = gap[1]
    yield from _copies(filling, position, filling.result.frames)


def fill_recording(
    unison: WindowModel,
    filling: GapFilling,
    on_window: Callable[[int, int], None] | None = None,
    **options: Any,
) -> NativeAudio:
    """Fill the gaps of a recording in memory.

    Args:
        unison: The model.
        filling: What `plan_inpainting` or `plan_extension` made.
        on_window: Called with the windows done and the windows in all.
        **options: Sampling options, as for `Unison.generate`.

    Returns:
        The result, at the recording's rate, channels and depth.
    """
    blocks = fill_blocks(unison, filling, on_window, **options)
    return replace(filling.result, samples=np.concatenate(list(blocks)))


def fill_file(
    unison: WindowModel,
    filling: GapFilling,
    output: Path,
    on_window: Callable[[int, int], None] | None = None,
    output_format: OutputFormat | None = None,
    **options: Any,
) -> None:
    """Fill the gaps of a recording into a file, which appears whole or not at all.

    Args:
        unison: The model.
        filling: What `plan_inpainting` or `plan_extension` made.
        output: A wav or flac file.
        on_window: Called with the windows done and the windows in all.
        output_format: Format and options; by default the suffix decides.
        **options: Sampling options, as for `Unison.generate`.

    Raises:
        InputError: If an input cannot be used, or the file cannot be written.
    """
    blocks = fill_blocks(unison, filling, on_window, **options)
    write_recording(output, blocks, filling.result, output_format)


def _copies(filling: GapFilling, start: int, stop: int) -> Iterator[Samples]:
    """The recording's own samples between two positions of the result, in pieces."""
    for position in range(start, stop, _BLOCK):
        yield _own(filling, position, min(stop, position + _BLOCK))


def _own(filling: GapFilling, start: int, stop: int) -> Samples:
    if start == stop:
        return np.zeros((0, filling.recording.channels), filling.recording.dtype)
    return filling.recording.read(start - filling.offset, stop - filling.offset)


def _sides(filling: GapFilling, gap: tuple[int, int], reach: int) -> tuple[int, int]:
    """Samples of the recording that are known before a gap and after it, at most `reach` each.

    They end at the next gap, whose samples are to be replaced.
    """
    start, stop = filling.offset, filling.offset + filling.recording.frames
    index = filling.gaps.index(gap)
    if index:
        start = max(start, filling.gaps[index - 1][1])
    if index + 1 < len(filling.gaps):
        stop = min(stop, filling.gaps[index + 1][0])
    return min(reach, max(0, gap[0] - start)), min(reach, max(0, stop - gap[1]))


def _reach(unison: WindowModel, filling: GapFilling) -> int:
    """Samples of a recording that a window knows on one side at most."""
    return int(CONTEXT_SHARE * unison.variant.max_seconds * filling.recording.sample_rate)


def _windows(unison: WindowModel, filling: GapFilling, gap: tuple[int, int]) -> list[GapWindow]:
    """The windows of one gap, at the model's rate; position 0 is the first known sample."""
    variant, rate = unison.variant, filling.recording.sample_rate
    before, after = _sides(filling, gap, _reach(unison, filling))
    before, length, after = (
        _scaled(count, rate, variant.sample_rate) for count in (before, gap[1] - gap[0], after)
    )
    whole = int(variant.max_seconds * variant.latent_fps) * variant.hop
    return plan_gap_windows((before, after), length, whole, variant.hop)


def _fill(
    unison: WindowModel,
    filling: GapFilling,
    gap: tuple[int, int],
    windows: list[tuple[GapWindow, int]],
    count: Callable[[], None],
    options: dict[str, Any],
) -> Samples:
    """Sample the windows of one gap, each with its seed: (samples of the gap, channels)."""
    variant, rate = unison.variant, filling.recording.sample_rate
    before, after = _sides(filling, gap, _reach(unison, filling))
    left, right = (
        to_float(_own(filling, start, stop))
        for start, stop in ((gap[0] - before, gap[0]), (gap[1], gap[1] + after))
    )
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        name = filling.recording.name
        raise InputError(f"{name} holds values that are not finite; give a clean recording.")
    low = [_low(side.mean(axis=1), rate, variant.sample_rate) for side in (left, right)]
    inner = (len(low[0]), len(low[0]) + _scaled(gap[1] - gap[0], rate, variant.sample_rate))
    canvas = torch.cat([low[0], torch.zeros(inner[1] - inner[0]), low[1]])  # (samples,)
    for window, seed in windows:
        [made] = unison.generate(
            [filling.instruction],
            task=filling.task.name,
            surroundings=[
                Surroundings(
                    waveform=canvas[window.start : window.stop],
                    start=window.begin - window.start,
                    stop=window.end - window.start,
                )
            ],
            seed=[seed],
            **options,
        )
        _lay(canvas, window, made.waveform, inner, round(FADE_SECONDS * variant.sample_rate))
        count()
    up = audio.resample(canvas, variant.sample_rate, rate).double().numpy()
    first = round(inner[0] * rate / variant.sample_rate)
    new = np.pad(up, (0, gap[1] - gap[0]))[first : first + gap[1] - gap[0], None]
    mono = np.concatenate([left, right]).mean(axis=1)
    wide = new * _channel_gains(np.concatenate([left, right]), mono)
    return from_float(_joined(wide, left, right, rate), filling.recording.coding)


def _lay(canvas: Tensor, window: GapWindow, made: Tensor, gap: tuple[int, int], fade: int) -> None:
    """Put what was sampled into the gap, cross-faded with what another window laid beside it."""
    first, last = window.begin - window.start, window.end - window.start
    piece = torch.nn.functional.pad(made, (0, max(0, last - len(made))))[first:last].clone()
    fade = min(fade, len(piece) // 2)
    rise = audio.raised_cosine(fade).sqrt()
    # The model's copy of what is known differs from it in phase. In the fade the known sound goes
    # on backward, without a step, while the new one comes in.
    if window.begin > gap[0]:
        known = canvas[window.begin - fade : window.begin]
        piece[:fade] = piece[:fade] * rise + mirror(known, fade) * rise.flip(0)
    if window.end < gap[1]:
        known = canvas[window.end : window.end + fade].flip(0)
        piece[-fade:] = piece[-fade:] * rise.flip(0) + mirror(known, fade).flip(0) * rise
    canvas[window.begin : window.end] = piece


def _scaled(count: int, rate: int, to_rate: int) -> int:
    """Samples of a stretch at another rate, rounded up."""
    return -(-count * to_rate // rate)


def _low(mono: NDArray[np.float64], rate: int, to_rate: int) -> Tensor:
    """A stretch at the model's rate, of the length that `_scaled` says."""
    wave = torch.from_numpy(mono).float()
    if len(wave):
        wave = audio.resample(wave, rate, to_rate)
    length = _scaled(len(mono), rate, to_rate)
    return torch.nn.functional.pad(wave, (0, max(0, length - len(wave))))[:length]


def _channel_gains(known: NDArray[np.float64], mono: NDArray[np.float64]) -> NDArray[np.float64]:
    """Level of each channel by that of their mean, (channels,)."""
    level = np.sqrt(np.square(mono).mean()) if len(mono) else 0.0
    if level < audio.SILENCE_RMS:
        return np.ones(known.shape[1])
    gains = np.sqrt(np.square(known).mean(axis=0)) / level
    return np.asarray(gains.clip(0, MAX_CHANNEL_GAIN))


def _joined(
    new: NDArray[np.float64], left: NDArray[np.float64], right: NDArray[np.float64], rate: int
) -> NDArray[np.float64]:
    """The new samples with both ends joined to what is known, or faded where nothing is."""
    fade = min(round(FADE_SECONDS * rate), len(new) // 2)
    rise = audio.raised_cosine(fade).double().numpy()[:, None]
    for side, ends in ((left[::-1], new), (right, new[::-1])):  # the second one backward
        if len(side):
            known = side[:fade]
            period = np.concatenate([known, known[::-1]])
            going = np.tile(period, (-(-fade // len(period)), 1))[:fade]
            ends[:fade] = ends[:fade] * np.sqrt(rise) + going * np.sqrt(rise[::-1])
        else:
            ends[:fade] *= rise
    return new

"""The difference that an edit makes to each window of a recording, at the recording's own rate.

The model works on mono at its own rate. This file brings windows there, brings the difference back
to the recording's rate and channels, and sets it to exactly 0 where nothing changed.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unison_audio import audio
from unison_audio.audio_files import SILENCE_RMS, require_finite
from unison_audio.longform.edit_windows import EditWindow, WindowModel, derive_seed
from unison_audio.longform.native_audio import NativeAudio
from unison_audio.sample_codings import to_float
from unison_audio.tasks.table import Task

FADE_SECONDS = 0.02
"""The cross-fade at a region's edges, inside it."""

JOIN_SECONDS = 0.1
"""The cross-fade between two windows, around a quiet place."""

UNCHANGED_PEAK = 10 ** (-78 / 20)
"""A difference below this counts as none. `preserve` gives unedited frames back to within the
rounding of float32 (about -130 dB), and a step of 16 bit is at -90 dB."""

CHANGE_RANGE_DB = 20.0
"""Where no region is named, a change so far below the loudest one up to there is left out: the
model takes a little of everything along, and where it takes noise for speech, it lowers the whole
window by 9 dB to protect that. In 90 s of wind with nine barks, 100 % of the samples away from the
barks stay with 20 dB, 99.8 % with 24 and 87 % with 30, and the barks' LSD falls from 0.098 (30) to
0.078. A removal of a steady sound changes all of it alike."""

_FRAME_SECONDS, _LEVEL_SECONDS = 0.01, 0.05


class UneditedWarning(UserWarning):
    """A stretch of a recording is left as it is, because it holds no sound."""


@dataclass(frozen=True, kw_only=True)
class RegionEdit:
    """One edit, checked: what is done where."""

    instruction: str
    """With the tags of the task table."""
    task: Task
    """Task of the instruction."""
    recording: NativeAudio
    """The recording to edit."""
    windows: list[EditWindow]
    """The windows, in the order of time."""
    seed: int
    """Seed that the windows' seeds are derived from."""
    everywhere: bool = False
    """Whether no region was named, so that the edit finds itself where to change something."""
    extract: bool = False
    """Whether the result is what the edit takes away, instead of what it leaves."""
    warnings: dict[str, None] = field(default_factory=dict)
    """Warnings about the windows that were edited, in the order of their first appearance."""


def half_join(recording: NativeAudio) -> int:
    """Half of the cross-fade between two windows, in samples."""
    return round(JOIN_SECONDS * recording.sample_rate / 2)


def window_changes(
    unison: WindowModel,
    edit: RegionEdit,
    first: int,
    windows: Sequence[EditWindow],
    options: dict[str, Any],
    loudest: float = 0.0,
) -> tuple[list[NDArray[np.float64]], float]:
    """Edit windows.

    Args:
        unison: The model.
        edit: The edit.
        first: Number of the first of these windows.
        windows: The windows.
        options: Sampling options.
        loudest: Level of the loudest change in the windows before these, an RMS over 50 ms.

    Returns:
        The difference of each window, (samples, channels), faded at its edges; and the level of the
        loudest change up to the last of them.
    """
    variant, recording = unison.variant, edit.recording
    most = int(variant.max_seconds * variant.sample_rate)
    tracks: list[tuple[int, Tensor]] = []  # (window, mono at the model's rate)
    sources: list[NDArray[np.float64]] = []
    for i, window in enumerate(windows):
        own = to_float(recording.read(window.start, window.stop))
        require_finite(own, recording.sample_rate, recording.name, start=window.start)
        sources.append(own)
        for track in _tracks(edit.task, own):
            low = audio.resample(
                torch.from_numpy(track).float(), recording.sample_rate, variant.sample_rate
            )[:most]
            if low.numel() and float(audio.rms(low)) >= SILENCE_RMS:
                tracks.append((i, low))
            else:
                tracks.append((i, torch.zeros(0)))
                if edit.task.adds:
                    _warn_silent(recording, window)
    sounding = [k for k, (_, low) in enumerate(tracks) if low.numel()]
    results = unison.generate(
        [edit.instruction] * len(sounding),
        task=edit.task.name,
        source=[(tracks[k][1], variant.sample_rate) for k in sounding],
        seed=[derive_seed(edit.seed, first + tracks[k][0]) for k in sounding],
        **options,
    )
    edit.warnings.update(dict.fromkeys(note for result in results for note in result.warnings))
    edited = {
        k: _whole(result.waveform, tracks[k][1])
        for k, result in zip(sounding, results, strict=True)
    }
    rate = variant.sample_rate
    levels = [_levels(edited[k] - tracks[k][1], rate).max() for k in sounding]
    loudest = max([loudest, *map(float, levels)])
    floor = loudest * 10 ** (-CHANGE_RANGE_DB / 20) if edit.everywhere else 0.0
    changes = []
    for i, (window, own) in enumerate(zip(windows, sources, strict=True)):
        mine = [k for k, (window_index, _) in enumerate(tracks) if window_index == i]
        columns = [_difference(edit, own, tracks[k][1], edited.get(k), floor, rate) for k in mine]
        # Channels that were edited by themselves each have their own column of their own change.
        wide = (
            columns[0]
            if len(mine) == 1
            else np.stack([column[:, c] for c, column in enumerate(columns)], axis=1)
        )
        changes.append(wide * _weights(window, recording)[:, None])
    return changes, loudest


def _tracks(task: Task, own: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Mono signals for the model: every channel of a removal, else their mean.

    A sound is taken out of each channel at its own level. What is added is one sound, the same in
    all channels: sampled by channel it would be several.
    """
    alike = bool((own == own[:, :1]).all())
    if task.group == "remove" and not alike:
        return [own[:, channel] for channel in range(own.shape[1])]
    return [own.mean(axis=1)]


def _whole(edited: Tensor, low: Tensor) -> Tensor:
    """The result at the source's length: an incomplete last frame is cut off by some codecs."""
    return torch.cat([edited, low[len(edited) :]]) if len(edited) < len(low) else edited


def _difference(
    edit: RegionEdit,
    own: NDArray[np.float64],
    low: Tensor,
    edited: Tensor | None,
    floor: float,
    rate: int,
) -> NDArray[np.float64]:
    """Result minus source for every channel, at the recording's rate: (samples, channels).

    A change below the level `floor` counts as none; `rate` is the model's.

    An edit that only adds leaves what is above the model's band, and what differs between the
    channels, where it is. One that removes gives all of that up where it changes something: the
    removed sound would still be heard there.
    """
    if edited is None:
        return np.zeros_like(own)
    task, recording = edit.task, edit.recording
    change = edited - low
    gate = _gate(change, floor, rate)
    if not gate.any():
        return np.zeros_like(own)
    which = edited if task.removes else change
    up = audio.resample(which, rate, recording.sample_rate).double().numpy()
    up = np.pad(up, (0, max(0, len(own) - len(up))))[: len(own), None]
    difference = up - own if task.removes else np.repeat(up, own.shape[1], axis=1)
    frame = _FRAME_SECONDS * recording.sample_rate
    at = (np.arange(len(own)) + 0.5) / frame - 0.5
    opening = np.interp(at, np.arange(len(gate)), gate)
    return np.asarray(difference * opening[:, None])


def _levels(change: Tensor, rate: int) -> Tensor:
    """RMS of a change over 50 ms around each frame, (frames,)."""
    frame = round(_FRAME_SECONDS * rate)
    count = -(-len(change) // frame)
    padded = torch.nn.functional.pad(change.square(), (0, count * frame - len(change)))
    reach = round(_LEVEL_SECONDS / _FRAME_SECONDS) // 2
    power = padded.view(1, count, frame).mean(dim=2)
    return torch.nn.functional.avg_pool1d(power, 2 * reach + 1, 1, reach)[0].sqrt()


def _gate(change: Tensor, floor: float, rate: int) -> NDArray[np.float64]:
    """1 for each frame that changed or has a neighbor that did, else 0."""
    frame = round(_FRAME_SECONDS * rate)
    count = -(-len(change) // frame)
    padded = torch.nn.functional.pad(change.abs(), (0, count * frame - len(change)))
    peaks = padded.view(count, frame).amax(dim=1)
    moved = ((peaks > UNCHANGED_PEAK) & (_levels(change, rate) >= floor)).float()
    # Two frames on each side, so that the opening is over before the change begins.
    return torch.nn.functional.max_pool1d(moved[None], 5, 1, 2)[0].double().numpy()


def _weights(window: EditWindow, recording: NativeAudio) -> NDArray[np.float64]:
    """1 inside, falling to 0 within a region's edges and across a join."""
    weights = np.zeros(window.stop - window.start)
    half = half_join(recording)
    # A region's fade lies inside it, so that nothing outside is touched.
    fade = min(round(FADE_SECONDS * recording.sample_rate), (window.end - window.begin) // 2)
    begin, end = window.begin - window.start, window.end - window.start
    rise, risen = (begin, begin + fade) if window.opens else (begin - half, begin + half)
    fall, fallen = (end - fade, end) if window.closes else (end - half, end + half)
    weights[risen:fall] = 1.0
    weights[rise:risen] = audio.raised_cosine(risen - rise).double().numpy()
    weights[fall:fallen] = audio.raised_cosine(fallen - fall).double().flip(0).numpy()
    return weights


def _warn_silent(recording: NativeAudio, window: EditWindow) -> None:
    rate = recording.sample_rate
    warnings.warn(
        f"{recording.name} is silent from {window.start / rate:.2f} to {window.stop / rate:.2f} s; "
        "nothing is added there.",
        UneditedWarning,
        stacklevel=5,
    )

"""Timelines of any length: windows with the events inside them, generated and joined in order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unison_audio import audio
from unison_audio.audio import Audio
from unison_audio.errors import InputError
from unison_audio.longform.edit_windows import WindowModel, derive_seed
from unison_audio.longform.subtitles import Cue, event_cues
from unison_audio.provenance.origin import Origin
from unison_audio.values import check_seed
from unison_audio.variants import Variant

WINDOWS_AT_ONCE = 8
"""Windows that are sampled in one batch, which bounds the memory."""

JOIN_SECONDS = 0.5
"""Overlap and cross-fade of two windows where an event is cut."""

FADE_SECONDS = 0.02
"""The fade at a cut between events."""

LONGEST_SECONDS = 24 * 3600
"""Seconds of one timeline."""

LEAST_EVENT_SECONDS = 0.1
"""Shorter rests of an event in a window are left out."""


@dataclass(frozen=True, kw_only=True)
class TimelineWindow:
    """One stretch of a timeline."""

    start: float
    """Seconds."""
    stop: float
    """Seconds."""
    joined: bool
    """Whether an event goes on from the window before, which it overlaps by `JOIN_SECONDS`."""
    events: tuple[Cue, ...]
    """The events inside, their times counted from `start`."""

    @property
    def instruction(self) -> str:
        """Instruction of the window."""
        return "[Audio] " + " ".join(
            f"From {event.start:.3g}s to {event.end:.3g}s, {event.text}." for event in self.events
        )


def plan_timeline(
    variant: Variant, instruction: str, duration: float | None = None, seed: int = 0
) -> list[TimelineWindow]:
    """Cut a timeline into windows, between events where that is possible.

    Args:
        variant: What will run it.
        instruction: `[Audio] From 0s to 2s, rain. From 61.5s to 64s, thunder.`
        duration: Seconds of the whole; by default the end of the last event.
        seed: The seed that `compose` will have.

    Returns:
        The windows, in order; those without events are silence.

    Raises:
        InputError: It is no timeline, or an event ends after the duration.
    """
    events = event_cues(instruction)
    if not events:
        raise InputError(f"The instruction {instruction!r} is no timeline; give events with times.")
    last = max(event.end for event in events)
    total = last if duration is None else duration
    seed = check_seed(seed)
    if not 0 < total <= LONGEST_SECONDS:
        raise InputError(
            f"The timeline is {total:g} s long; at most {LONGEST_SECONDS} s are made at once."
        )
    if last > total:
        raise InputError(
            f"An event ends at {last:g} s, after the duration of {total:g} s; ask for more, or end "
            "it earlier."
        )
    longest = int(variant.max_seconds * variant.latent_fps) / variant.latent_fps
    windows: list[TimelineWindow] = []
    start, joined = 0.0, False
    while start < total:
        stop = _cut(events, start, min(start + longest, total), total)
        inside = tuple(
            Cue(
                start=max(0.0, event.start - start),
                end=min(event.end, stop) - start,
                text=event.text,
            )
            for event in events
            if min(event.end, stop) - max(event.start, start) >= LEAST_EVENT_SECONDS
        )
        windows.append(TimelineWindow(start=start, stop=stop, joined=joined, events=inside))
        joined = stop < total and any(event.start < stop < event.end for event in events)
        start = stop - JOIN_SECONDS if joined else stop
    return windows


def compose(
    unison: WindowModel,
    windows: Sequence[TimelineWindow],
    seed: int = 0,
    on_window: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Iterator[Audio]:
    """Make a timeline.

    Args:
        unison: The model.
        windows: What `plan_timeline` made.
        seed: Window i has the seed `derive_seed(seed, i)`.
        on_window: Called with the windows done and the windows in all.
        **options: Sampling options, as for `Unison.generate`.

    Yields:
        Sounds to play one after the other, each as soon as it is finished.
    """
    rate = unison.variant.sample_rate
    join = round(JOIN_SECONDS * rate)
    position, tail = 0, torch.zeros(0)
    for first in range(0, len(windows), WINDOWS_AT_ONCE):
        batch = windows[first : first + WINDOWS_AT_ONCE]
        sounds = _sample(
            unison, batch, [derive_seed(seed, first + i) for i in range(len(batch))], options
        )
        for index, (window, sound) in enumerate(zip(batch, sounds, strict=True), first):
            begin, end = round(window.start * rate), round(window.stop * rate)
            piece = torch.nn.functional.pad(sound, (0, max(0, end - begin - len(sound))))
            piece = piece[: end - begin]
            goes_on = index + 1 < len(windows) and windows[index + 1].joined
            fade = round(FADE_SECONDS * rate)
            rise, fall = (join if window.joined else fade), (join if goes_on else fade)
            piece = audio.fade(piece, rise, fall)
            if window.joined:
                piece[: len(tail)] += tail
            keep = len(piece) - (join if goes_on else 0)
            tail = piece[keep:].clone()
            position += keep
            if on_window is not None:
                on_window(index + 1, len(windows))
            yield Audio(
                piece[:keep].clamp(-1, 1),
                rate,
                instruction=window.instruction,
                task="timed",
                seed=derive_seed(seed, index),
                origin=Origin(task="timed", variant=unison.variant.name),
            )


def _sample(
    unison: WindowModel,
    windows: Sequence[TimelineWindow],
    seeds: list[int],
    options: dict[str, Any],
) -> list[Tensor]:
    """The windows' sounds; silence where nothing happens."""
    sounding = [i for i, window in enumerate(windows) if window.events]
    made = unison.generate(
        [windows[i].instruction for i in sounding],
        # The difference of two times may exceed the longest window by a rounding error.
        duration=[
            min(windows[i].stop - windows[i].start, unison.variant.max_seconds) for i in sounding
        ],
        seed=[seeds[i] for i in sounding],
        **options,
    )
    found = {i: sound.waveform for i, sound in zip(sounding, made, strict=True)}
    return [found.get(i, torch.zeros(0)) for i in range(len(windows))]


def _cut(events: Sequence[Cue], start: float, stop: float, total: float) -> float:
    """The latest time up to `stop` that lies in no event, in the second half; else `stop`."""
    if stop >= total:
        return total
    ends = [stop, *(edge for event in events for edge in (event.start, event.end))]
    free = [
        time
        for time in ends
        if (start + stop) / 2 <= time <= stop
        and not any(event.start < time < event.end for event in events)
    ]
    return max(free, default=stop)

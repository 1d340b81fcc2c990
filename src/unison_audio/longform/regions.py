"""Edits of recordings of any length, everywhere or in named regions, exact outside them.

The model works on mono at its own rate and on short stretches. This file cuts the recording into
windows, has each edited, brings the difference back to the recording's rate and channels, and adds
it to the recording's own samples. Where the difference is nothing, those samples stay as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unison_audio import audio
from unison_audio.errors import InputError
from unison_audio.longform.edit_changes import RegionEdit, half_join, window_changes
from unison_audio.longform.edit_windows import WindowModel, plan_windows
from unison_audio.longform.extraction import removal_of
from unison_audio.longform.native_audio import (
    NativeAudio,
    Source,
    check_exact,
    open_recording,
    write_recording,
)
from unison_audio.output_format import OutputFormat
from unison_audio.provenance.origin import Origin
from unison_audio.sample_codings import Samples, from_float, to_float
from unison_audio.tasks.clauses import with_tags
from unison_audio.tasks.instructions import read_instruction
from unison_audio.tasks.table import TASKS
from unison_audio.tasks.times import Region, check_regions
from unison_audio.values import check_seed, require_text
from unison_audio.variants import Variant

WINDOWS_AT_ONCE = 8
"""Windows that are edited in one batch, which bounds the memory."""

LEAST_WINDOW_SECONDS = 1.0
"""Shortest window, where the recording is long enough: trained clips are no shorter."""

_QUIET_SECONDS = 0.02


def plan_edit(
    variant: Variant,
    instruction: str,
    source: Source,
    regions: Sequence[Region] | None = None,
    seed: int = 0,
    *,
    extract: bool = False,
    task: str | None = None,
) -> RegionEdit:
    """Check an edit, and cut it into windows that the variant takes.

    Args:
        variant: What will run it.
        instruction: An edit, with the tags of the task table; to extract, also `[Audio]` and a
            sound, or `[Speech]`.
        source: The recording, of any length, rate and number of channels.
        regions: Seconds, from and to, outside of which nothing changes; None for everywhere.
        seed: Window i has the seed `derive_seed(seed, i)`.
        extract: Whether the result is what a removal takes away, instead of what it leaves.
        task: The task, where the user names it.

    Raises:
        InputError: If something does not fit; the message says what does.
    """
    require_text(instruction, "The instruction")
    if extract and task is None:
        instruction = removal_of(instruction)
    row = TASKS[read_instruction(instruction, True, False, task).task]
    if task is not None:
        instruction = with_tags(instruction, task)
    if extract and row.group != "remove":
        raise InputError(
            f"The instruction {instruction!r} ({row.name}) takes nothing away that could be "
            "extracted; write [Audio] and the sound, [Speech], or [Edit][Audio] Remove ..."
        )
    seed = check_seed(seed)
    recording = open_recording(source)
    rate, frames = recording.sample_rate, recording.frames
    if regions is None:
        spans = [(0, frames)]
    elif isinstance(regions, list | tuple) and not regions:
        raise InputError("No region is given; name at least one, such as 3.2-7.5.")
    else:
        checked = check_regions(regions, recording.seconds)
        spans = [(round(start * rate), min(frames, round(stop * rate))) for start, stop in checked]
    # Whole latent frames: what is left over at the end of a source may be cut off.
    whole = int(variant.max_seconds * variant.latent_fps) / variant.latent_fps
    longest = int(whole * rate)
    for begin, end in spans:
        # A sentence that is cut into windows would be spoken twice or in two halves.
        if row.group == "add_speech" and end - begin > longest:
            what = recording.name if regions is None else "The region"
            raise InputError(
                f"{what} is {(end - begin) / rate:.2f} s long and the edit puts in words, which "
                f"must fit a region of at most {variant.max_seconds} s; name one with --region."
            )
    # What is taken away may lie across a region's edge, so removals get all the context that fits
    # the model. What is added must lie inside the region.
    context = longest if row.group == "remove" else round(LEAST_WINDOW_SECONDS * rate)
    windows = [
        window
        for span in spans
        for window in plan_windows(
            span, frames, longest, context, lambda a, b: _quietest(recording, a, b)
        )
    ]
    return RegionEdit(
        instruction=instruction,
        task=row,
        recording=recording,
        windows=windows,
        seed=seed,
        everywhere=regions is None,
        extract=extract,
    )


def edit_blocks(
    unison: WindowModel,
    edit: RegionEdit,
    on_window: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Iterator[Samples]:
    """Edit a recording piece by piece.

    Args:
        unison: The model.
        edit: What `plan_edit` made.
        on_window: Called with the windows done and the windows in all.
        **options: Sampling options, as for `Unison.generate`.

    Yields:
        (samples, channels) of the recording's own type, together the whole recording.
    """
    position, loudest = 0, 0.0
    pending: NDArray[np.float64] | None = None  # the half-done difference at a join
    for first in range(0, len(edit.windows), WINDOWS_AT_ONCE):
        windows = edit.windows[first : first + WINDOWS_AT_ONCE]
        changes, loudest = window_changes(unison, edit, first, windows, options, loudest)
        for number, (window, change) in enumerate(zip(windows, changes, strict=True), first + 1):
            if window.opens:  # what no window covers is copied in pieces of bounded size
                yield from _copies(edit, position, window.begin)
                position, pending = window.begin, None
            # The samples around a join wait for the next window's share of the cross-fade; the two
            # shares add up to one. All others are final, so memory does not grow with the length.
            final = window.end if window.closes else window.end - half_join(edit.recording)
            reach = window.end if window.closes else window.end + half_join(edit.recording)
            change = change[position - window.start : reach - window.start]
            if pending is not None:
                change[: len(pending)] += pending
            yield _changed(edit, position, change[: final - position])
            pending, position = change[final - position :], final
            if on_window is not None:
                on_window(number, len(edit.windows))
    yield from _copies(edit, position, edit.recording.frames)


def edit_recording(
    unison: WindowModel,
    edit: RegionEdit,
    on_window: Callable[[int, int], None] | None = None,
    **options: Any,
) -> NativeAudio:
    """Edit a recording in memory.

    Args:
        unison: The model.
        edit: What `plan_edit` made.
        on_window: Called with the windows done and the windows in all.
        **options: Sampling options, as for `Unison.generate`.

    Returns:
        The recording, at the source's rate, channels and depth. Outside the regions its samples
        are the source's.

    Raises:
        InputError: If an input cannot be used.
    """
    samples = np.concatenate(list(edit_blocks(unison, edit, on_window, **options)))
    like = edit.recording
    return NativeAudio(
        sample_rate=like.sample_rate,
        channels=like.channels,
        frames=like.frames,
        coding=like.coding,
        name="The result",
        samples=samples,
        origin=_origin(unison, edit),
        warnings=tuple(edit.warnings),
    )


def edit_file(
    unison: WindowModel,
    edit: RegionEdit,
    output: Path,
    on_window: Callable[[int, int], None] | None = None,
    output_format: OutputFormat | None = None,
    **options: Any,
) -> None:
    """Edit a recording into a file, which appears whole or not at all.

    Args:
        unison: The model.
        edit: What `plan_edit` made.
        output: A wav or flac file; the lossy formats code the samples anew.
        on_window: Called with the windows done and the windows in all.
        output_format: Format and options; by default the suffix decides.
        **options: Sampling options, as for `Unison.generate`.

    Raises:
        InputError: If an input cannot be used, or the file cannot be written.
    """
    blocks = edit_blocks(unison, edit, on_window, **options)
    like = replace(edit.recording, origin=_origin(unison, edit))
    write_recording(output, blocks, like, output_format)


def _origin(unison: WindowModel, edit: RegionEdit) -> Origin:
    source = edit.recording.file or edit.recording  # in memory it has no file
    return Origin.of_edit(edit.task.name, unison.variant.name, source)


def check_output(
    edit: RegionEdit, output: Path, exact: bool, output_format: OutputFormat | None = None
) -> None:
    """Check the name of the file that an edit is to be written to.

    Args:
        edit: What `plan_edit` made.
        output: The file.
        exact: Whether samples outside of regions have to stay as they are.
        output_format: Format and options; by default the suffix decides.

    Raises:
        InputError: The format cannot hold the samples.
    """
    chosen = (output_format or OutputFormat()).of_file(output)
    if exact or not chosen.info.lossy:
        check_exact(output, edit.recording.coding, chosen)


def _copies(edit: RegionEdit, start: int, stop: int) -> Iterator[Samples]:
    """Samples that no window covers, in pieces: the recording's own, or zeros to extract."""
    size = 1 << 18
    for position in range(start, stop, size):
        own = edit.recording.read(position, min(stop, position + size))
        # 8-bit samples are read as signed numbers, so that 0 is silence in every coding.
        yield np.zeros_like(own) if edit.extract else own


def _changed(edit: RegionEdit, start: int, change: NDArray[np.float64]) -> Samples:
    """The recording's samples with a difference added, untouched where it is 0."""
    if edit.extract:
        return from_float(-change, edit.recording.coding)
    own = edit.recording.read(start, start + len(change))
    edited = from_float(to_float(own) + change, edit.recording.coding)
    return np.where(change == 0, own, edited)


def _quietest(recording: NativeAudio, start: int, stop: int) -> int:
    """The middle of the quietest frame between two positions; the earliest of equals."""
    frame = max(1, round(_QUIET_SECONDS * recording.sample_rate))
    mono = torch.from_numpy(to_float(recording.read(start, stop)).mean(axis=1))
    levels = audio.frame_levels(mono, frame)[: max(1, len(mono) // frame)]
    return start + int(levels.argmin()) * frame + frame // 2

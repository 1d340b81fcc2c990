"""From sampled latents to the sounds that a user gets: decoding, edits on the source, level."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor

from unison_audio import audio
from unison_audio.audio import Audio
from unison_audio.codecs.table import AudioCodec
from unison_audio.edit_check import compare, removal_notes
from unison_audio.frame_layout import PEAK
from unison_audio.inputs import Request
from unison_audio.levels import AUDIBLE_RMS, fit_addition, fit_whole
from unison_audio.preserve import limit_fall, preserve_source
from unison_audio.replacement_check import compare_replacement, replacement_notes, replaces
from unison_audio.tasks.table import TASKS, Group, Task

FADED_GROUPS: tuple[Group, ...] = ("sound", "mixed")
"""Groups whose results get faded ends: sounds that go on where the clip ends, and would click."""

END_FADE_SECONDS = 0.005
"""Length of that fade."""

FADE_IN_SECONDS = 0.02
"""Fade-in after the reference is cut off, which would otherwise start with a click."""

PROTECTED_FALL_DB = 9.0
"""Most decibels by which a removal lowers what is not speech, where there is speech. With nano's
former weights words were lost in 22 of 60 mixes without the bound and in 9 with it, where the sound
fell by 6 dB in 36 of them; with the present ones in 11 and 35."""


@torch.no_grad()
def decode(codec: AudioCodec, z: Tensor) -> Tensor:
    """(B, C, T') -> waveforms (B, samples) on the CPU."""
    return codec.decode(z).float().cpu()


def decode_rows(codec: AudioCodec, z: Tensor, frames: Sequence[int]) -> Iterator[Tensor]:
    """Decode a padded batch, each row at its own length.

    Args:
        codec: The variant's codec.
        z: (B, C, T').
        frames: Frames of each row that count, sorted.

    Yields:
        The waveform of each row, (samples,).
    """
    # Rows are sorted by length, so that rows of equal length are neighbors and are decoded
    # together, without the padding that would change their ends.
    first = 0
    for length, same in groupby(frames):
        last = first + len(list(same))
        yield from decode(codec, z[first:last, :, :length])
        first = last


def apply_edits(task: Task, source: Tensor, decoded_source: Tensor, result: Tensor) -> Tensor:
    """Apply a task's edits to the recordings themselves, so that the rest of them stays as it is.

    Args:
        task: The task of all rows.
        source: (B, samples), at the model's level.
        decoded_source: (B, samples), the sources after the codec.
        result: (B, samples), the edited sounds.

    Returns:
        (B, samples).
    """
    return preserve_source(
        source,
        decoded_source,
        result,
        adds=task.adds,
        removes=task.removes,
        clears_speech=task.clears_speech,
    )


def apply_request(request: Request, decoded_source: Tensor, result: Tensor) -> Tensor:
    """Apply one edit, (samples,), to its source."""
    source = request.layout.source
    if source is None:
        raise AssertionError("an edit has a source")
    length = min(len(source), len(result))
    waves = [wave[None, :length] for wave in (source, decoded_source, result)]
    if not request.protects_speech:
        return apply_edits(request.task, *waves)[0]
    denoised = apply_edits(TASKS["denoise"], *waves)
    return limit_fall(waves[0], denoised, PROTECTED_FALL_DB)[0]


def adds_to_quiet(request: Request) -> bool:
    """Whether something is added to a source so quiet that it will have to be raised.

    It is taken out of the codec's output first, or the codec's noise would be raised as well.
    """
    task, layout = request.task, request.layout
    if layout.source is None or task.removes or not task.adds:
        return False
    return float(audio.rms(layout.source[: layout.samples])) / layout.gain < AUDIBLE_RMS


def outcome_notes(request: Request, sound: Audio) -> list[str]:
    """What has to be said about a result: an edit that did something else than was asked.

    Args:
        request: What was asked for.
        sound: The finished result, at the level of the source.
    """
    layout, task = request.layout, request.task
    if layout.source is None or task.group != "remove" or task.clears_speech:
        return []
    if request.protects_speech:
        return [
            f"There is speech in the source, and these weights take speech for the sound in "
            f"{request.asked!r}: all that is not speech was lowered instead, by at most "
            f"{PROTECTED_FALL_DB:.0f} dB. Some of it may still be heard."
        ]
    source = layout.source[: layout.samples] / layout.gain
    outcome = compare(source, sound.waveform, sound.sample_rate)
    if request.holds_no_speech:  # calls of animals have the pitch and rhythm of speech
        outcome = replace(outcome, source_speech=0.0)
    return removal_notes(task, request.asked, outcome)


def finish(request: Request, waveform: Tensor, sample_rate: int) -> Audio:
    """Cut out the result and scale it back to the level of its source.

    Args:
        request: What was asked for.
        waveform: (samples,), decoded.
        sample_rate: Its samples per second.
    """
    layout, task = request.layout, request.task
    cut = waveform[layout.first : layout.first + layout.samples] / layout.gain
    if layout.reference_samples:
        cut = audio.fade(cut, round(FADE_IN_SECONDS * sample_rate), 0)
    elif task.group in FADED_GROUPS:
        edge = round(END_FADE_SECONDS * sample_rate)
        cut = audio.fade(cut, edge, edge)
    fitted, notes = cut, list[str]()
    if layout.source is not None and not layout.reference_samples:
        # The source as it came, padded to the length of the result.
        own = layout.source[: layout.samples] / layout.gain
        own = torch.nn.functional.pad(own, (0, len(cut) - len(own)))
        adds_only = task.adds and not task.removes
        fitted, notes = fit_addition(own, cut) if adds_only else fit_whole(cut)
        if replaces(task):  # compared before the whole is lowered, which would hide what is left
            outcome = compare_replacement(own, cut, sample_rate)
            notes = [*notes, *replacement_notes(task, request.asked, outcome)]
    peak = float(fitted.abs().max())
    return Audio(
        fitted * (PEAK / peak) if peak > 1.0 else fitted.clone(),
        sample_rate,
        instruction=request.asked,
        task=request.task.name,
        seed=request.seed,
        bit_depth=request.bit_depth,
        warnings=tuple(notes),
    )

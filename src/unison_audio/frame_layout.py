"""Lays the given audio and the result out in latent frames: edits, gaps, speech in a voice."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unison_audio import audio
from unison_audio.checks import check_length
from unison_audio.codecs.table import AudioCodec
from unison_audio.errors import InputError
from unison_audio.input_audio import Sound, read_sound
from unison_audio.longform.surroundings import Surroundings
from unison_audio.reference_check import require_voice
from unison_audio.release_inputs import sampled_frames, source_gain, to_length
from unison_audio.tasks.reference import frame_edge, prepare_reference
from unison_audio.tasks.table import Task
from unison_audio.variants import Variant

PEAK = 0.99
"""Highest peak of a source as the model reads it, and of a result that would clip."""

REFERENCE_SECONDS = 3.0
"""Longest reference; the rest of a longer one is not used (paper section 3.6)."""

REFERENCE_SILENCE_SECONDS = 0.1
"""Silence after the reference, before the new speech."""

MIN_ZERO_SHOT_SECONDS = 1.0
"""Shortest new speech that must fit beside a reference."""

MAX_GAP_GAIN = 10.0
"""Highest gain of what is around a gap. Without a limit, a loud sound that fills a gap in faint
noise would become as faint."""

MAX_REFERENCE_SECONDS = 600.0
"""Longest recording of a voice that is decoded, though only its beginning is used."""


@dataclass(frozen=True, kw_only=True)
class FrameLayout:
    """Position of the given audio and of the result in the latent frames."""

    frames: int
    """Latent frames T'."""
    first: int = 0
    """First sample of the decoded sound that is returned."""
    samples: int
    """Number of samples that are returned."""
    source: Tensor | None = None
    """(samples of all frames,) the recording to edit, or reference and zeros, at model level."""
    reference_samples: int = 0
    """Samples of the reference at the start, in whole frames; 0 without one."""
    gap: tuple[int, int] | None = None
    """Frames, from and to, that are sampled between frames of the source; None samples all."""
    gain: float = 1.0
    """Factor that was applied to the source; the result is divided by it."""


def layout_of_edit(
    variant: Variant, codec: AudioCodec, task: Task, source: Sound, duration: float | None
) -> tuple[FrameLayout, str]:
    """Bring the source to its training level and pad it; a warning if its end has no frame."""
    waveform = read_sound(source, "source", variant.sample_rate, variant.max_seconds)
    length = waveform.shape[0]
    samples = length if duration is None else round(duration * variant.sample_rate)
    if samples < length:
        raise InputError(
            f"The duration of {duration} s is shorter than the source, "
            f"{length / variant.sample_rate:.2f} s; leave --duration out, or cut the source."
        )
    gain = source_gain(variant, task, waveform, PEAK)
    if variant.sample_seconds:
        frames, shortened = sampled_frames(variant, codec, samples), ""
        if samples > frames * codec.hop:
            shortened = (
                f"The result is {frames * codec.hop / variant.sample_rate:.3f} s long: "
                f"{variant.name} makes {frames} whole latent frames, and the end of the source has "
                "none."
            )
        at_length = to_length(variant, waveform * gain)
        layout = FrameLayout(frames=frames, samples=samples, source=at_length, gain=gain)
        return layout, shortened
    # Whole frames: some codecs drop a partial frame at the end of the source.
    frames = codec.frames(-(-samples // codec.hop) * codec.hop / variant.sample_rate)
    total = max(frames * codec.hop, length)
    layout = FrameLayout(
        frames=frames,
        samples=samples,
        source=torch.nn.functional.pad(waveform * gain, (0, total - length)),
        gain=gain,
    )
    return layout, ""


def layout_of_gap(
    variant: Variant, codec: AudioCodec, task: Task, surroundings: Surroundings
) -> FrameLayout:
    """Bring what is around a gap to the level of the task's training, and find the gap's frames."""
    samples = len(surroundings.waveform)
    check_length(samples / variant.sample_rate, variant.max_seconds, "What is around the gap")
    known, gain = surroundings.known(), 1.0
    if len(known) and float(audio.rms(known)) >= audio.SILENCE_RMS:
        gain = min(source_gain(variant, task, known, PEAK), MAX_GAP_GAIN)
    frames = sampled_frames(variant, codec, samples)
    around = torch.nn.functional.pad(
        surroundings.mirrored() * gain, (0, max(0, frames * codec.hop - samples))
    )
    # Frames with a sample of the gap are in it. What lies behind the sound's end is sampled too:
    # silence there would be one more thing to fit.
    first, last = surroundings.start // codec.hop, -(-surroundings.stop // codec.hop)
    return FrameLayout(
        frames=frames,
        samples=samples,
        source=around,
        gap=(first, frames if surroundings.stop >= samples else last),
        gain=gain,
    )


def layout_of_zero_shot(
    variant: Variant, codec: AudioCodec, reference: Sound, duration: float | None
) -> tuple[FrameLayout, str, Tensor]:
    """Put empty frames for the new speech after the reference.

    Returns:
        The layout, a warning if the reference was shortened, and the part of it that is used.
    """
    rate = variant.sample_rate
    # Silence around the words takes room from the new speech; training references have none.
    recording = read_sound(reference, "reference", rate, MAX_REFERENCE_SECONDS)
    start, end = audio.sound_span(recording, rate)
    waveform = recording[start:end]
    require_voice(waveform, rate)
    head = prepare_reference(
        waveform, rate, max_seconds=REFERENCE_SECONDS, silence_seconds=REFERENCE_SILENCE_SECONDS
    )
    if not variant.source_rms:  # the release has no peak limit: its mel front end clamps
        head = head * min(1.0, PEAK / float(head.abs().max()))
    edge = frame_edge(head.shape[0], codec.hop)
    whole = math.floor(variant.max_seconds * rate)
    if variant.sample_seconds:  # reference and new speech share the one length
        whole = sampled_frames(variant, codec, whole) * codec.hop
    room = whole - edge
    seconds = min(variant.zero_shot_seconds, room / rate) if duration is None else duration
    samples = max(1, round(seconds * rate))
    if samples > room or room < MIN_ZERO_SHOT_SECONDS * rate:
        raise InputError(
            f"The reference takes {edge / rate:.2f} s of the {variant.max_seconds} s that "
            f"{variant.name} can make, which leaves {max(0, room) / rate:.2f} s for the new speech "
            f"of {seconds:.2f} s; ask for less, or give a shorter reference."
        )
    shortened = ""
    if waveform.shape[0] > REFERENCE_SECONDS * rate:
        cut = (start + head.shape[0]) / rate - REFERENCE_SILENCE_SECONDS
        shortened = (
            f"The reference is {waveform.shape[0] / rate:.2f} s long; only its beginning is used, "
            f"up to {cut:.2f} s of the recording."
        )
    if variant.sample_seconds:
        frames, at_length = whole // codec.hop, to_length(variant, head)
    else:
        frames = edge // codec.hop + codec.frames(samples / rate)
        at_length = torch.nn.functional.pad(head, (0, frames * codec.hop - head.shape[0]))
    layout = FrameLayout(
        frames=frames,
        first=edge,
        samples=samples,
        source=at_length,
        reference_samples=edge,
    )
    silence = round(REFERENCE_SILENCE_SECONDS * rate)
    return layout, shortened, waveform[: head.shape[0] - silence]

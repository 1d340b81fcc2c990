"""Turns a user's inputs into a `Request`: task, length, level and prepared audio."""

import math
import os
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from unison_audio import audio, audio_files
from unison_audio.audio import Audio
from unison_audio.checks import (
    check_duration,
    check_item,
    check_length,
    check_reference_text,
    check_text_length,
    default_seconds,
    outside_domain,
)
from unison_audio.codecs.table import AudioCodec
from unison_audio.domain import Outside
from unison_audio.errors import InputError
from unison_audio.longform.surroundings import Surroundings
from unison_audio.reference_check import reference_notes, require_voice
from unison_audio.release_inputs import sampled_frames, source_gain, to_length
from unison_audio.speech_activity import speech_probability
from unison_audio.tasks.clauses import respell, with_tags
from unison_audio.tasks.reference import frame_edge, prepare_reference
from unison_audio.tasks.reference_text import with_reference_text
from unison_audio.tasks.spoken_words import clean_words
from unison_audio.tasks.table import TASKS, Task
from unison_audio.transcription import AsrModel, ReferenceWords, find_asr, reference_words
from unison_audio.values import as_whole, check_seed, shown
from unison_audio.variants import Variant

MAX_PEAK = 1e6
"""Largest sample of a user's recording: 16-bit values in place of +-1 are still read."""

MAX_REFERENCE_SECONDS = 600.0
"""Longest recording of a voice that is decoded, though only its beginning is used."""

INTEGER_SCALES = {torch.int16: 32768.0, torch.int32: 2147483648.0}
"""Types of whole samples -> their full scale, as sound files and sound devices give them."""

Sound: TypeAlias = str | os.PathLike[str] | Audio | tuple[Tensor | np.ndarray, int]
"""A file's path, an `Audio`, or (waveform, sample_rate) with (samples,) or (channels, samples)."""

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

FADE_IN_SECONDS = 0.02
"""Fade-in after the reference is cut off, which would otherwise start with a click."""


class ShortenedWarning(UserWarning):
    """Only a part of a given recording is used."""


class TranscribedWarning(UserWarning):
    """The words of a reference come from an ASR model."""


class SourceFormWarning(UserWarning):
    """The result has another sample rate or fewer channels than its source."""


PROTECTED_SPEECH = 0.4
"""Probability of speech from which it is protected: 46 of 60 mixes with speech, and 2 of 60 without
(`benchmarks/named_edits.py`)."""

SPEECH_INSTRUCTION = "[Edit][Speech] Denoise the recording"
"""Instruction for the model in place of a removal that would delete the speech."""


class DomainWarning(UserWarning):
    """The instruction asks for something that the variant's training did not cover."""


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


@dataclass(frozen=True, kw_only=True)
class Request:
    """One item, checked and ready to run."""

    task: Task
    """Task of the instruction."""
    asked: str
    """The instruction as the user wrote it, tags respelled."""
    instruction: str
    """The instruction as the model reads it."""
    layout: FrameLayout
    """Position of the given audio and of the result."""
    seed: int
    """Seed of the noise."""
    shortened: str = ""
    """Warning about a reference of which only a part is used; empty without one."""
    transcribed: str = ""
    """Warning about words of a reference that an ASR model found; empty without one."""
    reduced: str = ""
    """Warning about a source whose sample rate or channels the result does not have."""
    about_reference: tuple[str, ...] = ()
    """Warnings about a reference from which the voice cannot be learned well."""
    bit_depth: int = 16
    """Bit depth of the source, which files of the result keep."""
    protects_speech: bool = False
    """Whether there is speech in the source of a sound's removal, which would delete it."""
    outside: Outside = field(default_factory=Outside)
    """Parts of the instruction outside the variant's domain."""
    notes: tuple[str, ...] = ()
    """What the task cannot follow to the letter."""
    voice: Tensor | None = None
    """(samples,) speech in whose voice to speak; None leaves the voice to the noise."""


@dataclass(frozen=True, kw_only=True)
class ItemInputs:
    """The inputs of one item besides its instruction."""

    source: Sound | None = None
    """The recording to edit."""
    reference: Sound | None = None
    """The recording of the voice to speak in."""
    reference_text: str | None = None
    """The words of the reference; None to transcribe them."""
    duration: float | None = None
    """Seconds of the result; None for the source's length, or the variant's default."""
    seed: int = 0
    """Seed of the noise."""
    task: str | None = None
    """The task, where the user names it."""
    asr: AsrModel = None
    """The ASR model for a reference that is cut or has no text; None for the default."""
    surroundings: Surroundings | None = None
    """The sound around a gap that the result fills, for a task that takes no recording."""
    voice: Sound | None = None
    """Speech in whose voice a task that takes no reference is to speak; None leaves the voice to
    the noise."""


def clean_item(instruction: str, inputs: ItemInputs) -> tuple[str, ItemInputs]:
    """Write the words to be spoken, and those of a reference, as they are spoken.

    Args:
        instruction: Instruction with the tags of the task table.
        inputs: Its other inputs. What is no text comes back, for `prepare` to refuse.

    Returns:
        Both, cleaned.

    Raises:
        InputError: There are numbers in Chinese, and the package for them is missing.
    """
    said, cloned = inputs.reference_text, inputs.reference is not None
    if not isinstance(instruction, str) or not isinstance(said, str | None):
        return instruction, inputs
    instruction, said = clean_words(instruction, said, cloned)
    return instruction, replace(inputs, reference_text=said)


def prepare(variant: Variant, codec: AudioCodec, instruction: str, inputs: ItemInputs) -> Request:
    """Check and prepare the inputs of one item (paper section 3.3; zero-shot: section 3.6).

    Args:
        variant: The variant that will run it.
        codec: The variant's codec.
        instruction: Instruction with the tags of the task table.
        inputs: Its other inputs.

    Returns:
        The request.

    Raises:
        InputError: If an input does not fit.
    """
    source, reference, voice = inputs.source, inputs.reference, inputs.voice
    reading = check_item(
        variant,
        instruction,
        has_source=source is not None,
        has_reference=reference is not None,
        reference_text=inputs.reference_text,
        duration=inputs.duration,
        seed=inputs.seed,
        named_task=inputs.task,
    )
    task = TASKS[reading.task]
    asked, read = instruction, reading.instruction
    duration = None if inputs.duration is None else check_duration(inputs.duration, variant)
    if inputs.task is not None:
        asked = read = with_tags(instruction, task.name)
    instruction = respell(asked.strip(), variant.edit_tag_spelling)
    read = respell(read.strip(), variant.edit_tag_spelling)
    shortened = transcribed = ""
    told: list[str] = []
    if reference is not None:
        check_reference_text(instruction, task.name, inputs.reference_text, inputs.asr)
        layout, shortened, cloned = _zero_shot(variant, codec, reference, duration)
        words = _words_of(layout, variant.sample_rate, instruction, inputs, cut=bool(shortened))
        read, transcribed = with_reference_text(instruction, words.text), words.note
        told = reference_notes(cloned, variant.sample_rate, words.text)
        if shortened and not transcribed:
            shortened += " The reference text must be what is said up to there."
    elif source is not None:
        layout, shortened = _edit(variant, codec, task, source, duration)
    elif inputs.surroundings is not None:
        layout = _gap(variant, codec, task, inputs.surroundings)
    else:
        seconds = default_seconds(variant, reading) if duration is None else duration
        samples = max(1, round(seconds * variant.sample_rate))
        layout = FrameLayout(frames=sampled_frames(variant, codec, samples), samples=samples)
    protects = _protects_speech(variant, task, layout)
    if protects:
        read = respell(SPEECH_INSTRUCTION, variant.edit_tag_spelling)
    reduced, bit_depth = _source_form(variant, source)
    check_text_length(variant, instruction, layout.samples / variant.sample_rate)
    return Request(
        task=task,
        asked=instruction,
        instruction=read,
        layout=layout,
        seed=check_seed(inputs.seed),
        shortened=shortened,
        transcribed=transcribed,
        reduced=reduced,
        about_reference=tuple(told),
        bit_depth=bit_depth,
        protects_speech=protects,
        outside=outside_domain(variant, instruction),
        notes=reading.notes,
        voice=None if voice is None else read_sound(voice, "voice", variant.sample_rate),
    )


def read_sound(given: Sound, what: str, sample_rate: int, longest: float | None = None) -> Tensor:
    """Read a user's recording as mono at a sample rate.

    Args:
        given: The recording.
        what: Name of the recording in messages, such as "source".
        sample_rate: Samples per second of the result.
        longest: Maximum length in seconds; None for no limit.

    Returns:
        Waveform, (samples,).

    Raises:
        InputError: If it is missing, unreadable, empty, silent, not finite, or too long.
    """
    if isinstance(given, Audio):
        given = (given.waveform, given.sample_rate)
    if isinstance(given, str | os.PathLike):
        name = f"The {what} {os.fspath(given)}"
        if longest is not None:  # from the header, so that hours of sound are not decoded first
            check_length(audio_files.seconds(given), longest, name)
        # A header may claim less than the file holds; one second more tells that there is more.
        bound = None if longest is None else longest + 1.0
        waveform = audio.load(given, sample_rate=sample_rate, longest=bound)
    else:
        name = f"The {what}"
        waveform = _from_memory(given, name, sample_rate)
    if longest is not None:
        check_length(waveform.shape[0] / sample_rate, longest, name)
    audio.require_sound(waveform, name)
    peak = float(waveform.abs().max())
    if peak > MAX_PEAK:  # powers of such samples overflow float32, and the result would be NaN
        raise InputError(
            f"{name} has samples of {peak:.3g}, where full scale is 1; scale the waveform to +-1."
        )
    return waveform


def _source_form(variant: Variant, source: Sound | None) -> tuple[str, int]:
    """A warning about what the result does not have of a source's file, and its bit depth."""
    if isinstance(source, Audio):
        return "", source.bit_depth
    if not isinstance(source, str | os.PathLike):
        return "", 16
    form = audio_files.form_of(source)
    if form.channels == 1 and form.sample_rate == variant.sample_rate:
        return "", form.bit_depth
    channels = "one channel" if form.channels == 1 else f"{form.channels} channels"
    seconds = math.floor(100 * audio_files.seconds(source)) / 100
    reduced = (
        f"The source {os.fspath(source)} has {channels} at {form.sample_rate} Hz; the result has "
        f"one channel at {variant.sample_rate} Hz. To keep them, name the region 0-{seconds:g}."
    )
    return reduced, form.bit_depth


def _protects_speech(variant: Variant, task: Task, layout: FrameLayout) -> bool:
    """Whether a removal would take the speech in its source.

    Only where edits are applied to the recording itself, which the protection is a part of.
    """
    removes_sound = task.group == "remove" and not task.clears_speech
    if not removes_sound or not variant.keep_source or layout.source is None:
        return False
    own = layout.source[: layout.samples]
    return speech_probability(own, variant.sample_rate) >= PROTECTED_SPEECH


def _edit(
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


def _gap(
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


def _zero_shot(
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


def _words_of(
    layout: FrameLayout, sample_rate: int, instruction: str, inputs: ItemInputs, *, cut: bool
) -> ReferenceWords:
    """The words of a reference: the user's, or those that an ASR model hears in what is used."""
    text = (inputs.reference_text or "").strip()
    if text and not cut:
        return ReferenceWords(text=text)
    asr = find_asr(inputs.asr, (instruction, text))
    if asr is None:
        return ReferenceWords(text=text)
    assert layout.source is not None
    return reference_words(layout.source[: layout.reference_samples], sample_rate, text, asr)


def _from_memory(given: object, name: str, sample_rate: int) -> Tensor:
    """Convert (waveform, sample_rate) to mono at a sample rate."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise InputError(
            f"{name} is a {type(given).__name__}; give a path, an Audio, or "
            "(waveform, sample_rate)."
        )
    values, rate = given[0], as_whole(given[1])
    if rate is None or not 0 < rate <= audio_files.MAX_RATE:
        raise InputError(
            f"{name} has the sample rate {shown(given[1])}; give samples per second, above 0 and "
            f"at most {audio_files.MAX_RATE:,}."
        )
    if not isinstance(values, Tensor | np.ndarray):
        raise InputError(f"{name}'s waveform is a {type(values).__name__}; give a tensor or array.")
    try:
        waveform = torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError) as error:  # objects, unsigned 32 bits, byte orders
        raise InputError(
            f"{name}'s waveform is of {values.dtype}; give floats within -1..1, or int16."
        ) from error
    if waveform.dtype in INTEGER_SCALES:
        waveform = waveform.double() / INTEGER_SCALES[waveform.dtype]
    if not waveform.is_floating_point():
        raise InputError(
            f"{name}'s waveform is {waveform.dtype}; give floats within -1..1, or int16."
        )
    if waveform.ndim == 2 and waveform.shape[0] <= waveform.shape[1]:
        waveform = audio.to_mono(waveform, 0, name)
    if waveform.ndim != 1 or waveform.numel() == 0:
        raise InputError(
            f"{name}'s waveform has the shape {tuple(waveform.shape)}; give (samples,) or "
            "(channels, samples), with at least one sample."
        )
    audio_files.require_finite(waveform.float().cpu().numpy(), rate, name)
    resampled = audio.resample(waveform.float(), rate, sample_rate)
    if resampled.numel() == 0:
        raise InputError(f"{name} is too short: less than one sample at {sample_rate} Hz.")
    return resampled

"""Turns a user's inputs into a `Request`: task, length, level and prepared audio."""

from dataclasses import dataclass, field, replace

from torch import Tensor

from unison_audio.checks import (
    check_duration,
    check_item,
    check_reference_text,
    check_text_length,
    default_seconds,
    outside_domain,
)
from unison_audio.codecs.table import AudioCodec
from unison_audio.domain import Outside
from unison_audio.frame_layout import (
    FrameLayout,
    layout_of_edit,
    layout_of_gap,
    layout_of_zero_shot,
)
from unison_audio.input_audio import Sound, read_sound, source_form
from unison_audio.longform.surroundings import Surroundings
from unison_audio.reference_check import reference_notes
from unison_audio.release_inputs import sampled_frames
from unison_audio.tasks.clauses import respell, with_tags
from unison_audio.tasks.reference_text import with_reference_text
from unison_audio.tasks.spoken_words import clean_words
from unison_audio.tasks.table import TASKS, Task
from unison_audio.transcription import AsrModel, ReferenceWords, find_asr, reference_words
from unison_audio.values import check_seed
from unison_audio.variants import Variant


class ShortenedWarning(UserWarning):
    """Only a part of a given recording is used."""


class TranscribedWarning(UserWarning):
    """The words of a reference come from an ASR model."""


class SourceFormWarning(UserWarning):
    """The result has another sample rate or fewer channels than its source."""


class DomainWarning(UserWarning):
    """The instruction asks for something that the variant's training did not cover."""


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
    holds_no_speech: bool = False
    """Whether the model itself found none there."""
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
    # 1. Check all that needs no recording: bad input is refused before anything is decoded.
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
    # 2. Find the two wordings: what messages and files quote, and what the model was trained on.
    if inputs.task is not None:
        asked = read = with_tags(instruction, task.name)
    instruction = respell(asked.strip(), variant.edit_tag_spelling)
    read = respell(read.strip(), variant.edit_tag_spelling)
    # 3. Lay out the frames: after a voice, over a source, around a gap, or from nothing.
    shortened = transcribed = ""
    told: list[str] = []
    if reference is not None:
        check_reference_text(instruction, task.name, inputs.reference_text, inputs.asr)
        layout, shortened, cloned = layout_of_zero_shot(variant, codec, reference, duration)
        words = _words_of(layout, variant.sample_rate, instruction, inputs, cut=bool(shortened))
        read, transcribed = with_reference_text(instruction, words.text), words.note
        told = reference_notes(cloned, variant.sample_rate, words.text)
        if shortened and not transcribed:
            shortened += " The reference text must be what is said up to there."
    elif source is not None:
        layout, shortened = layout_of_edit(variant, codec, task, source, duration)
    elif inputs.surroundings is not None:
        layout = layout_of_gap(variant, codec, task, inputs.surroundings)
    else:
        seconds = default_seconds(variant, reading) if duration is None else duration
        samples = max(1, round(seconds * variant.sample_rate))
        layout = FrameLayout(frames=sampled_frames(variant, codec, samples), samples=samples)
    # 4. Check the text against the length, which a source or a reference has only now decided.
    reduced, bit_depth = source_form(source, variant.sample_rate)
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
        outside=outside_domain(variant, instruction),
        notes=reading.notes,
        voice=None if voice is None else read_sound(voice, "voice", variant.sample_rate),
    )


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

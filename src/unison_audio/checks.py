"""Checks that need no model: every input that they refuse is refused without importing torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from unison_audio import audio_files
from unison_audio.domain import Outside
from unison_audio.errors import InputError
from unison_audio.tasks.clauses import with_tags
from unison_audio.tasks.instructions import Reading, read_instruction
from unison_audio.tasks.spoken_words import clean_words
from unison_audio.tasks.table import TASKS
from unison_audio.transcription import INSTALL, AsrModel, has_asr
from unison_audio.values import as_real, check_seed, require_text, shown
from unison_audio.variants import LENGTH_MARGIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from unison_audio.variants import Variant

MOST_WORDS = 12
"""Unknown words that a message names; a book may have thousands."""


@dataclass(frozen=True, kw_only=True)
class FileInputs:
    """The inputs of one item besides its instruction, with recordings as files."""

    source: Path | None = None
    """The recording to edit."""
    reference: Path | None = None
    """The recording of the voice to speak in."""
    reference_text: str | None = None
    """The words of the reference."""
    duration: float | None = None
    """Length of the result in seconds; by default that of the source, or the variant's default."""
    seed: int = 0
    """Seed of the noise; the same seed gives the same sound."""
    task: str | None = None
    """The task, for an instruction in free wording or without tags; by default its tags and verbs
    determine it."""
    asr: str | None = None
    """ASR model that finds the words of a reference that has no text or is cut: the folder or the
    name of a Whisper, or none; by default that of $UNISON_AUDIO_ASR, else the extra's."""


def check_files(
    variant: Variant, instruction: str, inputs: FileInputs, *, strict: bool = False
) -> None:
    """Check one item as far as possible without decoding its recordings.

    Args:
        variant: The variant that will run it.
        instruction: Instruction with the tags of the task table.
        inputs: The other inputs.
        strict: Whether an instruction outside the variant's domain is refused.

    Raises:
        InputError: If an input does not fit.
    """
    reading = check_item(
        variant,
        instruction,
        has_source=inputs.source is not None,
        has_reference=inputs.reference is not None,
        reference_text=inputs.reference_text,
        duration=inputs.duration,
        seed=inputs.seed,
        named_task=inputs.task,
    )
    if inputs.reference is not None:
        check_reference_text(instruction, reading.task, inputs.reference_text, inputs.asr)
    if inputs.task is not None:
        instruction = with_tags(instruction, reading.task)
    seconds = default_seconds(variant, reading)
    if inputs.source is not None:
        seconds = audio_files.seconds(inputs.source)
        check_length(seconds, variant.max_seconds, f"The source {inputs.source}")
    if inputs.reference is not None:
        audio_files.seconds(inputs.reference)
        seconds = variant.zero_shot_seconds  # less beside a long reference: checked when it is read
    check_text_length(variant, instruction, seconds if inputs.duration is None else inputs.duration)
    if strict:
        require_domain(variant, instruction, reading.notes)


def clean_request(instruction: str, inputs: FileInputs) -> tuple[str, FileInputs]:
    """Write the words to be spoken, and those of a reference, as they are spoken.

    Raises:
        InputError: There are numbers in Chinese, and the package for them is missing.
    """
    cloned = inputs.reference is not None
    instruction, said = clean_words(instruction, inputs.reference_text, cloned)
    return instruction, replace(inputs, reference_text=said)


def check_item(
    variant: Variant,
    instruction: str,
    *,
    has_source: bool,
    has_reference: bool,
    reference_text: str | None,
    duration: float | None,
    seed: int,
    named_task: str | None = None,
) -> Reading:
    """Check the request of one item without its recordings.

    Args:
        variant: The variant that will run it.
        instruction: Instruction with the tags of the task table.
        has_source: Whether a recording to edit is given.
        has_reference: Whether a recording of a voice is given.
        reference_text: The words of the reference.
        duration: Length of the result in seconds.
        seed: Seed of the noise.
        named_task: The task, where the user names it.

    Returns:
        What the instruction asks for.

    Raises:
        InputError: If an input does not fit.
    """
    require_text(instruction, "The instruction")
    if named_task is not None and not isinstance(named_task, str):
        raise InputError(f"The task is {named_task!r}; it must be one of {', '.join(TASKS)}.")
    labels = () if variant.domain is None else variant.domain.sounds
    reading = read_instruction(instruction, has_source, has_reference, named_task, labels=labels)
    check_seed(seed)
    seconds = None if duration is None else check_duration(duration, variant)
    if reference_text is not None and not has_reference:
        raise InputError(
            f"A reference text {reference_text!r} is given without a reference; give the recording "
            "it belongs to with --reference, or leave it out."
        )
    if reference_text is not None:
        require_text(reference_text, "The reference text")
    if not has_source and not has_reference:
        # A named task takes its words as they are, so a set length decides.
        check_times(variant, reading, seconds if named_task is None else None)
    return reading


def check_reference_text(
    instruction: str, task: str, reference_text: str | None, asr: AsrModel = None
) -> None:
    """Check that the words of a reference are given, or that an ASR model can find them.

    Args:
        instruction: The instruction.
        task: Name of its task.
        reference_text: The words of the reference.
        asr: The user's choice of a model.

    Raises:
        InputError: If there are neither.
    """
    if reference_text is not None:
        require_text(reference_text, "The reference text")
    if not (reference_text or "").strip() and not has_asr(asr, (instruction,)):
        raise InputError(
            f"The instruction {instruction!r} ({task}) needs the words of the reference; give them "
            f"with --reference-text, or install an ASR model that finds them: {INSTALL}."
        )


def default_seconds(variant: Variant, reading: Reading) -> float:
    """The length of a sound for which none is set.

    It is the length that the instruction states, or else the variant's default, or longer so that
    the last event or the words of speech have room.
    """
    low, high = reading.length or (0.0, math.inf)
    usual = max(variant.default_seconds, _speech_seconds(variant, reading))
    return max(min(max(usual, low), high), reading.end)


def _speech_seconds(variant: Variant, reading: Reading) -> float:
    """The length that the words of speech alone need; 0 where the variant does not say."""
    if reading.task != "tts" or variant.speaking_rate is None:
        return 0.0
    spoken = sum(map(variant.speaking_rate.seconds, reading.texts))
    return min(variant.longest_speech, round(LENGTH_MARGIN * spoken, 2))


def check_times(variant: Variant, reading: Reading, duration: float | None) -> None:
    """Compare the times of an instruction with the length of the sound.

    Args:
        variant: The variant that will run it.
        reading: What the instruction asks for.
        duration: Length of the result in seconds; None for one that follows from the instruction.

    Raises:
        InputError: An event ends after the sound, or the stated length does not fit it.
    """
    stated = reading.length[0] if reading.length else 0.0
    last = max(reading.end, stated)
    what = f"an event ends at {last:g} s" if reading.events else f"a length of {last:g} s is stated"
    if duration is not None and last > duration + 1e-6:
        raise InputError(
            f"In the instruction {what}, after the duration of {duration:g} s; set a longer "
            "--duration, or mend the time."
        )
    if duration is None and last > variant.max_seconds + 1e-6:
        raise InputError(
            f"In the instruction {what}, and {variant.name} makes at most {variant.max_seconds} s "
            "at once; mend the time."
        )


def check_duration(duration: object, variant: Variant) -> float:
    """Check the length of a result, and return it as Python's number.

    Raises:
        InputError: If it is no number, shorter than a sample, or too long for the variant.
    """
    number = as_real(duration)
    if number is None or not 1 / variant.sample_rate <= number <= variant.max_seconds:
        raise InputError(
            f"The duration is {shown(duration)}; {variant.name} makes sounds of one sample "
            f"(1/{variant.sample_rate} s) to {variant.max_seconds} s."
        )
    return number


def check_text_length(variant: Variant, instruction: str, seconds: float) -> None:
    """Check that speech can say the texts of an instruction in time.

    Args:
        variant: The variant; without a domain its speaking rate is unknown and nothing is checked.
        instruction: Instruction with the tags of the task table.
        seconds: Length of the result, or of the new speech after a reference.

    Raises:
        InputError: If a text is too long; the message names a duration that suffices.
    """
    if variant.domain is not None:
        variant.domain.check_length(instruction, seconds, variant.max_seconds)


def outside_domain(variant: Variant, instruction: str) -> Outside:
    """Find the parts of an instruction outside a variant's domain; none without a domain."""
    return Outside() if variant.domain is None else variant.domain.outside(instruction)


def require_domain(variant: Variant, instruction: str, notes: Sequence[str] = ()) -> None:
    """Refuse an instruction outside a variant's domain, or with a part that no task follows.

    Args:
        variant: The variant.
        instruction: Instruction with the tags of the task table.
        notes: What the task cannot follow to the letter.

    Raises:
        InputError: If it is outside.
    """
    if notes:
        raise InputError(
            f"In the instruction {instruction!r}, {notes[0]}. Change it, or leave out --strict."
        )
    refuse_outside(variant, outside_domain(variant, instruction))


def refuse_outside(variant: Variant, outside: Outside) -> None:
    """Refuse what lies outside a variant's domain.

    Raises:
        InputError: If something does.
    """
    if outside:
        raise InputError(
            f"{domain_message(variant, outside)}; 'unison-audio variants {variant.name}' lists its "
            "words and sounds. Change the instruction, or leave out --strict."
        )


def domain_message(
    variant: Variant, outside: Outside, nearest: Mapping[str, Sequence[str]] | None = None
) -> str:
    """Describe the parts of an instruction that lie outside a domain.

    Args:
        variant: The variant with the domain.
        outside: The parts.
        nearest: Unknown sound -> the nearest known sounds, if they were looked up.
    """
    parts = []
    if outside.words:
        named, others = outside.words[:MOST_WORDS], len(outside.words) - MOST_WORDS
        more = f" and {others} other{'s' * (others > 1)}" if others > 0 else ""
        parts.append(f"the word{'s' * (len(outside.words) > 1)} {', '.join(named)}{more}")
    for sound in outside.sounds:
        near = (nearest or {}).get(sound)
        parts.append(f"the sound {sound!r}" + (f" (nearest: {', '.join(near)})" if near else ""))
    if outside.text_words and variant.domain is not None:
        most = variant.domain.max_words
        parts.append(f"a text of {outside.text_words} words (at most {most})")
    return f"{variant.name} was not trained on {' and '.join(parts)}"


def domain_warning(
    variant: Variant, outside: Outside, nearest: Mapping[str, Sequence[str]] | None = None
) -> str:
    """The warning about parts outside a domain; arguments are those of `domain_message`."""
    return (
        f"{domain_message(variant, outside, nearest)}; expect a poor result "
        f"('unison-audio variants {variant.name}' lists what it knows)."
    )


def check_length(seconds: float, longest: float, name: str) -> None:
    """Check the length of a recording.

    Args:
        seconds: Its length.
        longest: The maximum length.
        name: Name of the recording in the message.

    Raises:
        InputError: If the recording is longer.
    """
    if seconds > longest + 1e-6:
        raise InputError(
            f"{name} is {seconds:.2f} s long where at most {longest} s are taken; cut it to that."
        )

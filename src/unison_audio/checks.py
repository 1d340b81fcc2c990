"""What can be refused before a model is loaded; torch is not needed for it."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from unison_audio import audio_files
from unison_audio.checkpoint_files import CONFIG_FILE, find_checkpoint, read_config
from unison_audio.errors import InputError
from unison_audio.sampling_params import SamplingOptions, sampling_for
from unison_audio.tasks.instructions import parse_instruction
from unison_audio.tasks.table import TASKS, Task

if TYPE_CHECKING:
    from pathlib import Path

    from unison_audio.variants import Variant


def check_variant(name_or_path: str | os.PathLike[str], options: SamplingOptions) -> Variant:
    """Find a checkpoint's variant, and check the options that it would sample with.

    Args:
        name_or_path: A variant's name, a folder, or `owner/name` on the Hugging Face hub.
        options: As for `Unison.generate`.

    Raises:
        InputError: If there is no such checkpoint, or an option is unknown or out of its range.
    """
    variant = read_config(find_checkpoint(name_or_path) / CONFIG_FILE)
    sampling_for(variant, **options)
    return variant


def check_files(
    variant: Variant,
    instruction: str,
    *,
    source: Path | None = None,
    reference: Path | None = None,
    reference_text: str | None = None,
    duration: float | None = None,
    seed: int = 0,
) -> None:
    """Check one item whose recordings are files, as far as it goes without decoding them.

    Args:
        variant: What will run it.
        instruction: With the tags of the task table.
        source: The recording to edit.
        reference: The recording whose voice is to speak.
        reference_text: The words of the reference.
        duration: Seconds of the result.
        seed: Of the noise.

    Raises:
        InputError: If something does not fit; the message says what does.
    """
    check_item(
        variant,
        instruction,
        has_source=source is not None,
        has_reference=reference is not None,
        reference_text=reference_text,
        duration=duration,
        seed=seed,
    )
    if source is not None:
        check_length(audio_files.seconds(source), variant.max_seconds, f"The source {source}")
    if reference is not None:
        audio_files.seconds(reference)


def check_item(
    variant: Variant,
    instruction: str,
    *,
    has_source: bool,
    has_reference: bool,
    reference_text: str | None,
    duration: float | None,
    seed: int,
) -> Task:
    """Check what one item asks for, its recordings aside.

    Args:
        variant: What will run it.
        instruction: With the tags of the task table.
        has_source: Whether a recording to edit is given.
        has_reference: Whether a recording of a voice is given.
        reference_text: The words of the reference.
        duration: Seconds of the result.
        seed: Of the noise.

    Returns:
        The task that it asks for.

    Raises:
        InputError: If something does not fit; the message says what does.
    """
    if not isinstance(instruction, str):
        raise InputError(f"The instruction is {instruction!r}; it must be a text.")
    task = TASKS[parse_instruction(instruction, has_source, has_reference)]
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 1 << 63:
        raise InputError(f"The seed is {seed!r}; give a whole number from 0 to 2^63 - 1.")
    if duration is not None and not (_is_number(duration) and 0 < duration <= variant.max_seconds):
        raise InputError(
            f"The duration is {duration!r}; {variant.name} makes sounds of more than 0 and at most "
            f"{variant.max_seconds} s."
        )
    if reference_text is not None and not has_reference:
        raise InputError(
            f"A reference text {reference_text!r} is given without a reference; give the recording "
            "it belongs to, or leave it out."
        )
    if has_reference and (not isinstance(reference_text, str) or not reference_text.strip()):
        raise InputError(
            f"The instruction {instruction!r} ({task.name}) needs the words of the reference; give "
            "them as the reference text."
        )
    return task


def check_length(seconds: float, longest: float, name: str) -> None:
    """Check the length of a recording.

    Args:
        seconds: Its length.
        longest: The longest length that is taken.
        name: How the message calls it.

    Raises:
        InputError: If it is longer.
    """
    if seconds > longest + 1e-6:
        raise InputError(
            f"{name} is {seconds:.2f} s long where at most {longest} s are taken; cut it to that."
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

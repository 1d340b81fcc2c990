"""The lines of a list of own clips, checked before torch is imported."""

from pathlib import Path
from typing import Any

from unison_audio import audio_files
from unison_audio.errors import InputError
from unison_audio.files import read_rows
from unison_audio.tasks.instructions import parse_instruction
from unison_audio.variants import Variant

KEYS = ("audio", "caption", "label", "text", "gender", "speaker", "instruction", "source")

GENDERS = ("male", "female")


def check_list(path: Path, variant: Variant) -> None:
    """Checks a list of own clips and the headers of its recordings.

    Args:
        path: A JSONL file; paths in it are relative to its folder.
        variant: The variant to fine-tune.

    Raises:
        InputError: If a line cannot be used; the message begins with the line's number.
    """
    read_rows(path, KEYS, "clips", lambda _, row: check_row(row, path.parent, variant))


def check_row(row: dict[str, Any], folder: Path, variant: Variant) -> None:
    """Checks a line of a list.

    Args:
        row: The line's object.
        folder: Folder of its paths.
        variant: The variant to fine-tune.

    Raises:
        InputError: If its keys are incomplete or contradict each other, or a recording is missing
            or too long.
    """
    for key, value in row.items():
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{key} is {value!r}; it must be a text that is not empty.")
    if "audio" not in row:
        raise InputError("There is no audio; add the path of a recording.")
    kinds = [key for key in ("caption", "text", "instruction") if key in row]
    if len(kinds) != 1 and not (not kinds and "label" in row):
        raise InputError("Give a caption (or label), a text, or an instruction: one of them.")
    if "text" in row and row.get("gender", "") not in (*GENDERS, ""):
        raise InputError(f"The gender is {row['gender']!r}; give male or female, or leave it out.")
    if "instruction" in row:
        parse_instruction(row["instruction"], "source" in row, False)
    # Only an instruction edits its source; with other keys the source is not read.
    for key in ("audio", "source") if "instruction" in row else ("audio",):
        if key in row:
            _check_length(folder / row[key], variant)


def _check_length(path: Path, variant: Variant) -> None:
    seconds = audio_files.seconds(path)
    longest = variant.sample_seconds or variant.max_seconds
    if seconds > longest + 1e-6:
        raise InputError(
            f"{path} is {seconds:.2f} s long where {variant.name} takes at most "
            f"{longest} s; cut it."
        )

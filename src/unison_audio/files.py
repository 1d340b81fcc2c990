"""Reading and writing of files: folders, names of outputs, atomic writes, JSONL."""

import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from unison_audio.errors import InputError
from unison_audio.output_format import OutputFormat
from unison_audio.provenance.marks import check_marks


def make_folder(folder: Path) -> Path:
    """Make a folder and its parents where they are missing.

    Raises:
        InputError: If it cannot be made or is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The folder {folder} cannot be made ({error.strerror}); give another one."
        ) from error
    return folder


def check_sound_file(path: Path, output: OutputFormat | None = None) -> Path:
    """Check the name and the options of a sound file to be written, and make its folder.

    Raises:
        InputError: If the suffix is of no known format, the format lacks an option or cannot hold a
            mark, or the name is a folder's.
    """
    check_marks((output or OutputFormat()).of_file(path))
    if path.is_dir():
        raise InputError(f"Cannot write {path}: it is a folder; give the name of a file.")
    make_folder(path.parent)
    return path


def require_other_file(output: Path, recordings: Iterable[Path | None]) -> None:
    """Refuse an output that would replace one of the recordings it is made from.

    Raises:
        InputError: If the output is one of the recordings, by name or through a link.
    """
    place = output.resolve()
    for recording in recordings:
        if recording is not None and recording.resolve() == place:
            raise InputError(
                f"The output {output} is also a recording to read, which would be lost; give the "
                "output another name."
            )


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file atomically: beside its place first, then moved there.

    Raises:
        InputError: If it cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); give another place."
        ) from error
    finally:
        part.unlink(missing_ok=True)


T = TypeVar("T")


def read_rows(
    path: Path,
    keys: Sequence[str],
    what: str,
    read: Callable[[int, dict[str, Any]], T],
    *,
    hidden: Sequence[str] = (),
) -> list[T]:
    """Read a JSONL file; empty lines and keys whose value is null are skipped.

    Args:
        path: The file.
        keys: The keys that an object may have.
        what: Name of the lines in messages, such as "jobs".
        read: Called with a line's number, from 1, and its object; an `InputError` of it is raised
            again with the file and the line in front.
        hidden: Keys that are accepted too, and that messages do not list.

    Returns:
        The results of `read`, one for each line.

    Raises:
        InputError: If the file cannot be read, holds nothing, or a line cannot be used.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}; check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({error}); give a JSONL file.") from error
    rows: list[T] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows.append(read(number, _object(line, keys, hidden)))
            except InputError as error:
                raise InputError(f"{path}, line {number}: {error}") from error
    if not rows:
        raise InputError(f"{path} holds no {what}; write one JSON object a line.")
    return rows


def _object(line: str, keys: Sequence[str], hidden: Sequence[str]) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise InputError(f"This is not JSON ({error}); write one object a line.") from error
    if not isinstance(values, dict):
        raise InputError(f"This is {type(values).__name__}, not an object; write {{...}}.")
    unknown = [key for key in values if key not in (*keys, *hidden)]
    if unknown:
        raise InputError(f"Unknown: {', '.join(unknown)}; the keys are {', '.join(keys)}.")
    return {key: value for key, value in values.items() if value is not None}

"""Reading and writing of files: folders, names of outputs, atomic writes, JSONL."""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from unison_audio.errors import InputError
from unison_audio.json_files import parse_json, read_bounded
from unison_audio.output_format import OutputFormat
from unison_audio.provenance.marks import check_marks
from unison_audio.values import MOST_NAME_BYTES, require_path

UNFINISHED_SECONDS = 3600.0
"""Age of a half-written file from which no process writes it any more."""

_PART = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part")

MOST_TEXT_BYTES = 1 << 30
"""Largest list of jobs or clips."""


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


def check_folder(folder: Path) -> None:
    """Check that a folder is there or can be made, and that it takes files; nothing is made.

    Raises:
        InputError: If a file or a link to nothing is in the way, or the folder above takes no new
            files.
    """
    try:
        there = nearest_there(folder)
        reason = "" if there.is_dir() else f"{there} is a file"
        # A folder cannot be made in the place of a link, whose target is where `there` looked.
        for one in (folder, *folder.parents):
            if one.is_symlink() and not one.exists():
                reason = f"{one} is a link to {one.readlink()}, which is not there"
        if not reason and not os.access(there, os.W_OK | os.X_OK):
            reason = f"{there} takes no new files"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise InputError(
            f"The folder {folder} cannot be made or used ({reason}); give another one."
        )


def nearest_there(path: Path) -> Path:
    """A path, or the nearest of the folders above it that exists.

    Raises:
        OSError: One of them cannot be looked into.
    """
    place = resolved(path)
    return next(one for one in (place, *place.parents) if one.exists())


@contextlib.contextmanager
def folder_of(path: Path) -> Iterator[None]:
    """Make a file's folder for what is written inside the block.

    Args:
        path: The file. An error takes the folders away again that were made and are empty.

    Raises:
        InputError: If the folder cannot be made or is a file.
    """
    # With links and .. followed, or a folder that is only passed through would be made.
    folder = resolved(path).parent
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    make_folder(folder)
    try:
        yield
    except BaseException:  # Ctrl-C too
        with contextlib.suppress(OSError):
            for one in made:
                one.rmdir()
        raise


def require_folders(*folders: Path | None) -> None:
    """Checks that folders exist; None stands for a default and passes.

    Raises:
        InputError: If one does not.
    """
    for folder in folders:
        if folder is not None and not folder.is_dir():
            raise InputError(f"There is no folder {folder}; check the path.")


def check_sound_file(path: Path, output: OutputFormat | None = None) -> Path:
    """Check the name, the folder and the options of a sound file to be written; nothing is made.

    Raises:
        InputError: If the suffix is of no known format, the format lacks an option or cannot hold a
            mark, the name is that of a folder, a device or a pipe, or the folder cannot be made.
    """
    check_replaceable(resolved(path))
    check_marks((output or OutputFormat()).of_file(path))
    check_part_name(path)
    check_folder(path.parent)
    return path


def check_replaceable(path: Path) -> None:
    """Check that a file may take a path's place.

    Files are written beside their place and renamed, which would delete a device or a named pipe:
    `-o /dev/null` as root would leave a file there for every other program.

    Raises:
        InputError: If a folder, a device or a pipe is there.
    """
    if path.is_dir():
        raise InputError(f"Cannot write {path}: it is a folder; give the name of a file in it.")
    if path.exists() and not path.is_file():
        raise InputError(
            f"Cannot write {path}: it is a device or a pipe, which the file would replace; give "
            "the name of a file."
        )


def check_part_name(path: Path) -> None:
    """Check that a file can be written beside its place first, under a longer name.

    Raises:
        InputError: If its name is too long for that.
    """
    most = MOST_NAME_BYTES - len(_part(path).name) + len(path.name)
    if len(os.fsencode(path.name)) > most:
        raise InputError(
            f"Cannot write {path}: its name has {len(os.fsencode(path.name))} bytes, and at most "
            f"{most} leave room for the name that it has while it is written; give a shorter one."
        )


def require_other_file(output: Path, recordings: Iterable[Path | None]) -> None:
    """Refuse an output that would replace one of the recordings it is made from.

    Raises:
        InputError: If the output is one of the recordings, by name or through a link.
    """
    place = resolved(output)
    for recording in recordings:
        if recording is not None and resolved(recording) == place:
            raise InputError(
                f"The output {output} is also a recording to read, which would be lost; give the "
                "output another name."
            )


def resolved(path: Path) -> Path:
    """A path with all links followed.

    Raises:
        InputError: If its links lead in a circle.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError before Python 3.13
        raise InputError(f"The links at {path} lead in a circle; give another path.") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file atomically: beside its place first, then moved there.

    Raises:
        InputError: If it cannot be written.
    """
    check_replaceable(path)
    part = _part(path)
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); give another place."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def copy_whole(source: Path, path: Path) -> None:
    """Copy a file's content atomically, or leave what was there.

    Raises:
        InputError: If it cannot be read or written.
    """
    check_replaceable(path)
    part = _part(path)
    try:
        shutil.copyfile(source, part)
        part.replace(path)
    except OSError as error:
        raise InputError(
            f"{source} cannot be copied to {path} ({error.strerror}); give another place."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _part(path: Path) -> Path:
    """Where a file is written before it is moved to its place."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def remove_unfinished(files: Iterable[Path], seconds: float = UNFINISHED_SECONDS) -> None:
    """Remove what killed processes left of files, beside their places.

    Args:
        files: The files that are to be written.
        seconds: Age from which a part counts as left: another process may still write a younger
            one. 0 where no other process can.
    """
    names: defaultdict[Path, set[str]] = defaultdict(set)
    for file in files:
        place = resolved(file)
        names[place.parent].add(place.name)
    # Each folder is listed once: it may hold the outputs of many thousand jobs.
    for folder, own in names.items():
        for left in folder.glob(".*.part"):
            found = _PART.fullmatch(left.name)
            with contextlib.suppress(OSError):
                if found and found[1] in own and time.time() - left.stat().st_mtime >= seconds:
                    left.unlink()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: If it cannot be read.
    """
    # Size, time and inode notice a changed file at no cost; hashing every target for every metric
    # would take longer than some metrics.
    seen = path.stat()
    return _file_hash(str(path.resolve()), seen.st_size, seen.st_mtime_ns, seen.st_ino)


def listing_hash(folder: Path) -> str:
    """SHA-256 of the names, sizes and times of a folder's files: its content, without reading it.

    Raises:
        InputError: If it cannot be listed.
    """
    try:
        seen = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
    except OSError as error:
        raise InputError(
            f"The folder {folder} cannot be read ({error.strerror}); check the path."
        ) from error
    text = "".join(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n" for name, stat in seen)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@lru_cache(maxsize=1 << 16)
def _file_hash(path: str, size: int, modified: int, inode: int) -> str:
    """Hashes a file once until it changes: a target serves many metrics."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
    # Only a line feed ends a line of JSONL: splitlines would also cut inside texts, at U+2028,
    # U+0085 and six other characters that JSON allows there.
    lines = read_text(path, "a JSONL file").split("\n")
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


def read_text(path: Path, what: str, *, most: int = MOST_TEXT_BYTES) -> str:
    """Read a text file, with or without a byte order mark.

    Args:
        path: The file.
        what: What it should be, in messages, such as "a JSONL file".
        most: Largest number of bytes.

    Raises:
        InputError: If it is missing, a folder, too large, or not UTF-8.
    """
    path = require_path(path, "The file")
    try:
        with path.open("rb") as file:
            data = read_bounded(file, most)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}; check the path.") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{path} cannot be read ({reason}); give {what}.") from error
    if len(data) > most:
        raise InputError(f"{path} holds more than {most:,} bytes; give {what} in parts.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} cannot be read as text (not UTF-8 at byte {error.start}); give {what} in "
            "UTF-8."
        ) from error


def _object(line: str, keys: Sequence[str], hidden: Sequence[str]) -> dict[str, Any]:
    values = parse_json(line, "This", "write one object a line")
    if not isinstance(values, dict):
        raise InputError(f"This is {type(values).__name__}, not an object; write {{...}}.")
    unknown = [key for key in values if key not in (*keys, *hidden)]
    if unknown:
        raise InputError(f"Unknown: {', '.join(unknown)}; the keys are {', '.join(keys)}.")
    return {key: value for key, value in values.items() if value is not None}

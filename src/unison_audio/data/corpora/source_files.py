"""Reads folders, archives and tables of published corpora, always in the same order.

The order must not depend on the file system: it decides the content of every shard.
"""

import csv
import gzip
import json
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from unison_audio.data.corpora.source import Skipped
from unison_audio.errors import InputError

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".w64"}
    | {".m4a", ".aac", ".mp4", ".webm", ".mkv", ".wma"}
)
"""Suffixes of files that are taken for audio, in lower case."""

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")

_CHUNK, _LONGEST_ENTRY = 1 << 22, 1 << 28

_BLANK = re.compile(r"[ \t\r\n,]*")

ARCHIVE_ERRORS = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error)
"""What reading from a damaged archive raises."""


def is_audio(name: str) -> bool:
    """Tells whether a file name has the suffix of an audio or video format."""
    return name[name.rfind(".") :].lower() in AUDIO_SUFFIXES


def walk(root: Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """Lists the files under a folder whose names are wanted, sorted, one folder at a time."""
    files, folders = [], []
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir():
                folders.append(entry.name)
            elif wanted(entry.name):
                files.append(entry.name)
    # Sorted folder by folder: a list of all paths of a large corpus would take gigabytes.
    yield from (root / name for name in sorted(files))
    for name in sorted(folders):
        if not name.startswith("."):
            yield from walk(root / name, wanted)


def relative(path: Path, root: Path) -> str:
    """Gives a path from the root, with slashes."""
    return path.relative_to(root).as_posix()


def find(root: Path, names: tuple[str, ...], what: str) -> Path:
    """Finds the one file that has one of the names, anywhere under the root.

    Raises:
        InputError: If there is none.
    """
    found = next(walk(root, lambda name: name in names), None)
    if found is None:
        raise InputError(f"There is no {' or '.join(names)} under {root}; {what}")
    return found


def load_json(path: Path) -> Any:
    """Reads a small JSON file.

    Raises:
        InputError: If it is damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is no whole JSON file ({error}); fetch it again") from error


def read_range(path: Path, offset: int, length: int, size: int) -> bytes:
    """Reads a range of a listing.

    Args:
        path: The listing.
        offset: Where the range begins.
        length: Its bytes.
        size: Bytes that the listing had when the range was noted.

    Raises:
        InputError: If the listing has another size now.
    """
    with path.open("rb") as file:
        found = file.seek(0, os.SEEK_END)
        if found != size:
            raise InputError(
                f"{path} had {size} bytes when the ingest began and has {found} now; restore the "
                "old one, or delete the shards and start again"
            )
        file.seek(offset)
        return file.read(length)


def read_tar(path: Path, root: Path) -> Iterator[tuple[str, Callable[[], bytes]] | Skipped]:
    """Reads a tar of any compression in its order, with bounded memory.

    Yields:
        (member, reader) for each file; the reader is valid until the next one is asked for. A
        `Skipped` comes last if the archive ends before its end mark.
    """
    members = 0
    try:
        # A plain tar is sought through, a compressed one is read as a stream: to seek back in it
        # would unpack it from its start.
        with tarfile.open(path, "r:*" if path.suffix == ".tar" else "r|*") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep every header
                if member.isfile():
                    yield member.name, _member_reader(archive, member)
                    members += 1
        # tarfile takes an archive that ends between two members for a complete one.
        if path.suffix == ".tar" and not _has_end_mark(path):
            raise tarfile.ReadError("no end mark")
    except ARCHIVE_ERRORS as error:
        reason = f"the archive ends early, after {members} files ({error})"
        yield Skipped(file=relative(path, root), reason=reason, broken=True)


def _member_reader(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        stream = archive.extractfile(member)
        assert stream is not None
        content = stream.read()
        if len(content) != member.size:
            raise tarfile.ReadError(f"{len(content)} of {member.size} bytes")
        return content

    return read


def _has_end_mark(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 1024))
        return file.read() == bytes(1024)


@lru_cache(maxsize=4)
def open_zip(path: Path) -> zipfile.ZipFile:
    """Opens a zip and keeps it open.

    Raises:
        InputError: If it is one of several volumes, or damaged.
    """
    if path.with_suffix(".z01").exists():
        raise InputError(
            f"{path} is the last of several volumes (.z01, ...); join them first with: "
            f"zip -s- {path.name} -O {path.stem}_joined.zip, and move the volumes away"
        )
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path} is no whole zip archive ({error}); fetch it again") from error


def open_text(path: Path) -> IO[str]:
    """Opens a text, compressed or not; bytes that are not UTF-8 become lone surrogates."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", errors="surrogateescape", newline="")
    return path.open(encoding="utf-8", errors="surrogateescape", newline="")


def table_rows(path: Path, delimiter: str = ",") -> Iterator[list[str]]:
    """Reads the rows of a table (csv or tsv), fields of any length, skipping empty lines."""
    csv.field_size_limit(1 << 30)  # the default refuses the file because of one long caption
    with open_text(path) as file:
        lines = (line.replace("\0", "") for line in file)  # csv refuses the whole file otherwise
        for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True):
            if row:
                yield row


def named_rows(path: Path, needed: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Reads a table that begins with the names of its columns.

    Raises:
        InputError: If a needed column is missing.
    """
    rows = table_rows(path, "\t" if path.suffix == ".tsv" else ",")
    columns = [name.lstrip("\ufeff").strip() for name in next(rows, [])]
    missing = [name for name in needed if name not in columns]
    if missing:
        raise InputError(
            f"{path} has the columns {', '.join(columns) or '(none)'}; {', '.join(missing)} is "
            "missing"
        )
    for row in rows:
        yield dict(zip(columns, row, strict=False))


def json_objects(path: Path, array: str) -> Iterator[tuple[int, int, Any]]:
    """Reads the entries of an array in a JSON file of any size, one at a time.

    Args:
        path: The file, in UTF-8.
        array: Name of the array, or "" where the file itself is one.

    Yields:
        (offset of its first byte, its length in bytes, the entry).

    Raises:
        InputError: If the array is not there, or the file is damaged or ends early.
    """
    decoder = json.JSONDecoder()
    with path.open("rb") as file:
        text, position, offset, rest = "", -1, 0, b""  # text[position] is the file's byte `offset`
        while True:
            if position < 0 and (opening := _opening(text, array)) >= 0:
                position, offset = opening + 1, len(text[: opening + 1].encode())
            while position >= 0:
                blank = _blank(text, position)
                position, offset = position + blank, offset + blank
                if text[position : position + 1] == "]":
                    return
                try:
                    value, end = decoder.raw_decode(text, position)
                except json.JSONDecodeError:
                    break  # the entry is longer than what is read so far
                length = len(text[position:end].encode())
                yield offset, length, value
                position, offset = end, offset + length
            # Keeps only the beginning of the entry that is not complete yet.
            text, position = (text[position:], 0) if position > 0 else (text, position)
            chunk = file.read(max(_CHUNK, len(text)))
            if not chunk or len(text) > _LONGEST_ENTRY:
                raise InputError(
                    f"{path} is damaged or ends early: after byte {offset} comes no whole "
                    f"{'entry' if position >= 0 else f'array {array!r}'}; fetch it again"
                )
            decoded, rest = _decode(rest + chunk, path)
            text += decoded


def _blank(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return match.end() - position if match else 0


def _opening(text: str, array: str) -> int:
    start = text.find(f'"{array}"') if array else 0
    return text.find("[", start) if start >= 0 else -1


def _decode(data: bytes, path: Path) -> tuple[str, bytes]:
    try:
        return data.decode(), b""
    except UnicodeDecodeError as error:
        # A character of up to four bytes may be cut at the end of what was read.
        if error.start < len(data) - 4:
            raise InputError(f"{path} is not UTF-8 ({error.reason}); fetch it again") from error
        return data[: error.start].decode(), data[error.start :]

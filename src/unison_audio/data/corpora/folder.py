"""Reader of any folder of recordings with a table: a JSONL, or a CSV or TSV with a header.

The table is ``metadata.jsonl``, ``.csv`` or ``.tsv`` in the root, or else the only file of such a
kind there. Columns, of which only ``audio`` is needed:

==============  ==================================================================================
audio           path of the recording from the table's folder; also ``file_name`` or ``path``
text            transcript (``sentence``, ``transcription``); with it and no ``kind``: speech
caption         description of the sound; a row without text is a sound
label           the event as a noun phrase, "a dog barking"; by default the caption
kind            ``speech`` or ``sound``
speaker         speaker name; equal for equal voices
gender          ``male`` or ``female``, also as ``m``, ``F``, ``male_masculine``, ...
language        ``en``, ``zh``, ...
split           ``train`` (the default), ``heldout`` (also ``test``, ``validation``) or ``speakers``
licence         of the recording; also ``license``
start, end      seconds, for a segment of the recording
key             a name, unique in the table; by default the path and the row's number
==============  ==================================================================================

Any other column is ignored. Emilia's older form, JSONL beside folders of mp3, can be read, too: its
``wav`` and ``id`` count as ``audio`` and ``key``.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unison_audio.data.corpora.source import NO_AUDIO, Rows, Skipped, SourceClip, Unit
from unison_audio.data.corpora.source_files import open_text, read_range, relative
from unison_audio.errors import InputError
from unison_audio.json_files import unique_keys

SUFFIXES = (".jsonl", ".csv", ".tsv")

ROWS_PER_UNIT = 500

_OTHER_NAMES = {
    "file_name": "audio",
    "path": "audio",
    "wav": "audio",
    "id": "key",
    "license": "licence",
    "sentence": "text",
    "transcription": "text",
    "transcript": "text",
    "speaker_id": "speaker",
    "client_id": "speaker",
    "sex": "gender",
    "locale": "language",
}
"""Other names of columns, such as Common Voice's and those of the hub's data sets. A column under
the first name of the table above wins."""

_KINDS = ("speech", "sound")

_SPLITS = {
    **{name: name for name in ("train", "heldout", "speakers")},
    **dict.fromkeys(("training",), "train"),
    **dict.fromkeys(("test", "validation", "valid", "val", "dev", "eval"), "heldout"),
}
"""Spelling of a split -> its name."""

_GENDERS = {
    **dict.fromkeys(("male", "m", "man", "masculine", "male_masculine"), "male"),
    **dict.fromkeys(("female", "f", "w", "woman", "feminine", "female_feminine"), "female"),
}
"""Spelling of a gender in lower case -> its name. Any other is left out: the row has no gender."""


def table_of(root: Path) -> Path:
    """Finds the table of a folder.

    Raises:
        InputError: If there is none, or several without one named ``metadata``.
    """
    for suffix in SUFFIXES:
        if (path := root / f"metadata{suffix}").is_file():
            return path
    found = sorted(path for path in root.iterdir() if path.suffix in SUFFIXES)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(
            f"{root} must have one table with a column audio; it has {names}; call the one to "
            f"read metadata{found[0].suffix if found else '.jsonl'}"
        )
    return found[0]


def units(root: Path, rows: Rows) -> Iterator[Unit | Skipped]:
    """Lists the table in ranges of some hundred rows."""
    del rows
    table = table_of(root)
    if table.suffix == ".jsonl":
        columns, ranges = None, _jsonl_ranges(table)
    else:
        columns, ranges = _columns(table), _csv_ranges(table)
    # With the size, a later change of the table is noticed instead of read at wrong places.
    size = table.stat().st_size
    for first, offset, length, count in ranges:
        payload = {
            "table": relative(table, root),
            "columns": columns,
            "first": first,
            "offset": offset,
            "length": length,
            "size": size,
        }
        yield Unit(key=f"row {first}", payload=payload, weight=float(count))


def _jsonl_ranges(table: Path) -> Iterator[tuple[int, int, int, int]]:
    """Yields (first row, offset, bytes, rows)."""
    with table.open("rb") as file:
        first, start, count = 1, 0, 0
        for _ in iter(file.readline, b""):
            count += 1
            if count == ROWS_PER_UNIT:
                yield first, start, file.tell() - start, count
                first, start, count = first + count, file.tell(), 0
        if count:
            yield first, start, file.tell() - start, count


def _delimiter(table: Path) -> str:
    return "\t" if table.suffix == ".tsv" else ","


def _columns(table: Path) -> list[str]:
    with open_text(table) as file:
        header = next(csv.reader(file, delimiter=_delimiter(table)), [])
    # Spreadsheet programs write a byte order mark before the first name.
    columns = [name.lstrip("\ufeff").strip() for name in header]
    if "audio" not in [_OTHER_NAMES.get(name, name) for name in columns]:
        raise InputError(
            f"{table} has the columns {', '.join(columns) or '(none)'}; it needs a first line with "
            "the names of the columns, among them audio"
        )
    return columns


def _csv_ranges(table: Path) -> Iterator[tuple[int, int, int, int]]:
    """Yields (first row, offset, bytes, rows); a row may have several lines."""
    # The csv reader does not say where a row begins, so the bytes of the lines that it has taken
    # are counted. It reads no line ahead: after a row, `taken` is the offset of the next one.
    csv.field_size_limit(1 << 30)
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        with table.open("rb") as file:
            for line in file:
                taken += len(line)
                yield line.decode("utf-8", "replace").replace("\0", "")

    reader = csv.reader(lines(), delimiter=_delimiter(table))
    next(reader, None)
    first, start, count = 1, taken, 0
    for _ in reader:
        count += 1
        if count == ROWS_PER_UNIT:
            yield first, start, taken - start, count
            first, start, count = first + count, taken, 0
    if count:
        yield first, start, taken - start, count


def clips(root: Path, payload: dict[str, Any], rows: Rows) -> Iterator[SourceClip | Skipped]:
    """Reads a range of rows."""
    del rows
    table = root / payload["table"]
    where = (payload[name] for name in ("offset", "length", "size"))
    text = read_range(table, *where).decode("utf-8", "surrogateescape")
    # Wrong bytes became lone surrogates, which the check of each text reports with its row.
    found: Iterator[dict[str, Any] | str]
    if payload["columns"] is None:
        # Some editors write a byte order mark before the first line. Not splitlines: it also splits
        # at characters that JSON strings may hold, such as U+2028.
        lines = text.removeprefix("\ufeff").split("\n")
        found = (_json_row(line) for line in lines)
    else:
        csv.field_size_limit(1 << 30)  # the default refuses one long caption
        stream = io.StringIO(text.replace("\0", ""), newline="")
        fields = csv.reader(stream, delimiter=_delimiter(table))
        found = (_table_row(payload["columns"], row) for row in fields)
    for number, row in enumerate(found, payload["first"]):
        place = f"{payload['table']}:row {number}"
        if isinstance(row, str):
            yield Skipped(file=place, reason=row, broken=True)
        elif row:
            yield _clip(root, place, number, row)


def _table_row(columns: list[str], row: list[str]) -> dict[str, Any] | str:
    """A row by column, or why it cannot be used."""
    if len(row) > len(columns):  # zip would cut the caption at its first comma
        return (
            f"{len(row)} fields where the table has {len(columns)} columns; put a text with the "
            "separator in it into quotes"
        )
    return dict(zip(columns, row, strict=False))


def _json_row(line: str) -> dict[str, Any] | str:
    if not line.strip():
        return {}
    try:
        row = json.loads(line, object_pairs_hook=unique_keys)
    except RecursionError:
        return "not JSON (nested too deeply)"
    except ValueError as error:
        return f"not JSON ({error})"
    return row if isinstance(row, dict) else "not a JSON object"


def _clip(root: Path, place: str, number: int, row: dict[str, Any]) -> SourceClip | Skipped:
    given = {name: value for name, value in row.items() if value not in (None, "")}
    fields = {_OTHER_NAMES.get(name, name): value for name, value in given.items()}
    fields |= {name: value for name, value in given.items() if name not in _OTHER_NAMES}

    def text(name: str, default: str = "") -> str:
        return str(fields.get(name, default))

    for name, value in fields.items():
        if isinstance(value, str) and not _is_whole(value):
            reason = f"{name} holds a NUL character or bytes that are not UTF-8"
            return Skipped(file=place, reason=reason, broken=True)
    audio = text("audio").strip()
    kind = text("kind", "speech" if text("text").strip() else "sound")
    split, gender = text("split", "train").strip().lower(), text("gender").strip().lower()
    split, gender = _SPLITS.get(split, split), _GENDERS.get(gender, "")
    for name, value, valid in (("kind", kind, _KINDS), ("split", split, tuple(_SPLITS))):
        if value not in valid:
            reason = f"{name} is {value!r}; it must be {' or '.join(valid)}"
            return Skipped(file=place, reason=reason, broken=True)
    try:
        start, end = (
            None if name not in fields else float(fields[name]) for name in ("start", "end")
        )
    except (TypeError, ValueError, OverflowError):
        return Skipped(file=place, reason="start and end must be seconds", broken=True)
    if not audio:
        return Skipped(file=place, reason="no path in the column audio", broken=True)
    path = root / audio
    if not _is_file(path):
        return Skipped(file=place, reason=f"{NO_AUDIO} {audio[:200]}", broken=True)
    return SourceClip(
        key=text("key") or f"{Path(audio).with_suffix('').as_posix()}-{number}",
        file=audio,
        audio=path,
        kind=kind,
        split=split,
        licence=text("licence"),
        text=text("text"),
        speaker=text("speaker"),
        gender=gender,
        label=text("label"),
        caption=text("caption"),
        language=text("language"),
        start=start if start is not None or end is None else 0.0,
        end=end,
    )


def _is_whole(value: str) -> bool:
    """Whether a text is UTF-8 without NUL characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long
        return False

"""The values that a corpus reader gives to the ingest: units of work, clips, skipped items."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

NO_AUDIO = "no audio file"
"""Reason for skipping a published clip whose audio was not downloaded."""

NO_LABEL = "audio without a row in the tables"
"""Reason for skipping a file that no table names."""

DUPLICATE = "listed twice"
"""Reason for skipping the second of two clips with one key."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """A part of a corpus that is read at once: a clip, an archive, a range of a table."""

    key: str
    """Unique in the corpus; a later unit with the same key is skipped as a duplicate."""
    payload: dict[str, Any]
    """Input of `Corpus.clips`; it is stored as JSON."""
    split: str = ""
    """`train`, `heldout` or `speakers`; empty if the unit has clips of several splits."""
    weight: float = 1.0
    """Its share of the work, on any scale, for the progress."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceClip:
    """A published recording or a segment of one, with its published metadata."""

    key: str
    """Unique in the corpus."""
    file: str
    """Path from the corpus's root, with an archive's member after `!`."""
    audio: Path | Callable[[], bytes]
    """The file, or a function that reads it and is valid until the next clip is requested."""
    kind: str
    """`speech` or `sound`."""
    split: str = "train"
    """Split, as in `ClipRecord`."""
    licence: str = ""
    """License, if it differs from the corpus's."""
    text: str = ""
    """Transcript."""
    speaker: str = ""
    """Speaker name."""
    gender: str = ""
    """`male`, `female` or empty."""
    label: str = ""
    """Event label; empty to use the caption."""
    caption: str = ""
    """A sentence that describes the sound."""
    language: str = ""
    """Language of the text or caption."""
    start: float | None = None
    """Start of the segment in seconds; None for the whole file."""
    end: float | None = None
    """End of the segment in seconds; None for the end of the file."""
    cut_over: float = 0.0
    """Length in seconds up to which a file counts as the segment itself; a longer one is cut."""
    seconds: float | None = None
    """Length in seconds that the publisher states; a much shorter file is damaged."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skipped:
    """A published item that gives no clip."""

    file: str
    """A path from the root, or a file and its line."""
    reason: str
    """Reason in a few words; items that are not broken are counted by it."""
    broken: bool = False
    """Whether it is damaged. Damaged items are listed one by one."""


class Rows(Protocol):
    """Table rows by key, on disk, for corpora that keep labels apart from the audio."""

    def put(self, key: str, row: list[Any]) -> None:
        """Adds a row under a key; a key may have several."""

    def get(self, key: str) -> list[list[Any]]:
        """The rows of a key, in the order of their addition."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """A published corpus and its reader."""

    name: str
    """Name on the command line and at the start of its shards' names."""
    licence: str
    """License as published, for the records of its clips."""
    units: Callable[[Path, Rows], Iterator[Unit | Skipped]]
    """(root, rows) -> its units, always in the same order; no audio is opened."""
    clips: Callable[[Path, dict[str, Any], Rows], Iterator[SourceClip | Skipped]]
    """(root, a unit's payload, rows) -> its clips, always in the same order."""
    rows_are_clips: bool = False
    """Whether each row under a key without ``#`` or ``@`` is a published clip."""
    clips_per_unit: int = 1
    """Approximate number of clips in a unit; it sets the size of the chunks."""

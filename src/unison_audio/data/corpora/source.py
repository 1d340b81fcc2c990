"""What the reader of a corpus gives the ingest: units of work, clips, and what was skipped."""

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
    """A part of a corpus that is read at once: a clip, an archive, a range of an annotation."""

    key: str
    """Unique in the corpus; a later unit with the same key is skipped as a duplicate."""

    payload: dict[str, Any]
    """What ``Corpus.clips`` needs to read it; goes through JSON."""

    split: str = ""
    """``train``, ``heldout``, ``speakers``, or empty if a unit has clips of several."""

    weight: float = 1.0
    """Its share of the work, on any scale; for the progress."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceClip:
    """A published recording, or a segment of one, with its published metadata."""

    key: str
    """Unique in the corpus."""

    file: str
    """Path from the corpus' root, an archive's member after ``!``; for ``source`` and messages."""

    audio: Path | Callable[[], bytes]
    """The file, or what reads it; the latter is valid until the next clip is asked for."""

    kind: str
    """``speech`` or ``sound``."""

    split: str = "train"
    """``train``, ``heldout`` or ``speakers``, as in ``ClipRecord``."""

    licence: str = ""
    """License, if it differs from the corpus'."""

    text: str = ""
    """Transcript."""

    speaker: str = ""
    """Speaker name."""

    gender: str = ""
    """``male``, ``female`` or empty."""

    label: str = ""
    """Event label; empty to take the caption."""

    caption: str = ""
    """A sentence that describes the sound."""

    language: str = ""
    """Of text or caption."""

    start: float | None = None
    """Where a segment begins, in seconds; None for the whole file."""

    end: float | None = None
    """Where it ends."""

    cut_over: float = 0.0
    """The segment is only cut out of files longer than this; a shorter file is the cut itself."""

    seconds: float | None = None
    """Length that the publisher states; a file that is much shorter is broken."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something published that gives no clip."""

    file: str
    """What it is: a path from the root, or a file and its line."""

    reason: str
    """Why, in a few words; the clips that are not broken are counted by it."""

    broken: bool = False
    """Whether it is damaged: such files are listed one by one, the others only counted."""


class Rows(Protocol):
    """Rows of annotation by key, on disk, for corpora that keep labels apart from audio."""

    def put(self, key: str, row: list[Any]) -> None:
        """Adds a row under a key; a key may have several."""

    def get(self, key: str) -> list[list[Any]]:
        """Gives the rows of a key in the order of their addition."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """A published corpus and its reader."""

    name: str
    """As on the command line, and first in the names of its shards."""

    licence: str
    """As published; goes into every record."""

    units: Callable[[Path, Rows], Iterator[Unit | Skipped]]
    """(root, rows) -> its units, always in the same order, without opening any audio."""

    clips: Callable[[Path, dict[str, Any], Rows], Iterator[SourceClip | Skipped]]
    """(root, a unit's payload, rows) -> its clips, always in the same order."""

    rows_are_clips: bool = False
    """Whether each row under a key without ``#`` or ``@`` is a published clip."""

    clips_per_unit: int = 1
    """Approximately; sets how many units make a chunk of the work."""

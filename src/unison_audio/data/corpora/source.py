"""What the reader of a published corpus hands to the ingest: units of work, clips, problems."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

NO_AUDIO = "no audio file"
"""Why a published clip is skipped whose audio was not fetched."""

NO_LABEL = "audio without a row in the tables"
"""Why a file is skipped that no table names."""

DUPLICATE = "listed twice"
"""Why the second of two clips with one key is skipped."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """A piece of a corpus that is read in one go: a clip, an archive, a range of an annotation."""

    key: str
    """Unique in the corpus; a unit whose key came before is left out as a duplicate."""

    payload: dict[str, Any]
    """What ``Corpus.clips`` needs to read it; goes through JSON."""

    split: str = ""
    """``train``, ``heldout``, ``speakers``, or empty where a unit has clips of several."""

    weight: float = 1.0
    """Its share of the work, on any scale; for the time left."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceClip:
    """A published recording, or a segment of one, with what its publisher says of it."""

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
    """Where it differs from the corpus'."""

    text: str = ""
    """What is said."""

    speaker: str = ""
    """Who speaks."""

    gender: str = ""
    """``male``, ``female`` or empty."""

    label: str = ""
    """Event label; empty to take the caption."""

    caption: str = ""
    """What is heard."""

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
    """Why, in a few words; for what is not broken one of a small set, since it is counted by."""

    broken: bool = False
    """Damaged, hence listed one by one; the others are only counted."""


class Rows(Protocol):
    """Rows of annotation by key, on disk, for corpora that keep labels apart from audio."""

    def put(self, key: str, row: list[Any]) -> None:
        """Adds a row under a key; a key may have several."""

    def get(self, key: str) -> list[list[Any]]:
        """Gives the rows of a key in the order they were put."""


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
    """About; sets how many units make up a part of the work."""

"""Working through one part of an ingest: clips in, whole shards out, taken up again exactly.

Beside each shard a note is written of how far it reaches and what was counted on the way. A part
that is taken up again goes on behind its last note; a shard without its note is written anew, with
the same bytes.
"""

import dataclasses
import errno
import hashlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any

from webdataset import TarWriter

from unison_audio.data.corpora import CORPORA
from unison_audio.data.corpora.source import DUPLICATE, Skipped, SourceClip
from unison_audio.data.corpus_index import FORMAT
from unison_audio.data.prepare.clip import ClipReader, Sample
from unison_audio.data.prepare.plan import Part, Plan
from unison_audio.data.records import ClipRecord
from unison_audio.errors import InputError

GROUPS: dict[str, Callable[[ClipRecord], str]] = {
    "language": lambda record: record.language,
    "kind": lambda record: record.kind,
    "split": lambda record: record.split,
    "sample_rate": lambda record: str(record.sample_rate),
    "zero_shot": lambda record: "yes" if record.zero_shot else "no",
}
"""Name -> what a clip counts under."""


@dataclasses.dataclass(kw_only=True)
class Tally:
    """Counts that can be added up."""

    groups: dict[str, dict[str, list[float]]] = dataclasses.field(
        default_factory=lambda: {name: {} for name in GROUPS}
    )
    """Name in ``GROUPS`` -> value -> [clips, seconds]."""

    removed: Counter[str] = dataclasses.field(default_factory=Counter)
    """Reason -> clips left out."""

    broken: list[list[str]] = dataclasses.field(default_factory=list)
    """[file, reason] of each damaged file."""

    cut: list[int] = dataclasses.field(default_factory=lambda: [0, 0])
    """[long sounds, pieces made of them]."""

    read: int = 0
    """Published clips that were looked at."""

    def add(self, record: ClipRecord) -> None:
        """Counts a clip that is kept."""
        for name, group_of in GROUPS.items():
            counts = self.groups[name].setdefault(group_of(record), [0, 0.0])
            counts[0] += 1
            counts[1] += record.seconds

    def skip(self, skipped: Skipped) -> None:
        """Counts what gives no clip."""
        if skipped.broken:
            self.broken.append([skipped.file, skipped.reason])
        else:
            self.removed[skipped.reason] += 1

    def pieces(self, count: int) -> None:
        """Counts a long sound that was cut into pieces."""
        self.cut = [self.cut[0] + 1, self.cut[1] + count]

    def merge(self, other: "Tally") -> None:
        """Adds another's counts, but not its list of broken files."""
        for name, groups in other.groups.items():
            for value, (clips, seconds) in groups.items():
                counts = self.groups[name].setdefault(value, [0, 0.0])
                counts[0] += clips
                counts[1] += seconds
        self.removed.update(other.removed)
        self.cut = [mine + theirs for mine, theirs in zip(self.cut, other.cut, strict=True)]
        self.read += other.read

    def to_json(self) -> dict[str, Any]:
        """Gives what ``Tally(**...)`` takes."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**fields, "removed": dict(self.removed)}


def index_of(
    corpus: str,
    licence: str,
    tally: Tally,
    shards: Sequence[Mapping[str, Any]],
    own: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of a corpus' ``index.json``.

    Args:
        corpus: The corpus' name.
        licence: Of its clips.
        tally: Counts of all its clips.
        shards: One entry a shard, with at least ``name``, ``clips``, ``seconds``, ``kinds`` and
            ``splits``.
        own: Further keys that this corpus adds.
    """
    groups = {
        field: {
            value: {"clips": int(clips), "hours": round(seconds / 3600, 4)}
            for value, (clips, seconds) in sorted(tally.groups[field].items())
        }
        for field in tally.groups
    }
    return {
        "format": FORMAT,
        "corpus": corpus,
        "licence": licence,
        "clips": sum(entry["clips"] for entry in shards),
        "hours": round(sum(entry["seconds"] for entry in shards) / 3600, 4),
        "by_language": groups["language"],
        "by_kind": groups["kind"],
        "by_split": groups["split"],
        "sample_rates": {rate: about["clips"] for rate, about in groups["sample_rate"].items()},
        "zero_shot": groups["zero_shot"].get("yes", {"clips": 0, "hours": 0.0}),
        "removed": {reason: n for reason, n in sorted(tally.removed.items()) if n},
        "cut": {"recordings": tally.cut[0], "pieces": tally.cut[1]},
        **own,
        "shards": list(shards),
    }


WORK = ".ingest"
"""Folder beside the shards with what an unfinished ingest needs to go on."""

PLAN = "plan.sqlite"

_BLOCK = 512

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What all parts of an ingest have in common."""

    corpus: str
    """Key of ``CORPORA``."""

    root: Path
    """Folder of the published corpus."""

    out: Path
    """Folder of the shards."""

    shard_bytes: int
    """A shard is closed before it gets larger, unless a single clip is."""

    shard_clips: int
    """A shard is closed before it gets more clips."""


@dataclasses.dataclass(kw_only=True)
class Step:
    """What happened since the last one, for the progress."""

    clips: int = 0
    """Written."""

    weight: float = 0.0
    """Of units finished."""


OnStep = Callable[[Step], bool]
"""Told of each step; True to stop."""


class Shard:
    """A shard being written; it appears under its name when it is complete.

    Args:
        out: Folder of the shards.
        name: File name.
    """

    def __init__(self, out: Path, name: str) -> None:
        self.path = out / name
        # The process' number keeps a straggler of a killed run from writing into our file.
        self._partial = out / WORK / f"{name}.{os.getpid()}.partial"
        self._file = self.open_partial()
        self._hash = hashlib.sha256()
        self._writer = TarWriter(self, mtime=0)
        self.clips, self.seconds, self.bytes = 0, 0.0, 0
        self.kinds: set[str] = set()
        self.splits: set[str] = set()

    def open_partial(self) -> IO[bytes]:
        """Opens the file that is to become the shard."""
        return self._partial.open("wb")

    def write(self, data: bytes) -> int:
        """Takes what the tar writer makes."""
        if self._file.closed:  # abandoned: the tar's end mark goes nowhere
            return len(data)
        self._hash.update(data)
        return self._file.write(data)

    def add(self, sample: Sample) -> None:
        """Adds a clip."""
        record = sample.record
        fields = json.dumps(dataclasses.asdict(record)).encode()
        self._writer.write({"__key__": record.key, sample.suffix: sample.content, "json": fields})
        self.clips += 1
        self.seconds += record.seconds
        self.bytes += size_in_tar(sample)
        self.kinds.add(record.kind)
        self.splits.add(record.split)

    def finish(self) -> dict[str, Any]:
        """Puts the shard in its place.

        Returns:
            Its entry in the index.
        """
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        self._partial.replace(self.path)
        return {
            "name": self.path.name,
            "clips": self.clips,
            "seconds": round(self.seconds, 3),
            "bytes": size,
            "kinds": sorted(self.kinds),
            "splits": sorted(self.splits),
            "sha256": self._hash.hexdigest(),
        }

    def abandon(self) -> None:
        """Throws away what is written so far."""
        with suppress(OSError):  # what is not yet written need not fit on a full disk
            self._file.close()
        self._partial.unlink(missing_ok=True)


def size_in_tar(sample: Sample) -> int:
    """Counts the bytes of a clip in a tar, about: two headers, two contents in whole blocks."""
    return 4 * _BLOCK + -(-len(sample.content) // _BLOCK) * _BLOCK + _BLOCK


def read_notes(out: Path, part: Part) -> list[dict[str, Any]]:
    """Reads the notes of a part, in order; the last one says whether the part is done."""
    notes: list[dict[str, Any]] = []
    while (path := _note_path(out, part, len(notes))).is_file():
        note = json.loads(path.read_text("utf-8"))
        if note["shard"] and not (out / note["shard"]["name"]).is_file():
            break  # somebody took the shard away: it is made again
        notes.append(note)
    return notes


def _note_path(out: Path, part: Part, number: int) -> Path:
    return out / WORK / f"{part.name}-{number:06d}.json"


def write_whole(path: Path, text: str) -> None:
    """Writes a text file that appears whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def run_part(job: Job, part: Part, on_step: OnStep, limit: int | None = None) -> None:
    """Works through a part, or what is left of it.

    Args:
        job: The ingest.
        part: Of its plan.
        on_step: Told of each clip.
        limit: Most clips to write, or all.

    Raises:
        InputError: If the disk is full, a folder cannot be read, or a package is missing.
    """
    try:
        _PartRun(job, part, on_step, limit).run()
    except (OSError, sqlite3.Error) as error:
        raise stopped(job, error) from error


def stopped(job: Job, error: OSError | sqlite3.Error) -> InputError:
    """Words what a full disk, a lost folder or a damaged plan means and how to go on."""
    again = "and run the same command again: it goes on where it stopped"
    full = isinstance(error, OSError) and error.errno in _FULL
    if full or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return InputError(f"The disk with {job.out} is full; make room {again}")
    if isinstance(error, sqlite3.Error):
        plan = job.out / WORK / PLAN
        return InputError(f"{plan} cannot be used ({error}); delete {job.out} and begin again")
    return InputError(f"The ingest of {job.corpus} stopped ({error}); mend that {again}")


class _PartRun:
    def __init__(self, job: Job, part: Part, on_step: OnStep, limit: int | None) -> None:
        self.job, self.part, self.on_step = job, part, on_step
        self.notes = read_notes(job.out, part)
        self.written = sum(note["shard"]["clips"] for note in self.notes if note["shard"])
        self.limit = limit
        self.number = len(self.notes)
        self.shard: Shard | None = None
        self.consumed = 0
        self.behind = self.notes[-1]["consumed"] if self.notes else 0
        self.tally = Tally()
        self.step = Step()

    def run(self) -> None:
        if self.notes and self.notes[-1]["last"]:
            self.on_step(Step(weight=self.part.weight))
            return
        corpus = CORPORA[self.job.corpus]
        reader = ClipReader(corpus.name, corpus.licence)
        seen: set[str] = set()
        try:
            with closing(Plan(self.job.out / WORK / PLAN)) as plan:
                for item in self._items(plan):
                    again = isinstance(item, SourceClip) and item.key in seen
                    if isinstance(item, SourceClip):
                        seen.add(item.key)
                    if self.consumed >= self.behind:
                        self._take(item, again, reader)
                        if self.on_step(self._next_step()):
                            return
                    self.consumed += 1
                    if self.limit is not None and self.written >= self.limit:
                        break
            self._close_shard(last=True)
            self.on_step(self._next_step())
        finally:
            reader.close()
            if self.shard is not None:
                self.shard.abandon()

    def _items(self, plan: Plan) -> Iterator[SourceClip | Skipped]:
        corpus = CORPORA[self.job.corpus]
        for payload, weight in plan.units(self.part):
            yield from corpus.clips(self.job.root, payload, plan)
            self.step.weight += weight

    def _next_step(self) -> Step:
        step, self.step = self.step, Step()
        return step

    def _take(self, item: SourceClip | Skipped, again: bool, reader: ClipReader) -> None:
        result: list[Sample] | Skipped
        if isinstance(item, Skipped):
            result = item
        elif again:
            result = Skipped(file=item.file, reason=DUPLICATE)
        else:
            result = reader.read(item)
        samples = [] if isinstance(result, Skipped) else result
        if self.limit is not None:
            samples = samples[: self.limit - self.written]
        if self.shard is not None and self._is_full(samples):
            self._close_shard(last=False)
        self.tally.read += isinstance(item, SourceClip)
        if isinstance(result, Skipped):
            self.tally.skip(result)
        elif len(result) > 1:
            self.tally.pieces(len(samples))
        for sample in samples:
            if self.shard is None:
                name = f"{self.job.corpus}-{self.part.name}-{self.number:06d}.tar"
                self.shard = Shard(self.job.out, name)
            self.shard.add(sample)
            self.tally.add(sample.record)
        self.written += len(samples)
        self.step.clips += len(samples)

    def _is_full(self, samples: list[Sample]) -> bool:
        assert self.shard is not None
        size = self.shard.bytes + sum(map(size_in_tar, samples))
        clips = self.shard.clips + len(samples)
        return size > self.job.shard_bytes or clips > self.job.shard_clips

    def _close_shard(self, *, last: bool) -> None:
        entry = None if self.shard is None else self.shard.finish()
        self.shard = None
        note = {
            "shard": entry,
            "consumed": self.consumed,
            "last": last,
            "tally": self.tally.to_json(),
        }
        write_whole(_note_path(self.job.out, self.part, self.number), json.dumps(note))
        self.number += 1
        self.tally = Tally()

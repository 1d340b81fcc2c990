"""Works through one chunk of an ingest: clips in, complete shards out, resumed exactly.

Each shard has a note: the number of source clips consumed up to its end, and the counts on the
way. A chunk resumes after its last note. A shard without a note is written again, with the same
bytes. A note after each clip would cost a disk flush per clip.
"""

import dataclasses
import errno
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from unison_audio.data.corpora import CORPORA
from unison_audio.data.corpora.source import DUPLICATE, Skipped, SourceClip
from unison_audio.data.prepare.clip import ClipReader, EncodedClip
from unison_audio.data.prepare.corpus_counts import CorpusCounts
from unison_audio.data.prepare.plan import Chunk, IngestPlan
from unison_audio.data.prepare.shard_writer import WORK, ShardWriter, size_in_tar, write_durably
from unison_audio.errors import InputError

PLAN = "plan.sqlite"

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class IngestJob:
    """The settings that all chunks of an ingest share."""

    corpus: str
    """Name of the corpus, a key of `CORPORA`."""
    root: Path
    """Folder of the published corpus."""
    out: Path
    """Folder of the shards."""
    shard_bytes: int
    """Most bytes of a shard; a single clip may exceed it."""
    shard_clips: int
    """Most clips of a shard."""


OnStep = Callable[[int, float], bool]
"""Called with the clips written and the weight of the units finished since the last call; returns
True to stop."""


def read_notes(out: Path, chunk: Chunk) -> list[dict[str, Any]]:
    """Reads the notes of a chunk in order; the last one says whether the chunk is done."""
    notes: list[dict[str, Any]] = []
    while (path := _note_path(out, chunk, len(notes))).is_file():
        note = json.loads(path.read_text("utf-8"))
        if note["shard"] and not (out / note["shard"]["name"]).is_file():
            break  # the shard was deleted: it is written again
        notes.append(note)
    return notes


def _note_path(out: Path, chunk: Chunk, number: int) -> Path:
    return out / WORK / f"{chunk.name}-{number:06d}.json"


def run_chunk(job: IngestJob, chunk: Chunk, on_step: OnStep, limit: int | None = None) -> None:
    """Works through a chunk, or the rest of it after an interruption.

    Args:
        job: The ingest.
        chunk: A chunk of its plan.
        on_step: Called after each clip.
        limit: Most clips to write; None for all.

    Raises:
        InputError: If the disk is full, a folder cannot be read, or a package is missing.
    """
    try:
        _ChunkRun(job, chunk, on_step, limit).run()
    except (OSError, sqlite3.Error) as error:
        raise stopped(job, error) from error


def stopped(job: IngestJob, error: OSError | sqlite3.Error) -> InputError:
    """The error for a full disk, a lost folder or a damaged plan, with the way to resume."""
    again = "and run the same command again to resume"
    full = isinstance(error, OSError) and error.errno in _FULL
    if full or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return InputError(f"The disk with {job.out} is full; make room {again}.")
    if isinstance(error, sqlite3.Error):
        plan = job.out / WORK / PLAN
        return InputError(f"{plan} cannot be used ({error}); delete {job.out} and start again.")
    reason = error.strerror or str(error)
    where = f" at {error.filename}" if error.filename else ""
    return InputError(f"The ingest of {job.corpus} stopped{where} ({reason}); repair that {again}.")


class _ChunkRun:
    def __init__(self, job: IngestJob, chunk: Chunk, on_step: OnStep, limit: int | None) -> None:
        self.job, self.chunk, self.on_step = job, chunk, on_step
        self.notes = read_notes(job.out, chunk)
        self.written = sum(note["shard"]["clips"] for note in self.notes if note["shard"])
        self.limit = limit
        self.number = len(self.notes)
        self.shard: ShardWriter | None = None
        self.consumed = 0
        self.resume_at = self.notes[-1]["consumed"] if self.notes else 0
        self.counts = CorpusCounts()
        # Since the last step, for the progress.
        self.new_clips, self.new_weight = 0, 0.0

    def run(self) -> None:
        if self.notes and self.notes[-1]["last"]:
            self.on_step(0, self.chunk.weight)
            return
        corpus = CORPORA[self.job.corpus]
        reader = ClipReader(corpus.name, corpus.licence)
        seen: set[str] = set()
        try:
            with closing(IngestPlan(self.job.out / WORK / PLAN)) as plan:
                for item in self._items(plan):
                    # Clips before the resume point are listed again but not decoded: their keys
                    # tell which later clips are duplicates.
                    again = isinstance(item, SourceClip) and item.key in seen
                    if isinstance(item, SourceClip):
                        seen.add(item.key)
                    if self.consumed >= self.resume_at:
                        self._take(item, again, reader)
                        if self._report():
                            return
                    self.consumed += 1
                    if self.limit is not None and self.written >= self.limit:
                        break
            self._close_shard(last=True)
            self._report()
        finally:
            reader.close()
            if self.shard is not None:
                self.shard.abandon()

    def _items(self, plan: IngestPlan) -> Iterator[SourceClip | Skipped]:
        corpus = CORPORA[self.job.corpus]
        for payload, weight in plan.units(self.chunk):
            yield from corpus.clips(self.job.root, payload, plan)
            self.new_weight += weight

    def _report(self) -> bool:
        clips, weight = self.new_clips, self.new_weight
        self.new_clips, self.new_weight = 0, 0.0
        return self.on_step(clips, weight)

    def _take(self, item: SourceClip | Skipped, again: bool, reader: ClipReader) -> None:
        result: list[EncodedClip] | Skipped
        if isinstance(item, Skipped):
            result = item
        elif again:
            result = Skipped(file=item.file, reason=DUPLICATE)
        else:
            result = reader.read(item)
        clips = [] if isinstance(result, Skipped) else result
        if self.limit is not None:
            clips = clips[: self.limit - self.written]
        # Before the clips are counted: the note of the full shard must not include them. The pieces
        # of a sound stay in one shard, since a note counts whole source clips.
        if self.shard is not None and self._is_full(clips):
            self._close_shard(last=False)
        self.counts.read += isinstance(item, SourceClip)
        if isinstance(result, Skipped):
            self.counts.skip(result)
        elif len(result) > 1:
            self.counts.pieces(len(clips))
        for clip in clips:
            if self.shard is None:
                name = f"{self.job.corpus}-{self.chunk.name}-{self.number:06d}.tar"
                self.shard = ShardWriter(self.job.out, name)
            self.shard.add(clip)
            self.counts.add(clip.record)
        self.written += len(clips)
        self.new_clips += len(clips)

    def _is_full(self, clips: list[EncodedClip]) -> bool:
        assert self.shard is not None
        size = self.shard.bytes + sum(map(size_in_tar, clips))
        count = len(self.shard.records) + len(clips)
        return size > self.job.shard_bytes or count > self.job.shard_clips

    def _close_shard(self, *, last: bool) -> None:
        entry = None if self.shard is None else self.shard.finish()
        self.shard = None
        note = {
            "shard": entry,
            "consumed": self.consumed,
            "last": last,
            # The key is that of existing ingests, which must stay resumable.
            "tally": self.counts.to_json(),
        }
        write_durably(_note_path(self.job.out, self.chunk, self.number), json.dumps(note))
        self.number += 1
        self.counts = CorpusCounts()

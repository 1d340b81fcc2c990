"""Turns a published corpus into shards and an index, in parallel and resumable.

The shards are `{corpus}-{chunk}-{number}.tar` in WebDataset's layout. They hold
`{key}.{flac|wav|mp3|ogg}` with the published bytes, and `{key}.json` with the fields of
`ClipRecord`. Segments, pieces of long sounds and formats that libsndfile cannot read become FLAC.
`broken.jsonl` lists every damaged file. `index.json` is written last, so a folder with an index is
complete. Until then the folder `.ingest` holds the files that a resume needs.
"""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

from unison_audio.cluster import Cluster
from unison_audio.data.corpora import CORPORA
from unison_audio.data.corpora.folder import table_of
from unison_audio.data.corpora.source import NO_AUDIO
from unison_audio.data.prepare.cluster_chunks import run_on_cluster
from unison_audio.data.prepare.corpus_counts import CorpusCounts, index_of
from unison_audio.data.prepare.plan import Chunk, IngestPlan
from unison_audio.data.prepare.shard_writer import WORK, remove_partials, write_durably
from unison_audio.data.prepare.worker import (
    PLAN,
    IngestJob,
    read_notes,
    run_chunk,
    stopped,
)
from unison_audio.data.shards import INDEX_FILE
from unison_audio.errors import InputError
from unison_audio.files import file_hash, folder_of
from unison_audio.json_files import read_json
from unison_audio.locks import only_writer

FOLDER = "folder"
"""The corpus whose table is the user's own."""

SETTINGS = "settings.json"
"""What an unfinished ingest was started with."""

DAMAGED = "delete the shards and start again"

SHARD_BYTES, SHARD_CLIPS = 10**9, 5000

BROKEN_IN_INDEX = 100
"""Damaged files that the index names; `broken.jsonl` names all."""

_EVERY = 0.5
"""Seconds between two reports of progress."""

_CLIPS, _DONE, _STOP = range(3)


OnProgress = Callable[[int, float], None]
"""Called with the clips written in this run, and the share of the work done, from 0 to 1."""


def ingest(
    name: str,
    root: Path,
    out: Path,
    *,
    workers: int | Cluster | None = None,
    shard_bytes: int = SHARD_BYTES,
    shard_clips: int = SHARD_CLIPS,
    limit: int | None = None,
    on_progress: OnProgress | None = None,
) -> Path:
    """Writes a published corpus as shards, or resumes an interrupted run.

    After a kill, a full disk or a lost machine, the same call resumes. The result has the same
    bytes as that of an uninterrupted run.

    Args:
        name: Name of the corpus, a key of `CORPORA`.
        root: Folder of the corpus as it was published.
        out: Folder of the shards, outside of `root`.
        workers: Number of processes, or a cluster that runs them; None for one per core.
        shard_bytes: Most bytes of a shard.
        shard_clips: Most clips of a shard.
        limit: Most clips to write, in one process; None for all.
        on_progress: Called about twice a second.

    Returns:
        Path of the index.

    Raises:
        InputError: If a name, folder or number cannot be used, the root is not in the corpus's
            layout, another ingest works on `out`, the disk is full, or a worker was killed.
    """
    if workers is None:
        workers = os.cpu_count() or 1
    if isinstance(workers, Cluster) and limit is not None:
        raise InputError(f"A limit of {limit} clips takes one process; leave out it or the cluster")
    settings: dict[str, Any] = {
        "shard_bytes": shard_bytes,
        "shard_clips": shard_clips,
        "limit": limit,
    }
    _check(name, root, out, {"workers": workers if isinstance(workers, int) else None, **settings})
    if name == FOLDER:  # a folder of shards never answers for another table
        settings["table"] = file_hash(table_of(root))
    job = IngestJob(
        corpus=name, root=root, out=out, shard_bytes=shard_bytes, shard_clips=shard_clips
    )
    index = out / INDEX_FILE
    if index.is_file():
        _compare(out, read_json(index, DAMAGED), {"corpus": name, **settings})
        # A kill between the index and this line left the folder.
        shutil.rmtree(out / WORK, ignore_errors=True)
        return index
    try:
        with folder_of(out / WORK / SETTINGS), only_writer(out / WORK, "ingest"):
            _begin(out, {"corpus": name, **settings})
            chunks = _plan(job)
            reporter = _Reporter(on_progress, sum(chunk.weight for chunk in chunks))
            if isinstance(workers, Cluster):
                run_on_cluster(job, chunks, workers, reporter.add)
                remove_partials(out)  # of workers that died
            # A limit counts over chunks in their order, so it needs one process.
            elif limit is not None or workers == 1 or len(chunks) < 2:
                _run_here(job, chunks, limit, reporter)
            else:
                _run_in_processes(job, chunks, min(workers, len(chunks)), reporter)
            reporter.report(last=True)
            _write_index(job, chunks, settings)
    except (OSError, sqlite3.Error) as error:
        raise stopped(job, error) from error
    shutil.rmtree(out / WORK, ignore_errors=True)
    return index


def _check(name: str, root: Path, out: Path, numbers: dict[str, int | None]) -> None:
    if name not in CORPORA:
        raise InputError(f"There is no corpus {name}; choose one of {', '.join(CORPORA)}")
    if not root.is_dir():
        raise InputError(f"The corpus' folder {root} does not exist; give the folder it is in")
    if out.resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"The shards' folder {out} lies in the corpus' folder {root}, where they would be "
            "taken for a part of it; choose a folder outside"
        )
    for what, number in numbers.items():
        if number is not None and number < 1:
            raise InputError(f"{what} is {number}; it must be at least 1")


def _compare(out: Path, found: dict[str, Any], settings: dict[str, Any]) -> None:
    if not isinstance(found, dict):
        raise InputError(f"{out} holds something else than shards; {DAMAGED}")
    for what, wanted in settings.items():
        if what not in found:  # of an earlier version
            continue
        if what == "table" and found[what] != wanted:
            raise InputError(
                f"{out} was written from another table, or the table has changed since; restore "
                "the old one, or delete the shards and start again"
            )
        if found[what] != wanted:
            raise InputError(
                f"{out} was written with {what} {found[what]}, not {wanted}; use that, or "
                "choose another folder"
            )


def _begin(out: Path, settings: dict[str, Any]) -> None:
    path = out / WORK / SETTINGS
    if path.is_file():
        _compare(out, read_json(path, DAMAGED), settings)
    else:
        write_durably(path, json.dumps(settings))
    for folder in (out, out / WORK):
        remove_partials(folder)


def _plan(job: IngestJob) -> list[Chunk]:
    path = job.out / WORK / PLAN
    if not path.is_file():
        unfinished = path.with_name(f"{PLAN}.{os.getpid()}.partial")
        try:
            with contextlib.closing(IngestPlan(unfinished)) as plan:
                plan.fill(CORPORA[job.corpus], job.root)
            unfinished.replace(path)
        except BaseException:
            # Without a plan nothing was written that another table could not use.
            path.with_name(SETTINGS).unlink(missing_ok=True)
            remove_partials(path.parent)
            raise
    with contextlib.closing(IngestPlan(path)) as plan:
        return plan.chunks()


class _Reporter:
    """Counts of all processes, and the reports of progress made from them."""

    def __init__(self, on_progress: OnProgress | None, weight: float) -> None:
        self._on_progress = on_progress
        self._weight = max(weight, 1e-9)
        self._reported = time.monotonic()
        self.counts = multiprocessing.get_context().Array("d", 3)

    def add(self, clips: int, weight: float) -> bool:
        """Counts a step of this process, and never stops it."""
        _add(self.counts, clips, weight)
        self.report()
        return False

    def report(self, *, last: bool = False) -> None:
        """Reports the progress, unless the last report is recent."""
        now = time.monotonic()
        if self._on_progress is None or (now - self._reported < _EVERY and not last):
            return
        self._reported = now
        share = 1.0 if last else min(self.counts[_DONE] / self._weight, 1.0)
        self._on_progress(int(self.counts[_CLIPS]), share)


def _add(counts: Any, clips: int, weight: float) -> bool:
    """Counts a step; True asks the process to stop."""
    with counts.get_lock():
        counts[_CLIPS] += clips
        counts[_DONE] += weight
        return bool(counts[_STOP])


def _run_here(job: IngestJob, chunks: list[Chunk], limit: int | None, reporter: _Reporter) -> None:
    for chunk in chunks:
        run_chunk(job, chunk, reporter.add, limit)
        if limit is not None:
            notes = read_notes(job.out, chunk)
            limit -= sum(note["shard"]["clips"] for note in notes if note["shard"])
            if limit <= 0:
                break


_shared: Any = None  # a worker gets the counts when it starts: a task cannot carry them


def _start_worker(counts: Any, parent: int) -> None:
    global _shared
    _shared = counts
    # An interrupt reaches all processes of the terminal. The parent asks the workers to stop, so
    # that each can finish its step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        # A killed parent cannot ask. Workers that go on would write beside those of the next run.
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _work(job: IngestJob, chunk: Chunk) -> None:
    run_chunk(job, chunk, partial(_add, _shared))


def _run_in_processes(
    job: IngestJob, chunks: list[Chunk], workers: int, reporter: _Reporter
) -> None:
    pool = ProcessPoolExecutor(
        workers, initializer=_start_worker, initargs=(reporter.counts, os.getpid())
    )
    waiting = iter(chunks)
    running: set[Future[None]] = set()
    try:
        while True:
            # Two chunks per worker: one in work and one ready. More would only cost memory.
            while len(running) < 2 * workers and (chunk := next(waiting, None)) is not None:
                running.add(pool.submit(_work, job, chunk))
            if not running:
                return
            done, running = wait(running, timeout=_EVERY, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            reporter.report()
    except BrokenProcessPool as error:
        raise InputError(
            "A worker was killed, perhaps for lack of memory; run the same command again with "
            "fewer workers to resume"
        ) from error
    finally:
        reporter.counts[_STOP] = 1.0
        pool.shutdown(wait=True, cancel_futures=True)


def _write_index(job: IngestJob, chunks: list[Chunk], settings: dict[str, Any]) -> None:
    total = CorpusCounts()
    shards: list[dict[str, Any]] = []
    named: list[dict[str, str]] = []
    broken = 0
    unfinished = job.out / WORK / f"broken.jsonl.{os.getpid()}.partial"
    with (
        contextlib.closing(IngestPlan(job.out / WORK / PLAN)) as plan,
        unfinished.open("w") as listing,
    ):

        def name(file: str, reason: str) -> None:
            nonlocal broken
            entry = {"file": file, "reason": reason}
            listing.write(json.dumps(entry) + "\n")
            broken += 1
            if len(named) < BROKEN_IN_INDEX:
                named.append(entry)

        total.removed.update(plan.noted("removed"))
        for entry in plan.broken():
            name(*entry)
        for chunk in chunks:
            for note in read_notes(job.out, chunk):
                counts = CorpusCounts(**note["tally"])
                total.merge(counts)
                shards += [note["shard"]] if note["shard"] else []
                for file, reason in counts.broken:
                    name(file, reason)
        # A row whose audio was not downloaded never becomes a unit, so only the difference tells.
        if CORPORA[job.corpus].rows_are_clips and settings["limit"] is None:
            total.removed[NO_AUDIO] += max(0, plan.published() - total.read)
    unfinished.replace(job.out / "broken.jsonl")
    index = index_of(
        job.corpus,
        CORPORA[job.corpus].licence,
        total,
        shards,
        {"broken_files": broken, "broken": named, **settings},
    )
    if not index["clips"]:
        raise InputError(
            f"No clip of {job.corpus} could be used: removed {index['removed']}, broken {broken} "
            f"(listed in {job.out / 'broken.jsonl'}); see what {job.root} holds, delete {job.out} "
            "and start again"
        )
    write_durably(job.out / INDEX_FILE, json.dumps(index, indent=1) + "\n")

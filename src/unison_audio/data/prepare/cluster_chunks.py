"""Works through the chunks of an ingest on a cluster, whose machines see the same folders."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from unison_audio.cluster import MOST_LOSSES, Cluster, LostJob, workers_of
from unison_audio.data.prepare.plan import Chunk
from unison_audio.data.prepare.worker import IngestJob, read_notes, run_chunk
from unison_audio.errors import InputError


def run_on_cluster(
    job: IngestJob,
    chunks: Sequence[Chunk],
    cluster: Cluster,
    on_chunk: Callable[[int, float], object],
) -> None:
    """Works through chunks. A worker that dies is replaced, and resumes after its last shard.

    Args:
        job: The ingest.
        chunks: The chunks of its plan.
        cluster: Where the workers run.
        on_chunk: Called after each chunk with the clips written in it and its weight.

    Raises:
        InputError: If the cluster cannot be used, workers die with one chunk again and again, or
            for the reasons of `run_chunk`.
    """
    calls = [partial(_work_through, job, chunk) for chunk in chunks]
    with workers_of(cluster, partial(_enter, Path.cwd())) as workers:
        for number, clips in workers.run(calls):
            if isinstance(clips, LostJob):
                raise InputError(
                    f"{MOST_LOSSES} workers died one after the other ({clips.reason}), perhaps for "
                    "lack of memory; run the same command again with fewer workers to resume"
                )
            on_chunk(clips, chunks[number].weight)


def _enter(folder: Path) -> None:
    os.chdir(folder)  # names of folders may be relative to it


def _work_through(job: IngestJob, chunk: Chunk, state: None) -> int:
    """Number of clips written."""
    before = _clips(job, chunk)
    run_chunk(job, chunk, lambda clips, weight: False)
    return _clips(job, chunk) - before


def _clips(job: IngestJob, chunk: Chunk) -> int:
    return sum(note["shard"]["clips"] for note in read_notes(job.out, chunk) if note["shard"])

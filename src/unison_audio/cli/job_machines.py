"""Where the jobs of a batch run: in this process, or on a cluster whose workers hold the model.

The log is written by this process alone, in both cases.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from unison_audio.checkpoint_files import OpenCheckpoint, content_hash, open_checkpoint
from unison_audio.cli.job_file import GenerationJob, at_line
from unison_audio.cli.jobs import BatchRun, check_job, make_job
from unison_audio.cli.options import ClusterFlags, MachineFlags
from unison_audio.cluster import MOST_LOSSES, LostJob, Workers, workers_of
from unison_audio.errors import InputError
from unison_audio.locks import process_name

if TYPE_CHECKING:
    from unison_audio.pipeline import Unison

OnBegin = Callable[[GenerationJob], None]
"""Called with each job before it begins."""

Made = Iterator[tuple[GenerationJob, dict[str, Any]]]
"""Jobs in the order in which they end, with their entries for the log."""


class JobMachine(Protocol):
    """What runs the jobs."""

    def check(self, path: Path, jobs: Sequence[GenerationJob]) -> None:
        """Check the recordings of jobs by decoding them.

        Args:
            path: The file that the jobs are from.
            jobs: Result of `read_jobs`.

        Raises:
            InputError: If one cannot be used; the message begins with the file and the line.
        """
        ...

    def make(self, jobs: Sequence[GenerationJob], folder: Path, begin: OnBegin) -> Made:
        """Make the sounds of jobs.

        Args:
            jobs: The jobs.
            folder: Folder of the outputs.
            begin: Called with each job before it begins.
        """
        ...


@contextmanager
def job_machine(
    opened: OpenCheckpoint, run: BatchRun, machine: MachineFlags, cluster: ClusterFlags
) -> Iterator[JobMachine]:
    """Load the model here, or on the workers of a cluster.

    Args:
        opened: The checkpoint.
        run: What all jobs share.
        machine: Where and how the models run.
        cluster: The cluster, if any.

    Raises:
        InputError: If the model or the cluster cannot be used.
    """
    found = cluster.cluster(gpus=1.0 if machine.device.startswith("cuda") else 0.0)
    if found is None:
        yield _Here(machine.open(opened))
        return
    import torch

    config = JobWorker(
        variant=run.variant,
        weights=run.weights,
        machine=machine,
        threads=torch.get_num_threads(),
        folder=Path.cwd(),
    )
    with workers_of(found, partial(open_model, config)) as workers:
        yield _OnCluster(workers)


@dataclass(frozen=True, kw_only=True)
class JobWorker:
    """What each worker loads, so that it answers as this process would."""

    variant: str
    """A variant's name, a checkpoint's folder, or owner/name on the hub."""
    weights: str
    """Hash of the weights, see `checkpoint_files.content_hash`."""
    machine: MachineFlags
    """Where and how the models run."""
    threads: int
    """Threads of a CPU. The last bits of a sound may depend on their number."""
    folder: Path
    """Working folder: names of folders are relative to it."""


def open_model(config: JobWorker) -> "Unison":
    """Load a worker's model, in its process.

    Raises:
        InputError: If it cannot be loaded, or has other weights.
    """
    import torch

    os.chdir(config.folder)
    torch.set_num_threads(config.threads)
    opened = open_checkpoint(config.variant)
    if content_hash(opened.folder) != config.weights:
        raise InputError(
            f"The weights of {config.variant} that {process_name()} has are not those of this "
            "machine; give all machines the same."
        )
    return config.machine.open(opened)


class _Here:
    """Runs jobs in this process, one by one."""

    def __init__(self, unison: "Unison") -> None:
        self._unison = unison

    def check(self, path: Path, jobs: Sequence[GenerationJob]) -> None:
        for job in jobs:
            with at_line(path, job):
                check_job(self._unison, job)

    def make(self, jobs: Sequence[GenerationJob], folder: Path, begin: OnBegin) -> Made:
        for job in jobs:
            begin(job)
            yield job, make_job(self._unison, job, folder)


class _OnCluster:
    """Runs jobs on workers whose state is `open_model`'s."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def check(self, path: Path, jobs: Sequence[GenerationJob]) -> None:
        found = dict(self._workers.run([partial(_check, job) for job in jobs]))
        for number, job in enumerate(jobs):
            fault = found[number]
            with at_line(path, job):
                if isinstance(fault, LostJob):
                    raise InputError(_lost(fault))
                if fault:
                    raise InputError(fault)

    def make(self, jobs: Sequence[GenerationJob], folder: Path, begin: OnBegin) -> Made:
        calls = [partial(_make, job, folder.resolve()) for job in jobs]
        for number, result in self._workers.run(calls, lambda number: begin(jobs[number])):
            if isinstance(result, LostJob):
                yield jobs[number], {"error": _lost(result)}
                continue
            yield jobs[number], result


def _check(job: GenerationJob, unison: "Unison") -> str:
    """What is wrong with a job's recordings; empty if nothing is."""
    try:
        check_job(unison, job)
    except InputError as error:
        return str(error)
    return ""


def _make(job: GenerationJob, folder: Path, unison: "Unison") -> dict[str, Any]:
    return make_job(unison, job, folder)


def _lost(job: LostJob) -> str:
    return (
        f"{MOST_LOSSES} workers died with this job, perhaps for lack of memory ({job.reason}); use "
        "fewer workers, or see Ray's logs."
    )

"""Spreads jobs over processes and machines through Ray, or runs them in this process."""

import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from unison_audio.errors import InputError

R = TypeVar("R")

LOCAL = "local"
"""The address that starts Ray on this machine for one call."""

REACH_SECONDS = 10.0
"""Seconds until an unreachable cluster is refused."""

MOST_LOSSES = 3
"""Workers that may die with a job, or one after the other at their start."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where work is spread."""

    address: str
    """As `spread` takes it."""
    workers: int | None = None
    """Processes; None for one per core of the cluster."""
    gpus: float = 0.0
    """GPUs that each takes; a fraction is possible."""

    def __post_init__(self) -> None:
        """Check the number."""
        if self.workers is not None and self.workers < 1:
            raise InputError(f"workers is {self.workers}; it must be at least 1.")


@dataclass(frozen=True)
class LostJob:
    """A job whose worker died."""

    reason: str
    """As Ray tells it."""


class Workers:
    """Processes of a cluster that each hold a state, such as a loaded model.

    A worker that dies is replaced, and its job is done again. Machines of a cluster must see the
    same folders under the same paths.

    Args:
        ray: The package, connected.
        setup: Makes the state of a worker, in its process; can be pickled.
        cluster: Where they run.
    """

    def __init__(self, ray: Any, setup: Callable[[], Any], cluster: Cluster) -> None:
        total = ray.cluster_resources()
        if total.get("GPU", 0.0) < cluster.gpus:
            raise InputError(
                f"A worker takes {cluster.gpus:g} GPU and the cluster has {total.get('GPU', 0):g}; "
                "use --device cpu, or another cluster."
            )
        self.count = cluster.workers or max(1, int(total.get("CPU", 1.0)))
        self._ray, self._setup = ray, setup
        # Ray fills one machine after the other by default; a model wants a machine of its own.
        self._remote = ray.remote(_Worker).options(
            num_cpus=1, num_gpus=cluster.gpus, scheduling_strategy="SPREAD"
        )
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, int]] = {}
        self._failed_starts = 0

    def run(
        self,
        jobs: Sequence[Callable[[Any], R]],
        begin: Callable[[int], None] = lambda number: None,
    ) -> Iterator[tuple[int, R | LostJob]]:
        """Run jobs, in any order.

        Args:
            jobs: Partial calls of a module's functions, which take the worker's state last; calls
                and results can be pickled.
            begin: Called with the number of each job before it is first given to a worker.

        Yields:
            The number of a job and its result, in the order in which they end.

        Raises:
            InputError: A job or a setup raised it, or workers die at their start.
        """
        waiting, losses = deque(range(len(jobs))), Counter[int]()
        while waiting or self._busy:
            while len(self._starting) + len(self._idle) + len(self._busy) < min(
                self.count, len(waiting) + len(self._busy)
            ):
                worker = self._remote.remote(self._setup)
                self._starting[worker.set_up.remote()] = worker
            # Only workers that are up get a job: others may wait for a free core for ever.
            while waiting and self._idle:
                number, worker = waiting.popleft(), self._idle.pop()
                if not losses[number]:
                    begin(number)
                self._busy[worker.run.remote(jobs[number])] = (worker, number)
            done, _ = self._ray.wait([*self._busy, *self._starting], num_returns=1)
            reference = done[0]
            if reference in self._starting:
                worker = self._starting.pop(reference)
                self._note_start(worker, _result(self._ray, reference))
                continue
            worker, number = self._busy.pop(reference)
            result = _result(self._ray, reference)
            if not isinstance(result, LostJob):
                self._idle.append(worker)
                yield number, result
                continue
            self._ray.kill(worker)  # where only the connection was lost
            losses[number] += 1
            if losses[number] < MOST_LOSSES:
                waiting.appendleft(number)
            else:
                yield number, result

    def close(self) -> None:
        """End the processes."""
        busy = [worker for worker, _ in self._busy.values()]
        for worker in (*self._idle, *self._starting.values(), *busy):
            self._ray.kill(worker)

    def _note_start(self, worker: Any, result: Any) -> None:
        if not isinstance(result, LostJob):
            self._failed_starts = 0
            self._idle.append(worker)
            return
        self._failed_starts += 1
        if self._failed_starts == MOST_LOSSES:
            raise InputError(
                f"{MOST_LOSSES} workers died at their start ({result.reason}), perhaps for lack of "
                "memory; use fewer workers, or see Ray's logs."
            )


@contextmanager
def workers_of(cluster: Cluster, setup: Callable[[], Any]) -> Iterator[Workers]:
    """Start workers on a cluster, and end them.

    Args:
        cluster: Where.
        setup: Makes the state of a worker, in its process; can be pickled.

    Raises:
        InputError: Ray is missing, or the cluster cannot be reached or lacks GPUs.
    """
    with connected(cluster.address, cluster.workers or os.cpu_count() or 1):
        workers = Workers(require_ray(), setup, cluster)
        try:
            yield workers
        finally:
            workers.close()


class _Worker:
    """A process of a cluster with its state."""

    def __init__(self, setup: Callable[[], Any]) -> None:
        self._setup, self._state = setup, None

    def set_up(self) -> None:
        # Not in the constructor: Ray reports an error there as the death of the process.
        self._state = self._setup()

    def run(self, job: Callable[[Any], R]) -> R:
        return job(self._state)


def _result(ray: Any, reference: Any) -> Any:
    """A call's result; a `LostJob` where its process died.

    Raises:
        InputError: The call raised it.
    """
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        _raise_input_error(error)
        raise
    except ray.exceptions.RayError as error:
        return LostJob(str(error).splitlines()[0] if str(error) else type(error).__name__)


def _raise_input_error(error: Any) -> None:
    # Ray wraps exceptions of workers with a remote traceback; a user's mistake must stay one
    # sentence and exit code 2.
    if isinstance(error.cause, InputError):
        raise InputError(str(error.cause)) from error


def spread(
    jobs: Sequence[Callable[[], R]],
    *,
    ray_address: str | None = None,
    workers: int = 2,
    gpus: float = 0.0,
) -> list[R]:
    """Run several jobs.

    Machines of a cluster must see the same folders under the same paths. A worker's arithmetic has
    one thread where nothing else is set (OMP_NUM_THREADS); the last bits of a model's answers may
    depend on the number of threads, so compare runs of one number.

    Args:
        jobs: Partial calls of a module's functions, whose arguments and results can be pickled.
        ray_address: Address of a Ray cluster, "auto" for the one that this machine belongs to, or
            "local" for one that ends with this call. None runs all jobs in this process, one after
            another.
        workers: Concurrent Ray jobs.
        gpus: GPUs that each Ray job takes; a fraction is possible.

    Returns:
        The results, in the order of the jobs.

    Raises:
        InputError: Ray is missing, the cluster cannot be reached, or a job raised it.
    """
    if ray_address is None:
        return [job() for job in jobs]
    with connected(ray_address, workers):
        return _through(require_ray(), jobs, workers, gpus)


def _call(job: Callable[[], R]) -> R:
    return job()


@contextmanager
def connected(ray_address: str | None, workers: int) -> Iterator[None]:
    """Stay connected to a cluster, for several calls of `spread`.

    Args:
        ray_address: As `spread` takes it.
        workers: As `spread` takes it.

    Raises:
        InputError: Ray is missing or the cluster cannot be reached.
    """
    if ray_address is None:
        yield
        return
    ray = require_ray()
    if ray.is_initialized():  # the outer caller disconnects
        yield
        return
    _connect(ray, ray_address, workers)
    try:
        yield
    finally:
        ray.shutdown()


def _through(ray: Any, jobs: Sequence[Callable[[], R]], workers: int, gpus: float) -> list[R]:
    """Run as many jobs at a time as there are workers."""
    remote = ray.remote(_call).options(num_cpus=1, num_gpus=gpus)
    results: dict[int, R] = {}
    under_way: dict[Any, int] = {}
    waiting = list(enumerate(jobs))[::-1]
    # Ray would queue any number of tasks. Submitting no more than `workers` holds that limit on a
    # larger cluster, and leaves few jobs to cancel after an error.
    while waiting or under_way:
        while waiting and len(under_way) < workers:
            number, job = waiting.pop()
            under_way[remote.remote(job)] = number
        done, _ = ray.wait(list(under_way), num_returns=1)
        number = under_way.pop(done[0])
        try:
            results[number] = ray.get(done[0])
        except ray.exceptions.RayTaskError as error:
            for reference in under_way:
                ray.cancel(reference)
            _raise_input_error(error)
            raise
    return [results[number] for number in range(len(jobs))]


def _connect(ray: Any, address: str, workers: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False}
    if address == LOCAL:
        options |= {"num_cpus": workers, "include_dashboard": False}
    start_ray(ray, address, **options)


def start_ray(ray: Any, address: str | None, **options: Any) -> None:
    """Connect to a cluster, or start one on this machine.

    Args:
        ray: The package.
        address: Address of the cluster; "local" or None for one on this machine.
        **options: Further arguments of `ray.init`.

    Raises:
        InputError: The cluster cannot be reached or started.
    """
    try:
        host, _, port = (address or "").removeprefix("ray://").rpartition(":")
        if host and port.isdigit():  # Ray itself retries for minutes
            socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
        ray.init(address=address, **options)
    except Exception as error:  # Ray raises a plain one where its processes start too slowly
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if address in (None, LOCAL):
            raise InputError(
                f"Ray cannot be started on this machine ({reason}); try again when it is less "
                "busy, or leave Ray out."
            ) from error
        raise InputError(
            f"No Ray cluster can be reached at {address!r} ({reason}); check the address, or leave "
            "it out to do everything here."
        ) from error


def require_ray() -> Any:
    """Ray, the package.

    Raises:
        InputError: If it is missing.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise InputError(
            "Work on a cluster needs the package ray, which is missing; install it with: "
            "pip install 'unison-audio[cluster]'"
        ) from None
    return ray

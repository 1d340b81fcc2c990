"""Spreads jobs over processes and machines through Ray, or runs them in this process."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from unison_audio.errors import InputError

R = TypeVar("R")

LOCAL = "local"
"""The address that starts Ray on this machine for one call."""

REACH_SECONDS = 10.0
"""Seconds until an unreachable cluster is refused."""


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
        return _through(_ray(), jobs, workers, gpus)


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
    ray = _ray()
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
            # Ray wraps exceptions of workers with a remote traceback; a user's mistake must stay
            # one sentence and exit code 2.
            if isinstance(error.cause, InputError):
                raise InputError(str(error.cause)) from error
            raise
    return [results[number] for number in range(len(jobs))]


def _connect(ray: Any, address: str, workers: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"address": address, "log_to_driver": False}
    if address == LOCAL:
        options |= {"num_cpus": workers, "include_dashboard": False}
    try:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host and port.isdigit():  # Ray itself retries for minutes
            socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
        ray.init(**options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"No Ray cluster can be reached at {address!r} ({reason}); check the address, or leave "
            "it out to do everything here."
        ) from error


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        raise InputError(
            "Sharding needs the package ray, which is missing; install it with: "
            "pip install 'unison-audio[cluster]'"
        ) from None
    return ray

"""A model's process as the scheduler sees it: started, given batches, watched, ended."""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import wait

from unison_audio.errors import InputError
from unison_audio.sampling_params import SamplingParams
from unison_audio.server.model_worker import ModelAnswer, ModelCall, WorkerConfig, run_worker

STALL_SECONDS = 600.0
"""Seconds without a sign of life after which a worker counts as stuck. One step of a full-size
model on a CPU takes under a minute."""

_TICK = 0.2


class WorkerLostError(Exception):
    """The worker died or was stuck; its batch has no answer."""


class ModelProcess:
    """One worker process; `start` it before use, and again after it was lost.

    Args:
        config: What it loads.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self.memory_bytes = 0
        self._number = 0
        # Spawned: a forked child would inherit sockets, threads' locks and a used CUDA context.
        self._context = multiprocessing.get_context("spawn")

    @property
    def pid(self) -> int | None:
        """Number of the process."""
        return self._process.pid

    def start(self, stopping: Callable[[], bool]) -> None:
        """Start the process and wait until the model is loaded.

        Args:
            stopping: Whether the server stops meanwhile.

        Raises:
            InputError: The model cannot be loaded.
            WorkerLostError: The process died while loading, or the server stops.
        """
        self._connection, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=run_worker, args=(theirs, self.config), daemon=True, name="unison-model"
        )
        self._process.start()
        # Only the child holds that end now, so its death closes the pipe.
        theirs.close()
        try:
            while not self._connection.poll(_TICK):
                if stopping():
                    raise WorkerLostError("the server stops")
                # Asked again: a process that has just ended may have left its reason in the pipe.
                if not self._process.is_alive() and not self._connection.poll():
                    raise WorkerLostError("the worker died while it loaded the model")
            kind, reason = self._connection.recv()
        except (WorkerLostError, EOFError, OSError) as error:
            self.stop()
            raise WorkerLostError(str(error) or "the worker died while it loaded") from error
        if kind == "failed":
            self.stop()
            raise InputError(reason)

    def run(
        self,
        sampling: SamplingParams,
        calls: list[ModelCall],
        unwanted: Callable[[], bool],
        on_step: Callable[[int, int], None],
    ) -> list[ModelAnswer]:
        """Run one batch.

        Args:
            sampling: Sampling options of all calls.
            calls: The sounds to make.
            unwanted: Whether nobody waits for any of them any more.
            on_step: Called after each step with the steps done and the steps in all.

        Raises:
            WorkerLostError: The process died or was stuck.
        """
        self._number += 1
        aborted = False
        try:
            self._connection.send(("batch", self._number, sampling, calls))
            heard = time.monotonic()
            while True:
                wait([self._connection, self._process.sentinel], _TICK)
                if self._connection.poll():
                    kind, *rest = self._connection.recv()
                    heard = time.monotonic()
                    if kind == "done":
                        _, answers, self.memory_bytes = rest
                        return list(answers)
                    on_step(*rest)
                elif not self._process.is_alive():
                    raise WorkerLostError("the worker died")
                elif time.monotonic() - heard > STALL_SECONDS:
                    raise WorkerLostError("the worker gave no sign of life")
                if not aborted and unwanted():
                    self._connection.send(("abort", self._number))
                    aborted = True
        except (EOFError, OSError) as error:
            raise WorkerLostError("the worker died") from error

    def stop(self) -> None:
        """End the process: at once, since it keeps nothing that could be lost."""
        self._connection.close()
        self._process.kill()
        self._process.join(10)

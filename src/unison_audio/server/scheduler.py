"""The scheduler: a bounded queue of sounds, and one thread a device that feeds its worker."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from unison_audio.errors import InputError
from unison_audio.server.batching import CancelledError, QueuedCall, Ticket, choose_batch
from unison_audio.server.limits import Limits
from unison_audio.server.model_worker import ModelAnswer, WorkerConfig
from unison_audio.server.telemetry import Telemetry
from unison_audio.server.worker_process import ModelProcess, WorkerLostError

GATHER_SECONDS = 0.005
"""Time to wait for company before a batch starts."""

MAX_LOST = 2
"""Workers that may die with a call; then it is answered with an error."""

RESTART_SECONDS = (0.0, 1.0, 5.0, 30.0)
"""Pauses before the worker is started again, by the number of failures in a row."""

log = logging.getLogger(__name__)


class BusyError(Exception):
    """The server has as many requests as it takes.

    Args:
        retry_after: Seconds after which one is probably done.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__("the queue is full")
        self.retry_after = retry_after


class Scheduler:
    """Admits requests, forms batches, and hands them to the workers.

    Args:
        workers: What each worker loads, one a device.
        limits: Limits of the queue and of the batches.
        telemetry: Where figures go.
        on_unusable: Called with the reason when a worker's model cannot be loaded at the first
            start: what is wrong then does not pass by itself.
    """

    def __init__(
        self,
        workers: Sequence[WorkerConfig],
        limits: Limits,
        telemetry: Telemetry,
        on_unusable: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.limits, self.telemetry, self._on_unusable = limits, telemetry, on_unusable
        self.failure = ""
        self._changed = threading.Condition()
        self._queue: list[QueuedCall] = []
        self._tickets: set[Ticket] = set()
        self._ready = 0
        self._stopping = False
        self._seconds_a_request = 5.0
        self._answers = ThreadPoolExecutor(1, "unison-answers")
        self._processes = [ModelProcess(config) for config in workers]
        self._threads = [
            threading.Thread(target=self._feed, args=(process,), daemon=True, name="unison-feeder")
            for process in self._processes
        ]

    def start(self) -> None:
        """Start the workers; `ready` becomes true when a model is loaded."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the workers; calls that still wait fail."""
        with self._changed:
            self._stopping = True
            waiting, self._queue = self._queue, []
            self._changed.notify_all()
        # Outside the lock: whoever waits for a future wakes up and calls `release`, which takes it.
        for one in waiting:
            one.future.set_exception(WorkerLostError("the server stops"))
        for thread in self._threads:
            thread.join(10)
        self._answers.shutdown()

    @property
    def ready(self) -> bool:
        """Whether a worker has its model loaded."""
        return self._ready > 0 and not self._stopping

    def standing(self, request_id: str) -> tuple[int, int, int | None]:
        """How many requests are admitted, how many sounds wait, and how many before a request's.

        Args:
            request_id: The request.

        Returns:
            The third number is 0 for a request without waiting sounds, None for an unknown one.
        """
        with self._changed:
            active, queue = len(self._tickets), sorted(self._queue, key=lambda one: one.turn)
            known = any(ticket.request_id == request_id for ticket in self._tickets)
        names = [one.ticket.request_id for one in queue]
        if not known:
            return active, len(names), None
        return active, len(names), names.index(request_id) if request_id in names else 0

    def steps(self, request_id: str) -> tuple[int, int] | None:
        """Steps done and steps in all of the batch that runs for a request; None while none does.

        Args:
            request_id: The request.
        """
        with self._changed:
            found = [one.steps for one in self._tickets if one.request_id == request_id]
        return found[0] if found else None

    def admit(self, request_id: str) -> Ticket:
        """Take a request in, until `release` is called.

        Raises:
            BusyError: There are as many requests as the limits allow.
        """
        with self._changed:
            if len(self._tickets) >= self.limits.max_requests:
                wait = self._seconds_a_request * len(self._tickets) / self.limits.max_requests
                raise BusyError(max(1, min(60, round(wait))))
            ticket = Ticket(request_id)
            self._tickets.add(ticket)
            self.telemetry.active_requests.set(len(self._tickets))
        return ticket

    def release(self, ticket: Ticket, seconds: float) -> None:
        """Let a request go.

        Args:
            ticket: What `admit` gave.
            seconds: How long it took.
        """
        self.cancel(ticket)
        with self._changed:
            self._tickets.discard(ticket)
            # A moving average over about ten requests, so that the wait that `admit` states follows
            # the load.
            self._seconds_a_request += 0.1 * (seconds - self._seconds_a_request)
            self.telemetry.active_requests.set(len(self._tickets))

    def cancel(self, ticket: Ticket) -> None:
        """Drop a request's calls that wait, and stop the batch where nobody waits for it."""
        ticket.cancelled.set()
        with self._changed:
            dropped = [one for one in self._queue if one.ticket is ticket]
            self._queue = [one for one in self._queue if one.ticket is not ticket]
            self.telemetry.queued_sounds.set(len(self._queue))
        for one in dropped:
            one.future.set_exception(CancelledError())

    def submit(self, calls: Sequence[QueuedCall]) -> None:
        """Queue calls; their futures get the answers.

        Raises:
            CancelledError: Nobody waits for them any more.
            WorkerLostError: The server stops.
        """
        with self._changed:
            # Asked under the lock: `cancel` and `stop` empty the queue once, and a call that came
            # later would wait forever.
            if any(one.ticket.cancelled.is_set() for one in calls):
                raise CancelledError
            if self._stopping:
                raise WorkerLostError("the server stops")
            self._queue.extend(calls)
            self.telemetry.queued_sounds.set(len(self._queue))
            self._changed.notify_all()

    def _feed(self, process: ModelProcess) -> None:
        """Keep one worker alive and busy."""
        failures, started = 0, False
        while not self._stopping:
            self._pause(RESTART_SECONDS[min(failures, len(RESTART_SECONDS) - 1)])
            try:
                process.start(lambda: self._stopping)
            except (InputError, WorkerLostError) as error:
                if self._stopping:
                    return
                failures += 1
                self.failure = str(error)
                log.error("worker not started", extra={"fields": {"reason": self.failure}})
                # One failure may pass, such as memory that the lost worker has not given back yet.
                # Two in a row hardly do, so nobody waits through the longer pauses.
                if failures > 1:
                    self._fail_waiting(self.failure)
                if isinstance(error, InputError) and not started:
                    self._on_unusable(self.failure)
                    return
                continue
            started = True
            self._set_ready(1)
            self.failure = ""
            log.info("worker ready", extra={"fields": {"pid": process.pid}})
            try:
                while batch := self._take():
                    self._run(process, batch)
                    failures = 0
            except WorkerLostError as error:
                failures += 1
                self.telemetry.worker_restarts.inc()
                log.error("worker lost", extra={"fields": {"reason": str(error)}})
            finally:
                self._set_ready(-1)
                process.stop()

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, seconds)

    def _set_ready(self, change: int) -> None:
        with self._changed:
            self._ready += change

    def _fail_waiting(self, reason: str) -> None:
        """Answer all that waits, where no worker is left that could."""
        with self._changed:
            # Another device still answers.
            if self._ready:
                return
            waiting, self._queue = self._queue, []
        for one in waiting:
            one.future.set_exception(WorkerLostError(reason))

    def _take(self) -> list[QueuedCall]:
        """Wait for calls and choose the next batch; nothing once the server stops."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stopping)
            # The windows of one request come together, but those of two clients that begin at once
            # do not: a lone call waits a moment for company.
            if len(self._queue) == 1 and not self._stopping:
                self._changed.wait_for(
                    lambda: len(self._queue) != 1 or self._stopping, GATHER_SECONDS
                )
            if self._stopping:
                return []
            if not self._queue:  # its only call was cancelled meanwhile
                batch = []
            else:
                batch = choose_batch(self._queue, self.limits.max_batch)
                self._queue = [one for one in self._queue if one not in batch]
            self.telemetry.queued_sounds.set(len(self._queue))
        return batch or self._take()

    def _run(self, process: ModelProcess, batch: list[QueuedCall]) -> None:
        started = time.monotonic()

        def unwanted() -> bool:
            return all(one.ticket.cancelled.is_set() for one in batch)

        def on_step(done: int, total: int) -> None:
            for one in batch:
                one.ticket.steps = (done, total)

        try:
            calls = [one.call for one in batch]
            answers = process.run(batch[0].sampling, calls, unwanted, on_step)
        except WorkerLostError as error:
            self._put_back(batch, error)
            raise
        finally:
            for one in batch:
                one.ticket.steps = None
        took = time.monotonic() - started
        made = 0.0
        for one, answer in zip(batch, answers, strict=True):
            if answer.failed and answer.failed != "aborted":
                fields = {"request_id": one.ticket.request_id, "reason": answer.failed}
                log.error("sound failed", extra={"fields": fields})
            if answer.waveform is not None:
                made += one.seconds
        self.telemetry.batch_done(len(batch), made, took, process.memory_bytes)
        # By another thread: the requests' threads begin to code at once, and the worker would have
        # to wait for its next batch until this thread gets its turn among them.
        self._answers.submit(_hand_over, batch, answers)

    def _put_back(self, batch: list[QueuedCall], error: WorkerLostError) -> None:
        """Queue the calls of a lost worker again, where they have a try left."""
        again = []
        for one in batch:
            one.lost += 1
            if one.ticket.cancelled.is_set():
                one.future.set_exception(CancelledError())
            elif one.lost >= MAX_LOST or self._stopping:
                one.future.set_exception(error)
            else:
                again.append(one)
        with self._changed:
            self._queue = [*again, *self._queue]


def _hand_over(batch: Sequence[QueuedCall], answers: Sequence[ModelAnswer]) -> None:
    """Give a batch's answers to the requests that wait for them."""
    for one, answer in zip(batch, answers, strict=True):
        one.future.set_result(answer)

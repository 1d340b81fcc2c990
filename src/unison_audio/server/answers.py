"""Answers of sound: a generator that runs in a thread, and the bytes it makes sent as they come.

A client that leaves, a reader that stands still and a deadline all end the work, and whatever ends
it, the request gives its place back.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from unison_audio.server.api_errors import ApiError, as_api_error
from unison_audio.server.batching import CancelledError, Ticket
from unison_audio.server.limits import SEND_SECONDS
from unison_audio.server.remote_model import ModelFailedError, RemoteModel
from unison_audio.server.scheduler import BusyError, Scheduler
from unison_audio.server.telemetry import Telemetry
from unison_audio.server.warning_header import warning_header
from unison_audio.server.worker_process import WorkerLostError
from unison_audio.variants import Variant

DEADLINE = "X-Unison-Deadline"
"""Header by which a client shortens the deadline of its request, in seconds."""

CLIENT_CLOSED = 499
"""Status in the log of a request whose client has left."""

RETRY_SECONDS = 2
"""Asked of a client whose request was lost with a worker."""

log = logging.getLogger(__name__)

Parts = Generator[bytes, None, None]
"""The bytes of an answer, part by part."""

Produce = Callable[[RemoteModel], Parts]
"""Called in a thread with the model; yields the answer's bytes."""


class BrokenAnswerError(Exception):
    """An answer had begun and cannot be ended well."""


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What every route of sound needs."""

    variant: Variant
    """What the workers run."""
    scheduler: Scheduler
    """Where calls of the model go."""
    telemetry: Telemetry
    """Where figures go."""
    deadline_seconds: float
    """Seconds until the first byte, and between two parts."""
    pool: ThreadPoolExecutor
    """A thread for each admitted request."""

    def admit(self, name: str) -> Ticket:
        """Take a request in.

        Args:
            name: Its id.

        Raises:
            ApiError: There are as many as the server takes.
        """
        try:
            return self.scheduler.admit(name)
        except BusyError as error:
            raise ApiError(
                429,
                "The server has as many requests as it takes; try again later.",
                code="queue_full",
                retry_after=error.retry_after,
            ) from error

    async def answer(
        self,
        request: Request,
        produce: Produce,
        media_type: str,
        *,
        notes: list[str],
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Run a request, and answer it from its first byte on.

        Args:
            request: The request; its body has been read.
            produce: Makes the bytes.
            media_type: Content type of them.
            notes: Warnings that are known already.
            headers: Further headers.

        Raises:
            ApiError: The request fails before its first byte.
        """
        deadline = self._deadline(request)
        ticket = self.admit(request.state.request_id)
        for note in notes:
            ticket.warn(note)
        run = SoundRun(
            desk=self,
            ticket=ticket,
            parts=produce(RemoteModel(self.variant, self.scheduler, ticket)),
            deadline=deadline,
            route=request.scope["route"].path,
        )
        request.state.ticket = ticket
        # The status line goes out with the first byte, so a failure before it has its own status.
        first = await run.first(request)
        told = warning_header(ticket.warnings)
        return SoundResponse(run, first, media_type, {**(headers or {}), **told})

    def _deadline(self, request: Request) -> float:
        """Seconds that the client gives, at most those of the server."""
        given = request.headers.get(DEADLINE)
        if given is None:
            return self.deadline_seconds
        try:
            seconds = float(given)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise ApiError(
                400, f"{DEADLINE} is {given!r:.40}; give seconds above 0.", param=DEADLINE
            )
        return min(seconds, self.deadline_seconds)


@dataclass(eq=False, kw_only=True)
class SoundRun:
    """One request's generator, driven part by part."""

    desk: Desk
    """Scheduler, figures, threads."""
    ticket: Ticket
    """Its admission."""
    parts: Parts
    """The generator."""
    deadline: float
    """Seconds for each part."""
    route: str
    """Path of the route, for the figures."""
    started: float = field(default_factory=time.monotonic)
    """When it was admitted."""
    _closing: "asyncio.Task[None] | None" = None

    async def first(self, request: Request) -> bytes:
        """The first part; meanwhile the client may leave.

        Raises:
            ApiError: There is none.
        """
        gone = asyncio.ensure_future(_gone(request.receive))
        try:
            part = await self.part(gone)
        except BaseException as error:
            self.close()
            if not isinstance(error, Exception):
                raise
            found = explained(error, self.deadline)
            if found.status in (CLIENT_CLOSED, 504):
                self.desk.telemetry.cancelled.inc()
            elif found.status == 500:
                fields = {"request_id": self.ticket.request_id}
                log.error("request failed", exc_info=error, extra={"fields": fields})
            raise found from error
        finally:
            gone.cancel()
        self.desk.telemetry.first_byte.labels(self.route).observe(time.monotonic() - self.started)
        return part or b""

    async def part(self, gone: "asyncio.Future[None]") -> bytes | None:
        """The next part; None after the last.

        Raises:
            CancelledError: The client has left.
            TimeoutError: The deadline is over.
            Exception: What the generator raised.
        """
        loop = asyncio.get_running_loop()
        step = loop.run_in_executor(self.desk.pool, next, self.parts, None)
        waiting: set[asyncio.Future[Any]] = {step, gone}
        await asyncio.wait(waiting, timeout=self.deadline, return_when="FIRST_COMPLETED")
        if step.done():
            return step.result()
        # Its exception is of no interest any more, but must be looked at.
        step.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.ticket.cancelled.set()
        if gone.done():
            raise CancelledError
        raise TimeoutError

    def close(self) -> None:
        """End the generator and give the place back, in the background."""
        if self._closing is None:
            self.desk.scheduler.cancel(self.ticket)
            self._closing = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            # A thread may still be inside the generator, which then cannot be closed yet.
            for _ in range(600):
                if await loop.run_in_executor(self.desk.pool, _closed, self.parts):
                    return
                await asyncio.sleep(0.1)
        finally:
            self.desk.scheduler.release(self.ticket, time.monotonic() - self.started)


def explained(error: Exception, deadline: float) -> ApiError:
    """What ended a request before its first byte, as the answer that it becomes.

    Args:
        error: What was raised.
        deadline: Seconds that the request had.
    """
    if isinstance(error, CancelledError):
        return ApiError(CLIENT_CLOSED, "The client has left.")
    if isinstance(error, TimeoutError):
        message = f"The deadline of {deadline:g} s passed before the first sound was done."
        return ApiError(504, message, code="deadline")
    if isinstance(error, WorkerLostError):
        message = "The model's process was lost; it is started again. Send the request again."
        return ApiError(503, message, code="worker_lost", retry_after=RETRY_SECONDS)
    if isinstance(error, ModelFailedError):
        return ApiError(500, "The model failed at this request; the server's log says why.")
    return as_api_error(error)


class SoundResponse(StreamingResponse):
    """Sends a run's parts, and ends the run when the client is gone.

    Args:
        run: The run.
        first: Its first part.
        media_type: Content type.
        headers: Further headers.
    """

    def __init__(
        self, run: SoundRun, first: bytes, media_type: str, headers: dict[str, str]
    ) -> None:
        super().__init__(iter(()), 200, headers, media_type)
        self._run, self._first = run, first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        gone = asyncio.ensure_future(_gone(receive))
        try:
            head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(head)
            part: bytes | None = self._first
            while part is not None:
                body = {"type": "http.response.body", "body": part, "more_body": True}
                # A reader that stands still would hold the request's place forever.
                await asyncio.wait_for(send(body), SEND_SECONDS)
                if gone.done():
                    raise CancelledError
                part = await self._run.part(gone)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except Exception as error:
            self._run.desk.telemetry.cancelled.inc()
            left = gone.done() or isinstance(error, CancelledError)
            reason = "client left" if left else type(error).__name__
            fields = {"request_id": self._run.ticket.request_id, "reason": reason}
            log.warning("answer broken off", extra={"fields": fields})
            if not left:
                # The server then breaks the connection, so that nobody takes the part for the
                # whole. The first error stays out of its log: it may quote the client's text.
                raise BrokenAnswerError(reason) from None
        finally:
            gone.cancel()
            self._run.close()


async def _gone(receive: Receive) -> None:
    """Wait until the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _closed(parts: Parts) -> bool:
    """Close a generator; False while a thread is inside it."""
    try:
        parts.close()
    except ValueError:  # "generator already executing"
        return False
    return True

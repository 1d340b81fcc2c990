"""What every request passes: a name for the log, the origin, the key, the size of its body."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unison_audio.server.api_errors import ApiError, error_response
from unison_audio.server.api_keys import ApiKeys
from unison_audio.server.limits import MAX_JSON_BYTES, RECEIVE_SECONDS, Limits
from unison_audio.server.telemetry import Telemetry

OPEN_LISTS = re.compile(r"/v1/(models(/.*)?|audio/(models|voices|tasks))|/studio/.*")
"""Listings and files that need no key: Open WebUI and the studio ask for them without one."""

OPEN_PATHS = frozenset({"/", "/health", "/readyz", "/docs", "/openapi.json"})
"""Other pages that need no key."""

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

log = logging.getLogger(__name__)


class Gate:
    """The outermost layer of the application.

    Args:
        app: What is inside.
        keys: Keys that open it.
        limits: Sizes of bodies.
        telemetry: Where figures go.
        origins: Other web pages whose scripts may call the server.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: ApiKeys,
        limits: Limits,
        telemetry: Telemetry,
        origins: Collection[str],
    ) -> None:
        self.app, self.keys, self.limits = app, keys, limits
        self.telemetry, self.origins = telemetry, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        # A client's own id goes into the log and into a header, so it may hold no line break.
        given = headers.get("x-request-id", "")
        name = given if _ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        state = scope.setdefault("state", {})
        state["request_id"] = name
        started, status, first = time.monotonic(), 0, 0.0

        body = _Body(receive, self._most_bytes(headers))

        async def named(message: Message) -> None:
            nonlocal status, first
            if body.failure is not None and not status:
                return  # what is inside answers that it cannot read the body; ours is the reason
            if message["type"] == "http.response.start":
                status, first = message["status"], time.monotonic() - started
                message["headers"] = [*message["headers"], (b"x-request-id", name.encode())]
            await send(message)

        try:
            self._check(scope, headers)
            body.check_stated(headers)
            await self.app(scope, body.receive, named)
            if body.failure is not None and not status:
                raise body.failure
        except ApiError as error:
            if status:
                raise
            body.failure = None
            await error_response(error)(scope, receive, named)
        finally:
            self._log(scope, state, status, time.monotonic() - started, first)

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        """Refuse a request that may not pass.

        Raises:
            ApiError: It comes from another web page, or has no valid key.
        """
        method, path = scope["method"], scope["path"]
        origin = headers.get("origin", "")
        # A form of any web page could post to a server on the same machine; no rule of the browser
        # prevents it, since the page need not read the answer.
        allowed = "*" in self.origins or origin in self.origins
        foreign = not allowed and urlsplit(origin).netloc != headers.get("host", "")
        if origin and foreign and method not in ("GET", "HEAD", "OPTIONS"):
            raise ApiError(
                403,
                "Scripts of this web page may not call the server; start it with --cors-origin to "
                "allow them.",
                code="origin",
            )
        listed = method in ("GET", "HEAD") and OPEN_LISTS.fullmatch(path) is not None
        if listed or path in OPEN_PATHS or method == "OPTIONS":
            return
        if not self.keys.allows(headers.get("authorization", ""), headers.get("xi-api-key", "")):
            raise ApiError(
                401,
                "The API key is missing or wrong; send one as a bearer token.",
                code="invalid_api_key",
            )

    def _most_bytes(self, headers: dict[str, str]) -> int:
        files = headers.get("content-type", "").lower().startswith("multipart/form-data")
        return self.limits.max_body_bytes if files else MAX_JSON_BYTES

    def _log(
        self, scope: Scope, state: dict[str, Any], status: int, took: float, first: float
    ) -> None:
        """One line and one count for the request; neither holds what it said."""
        route = getattr(scope.get("route"), "path", "none")
        self.telemetry.requests.labels(route, str(status or 499)).inc()
        fields: dict[str, Any] = {
            "request_id": state["request_id"],
            "method": scope["method"],
            "route": route,
            "status": status or 499,
            "seconds": round(took, 3),
            "first_byte_seconds": round(first, 3),
        }
        ticket = state.get("ticket")
        if ticket is not None:
            fields |= {"model_calls": ticket.calls, "audio_seconds": round(ticket.audio_seconds, 3)}
        log.info("request", extra={"fields": fields})


class _Body:
    """A request's body, counted while it comes in."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most, self._count, self._done = receive, most, 0, False
        self.failure: ApiError | None = None
        """Why the body was not read to its end."""

    def check_stated(self, headers: dict[str, str]) -> None:
        """Refuse a body whose header already says that it is too large."""
        stated = headers.get("content-length", "")
        if stated.isdigit() and int(stated) > self._most:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next piece.

        Raises:
            ApiError: The body is too large, or the client too slow.
        """
        if self._done:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), RECEIVE_SECONDS)
        except TimeoutError:
            self.failure = ApiError(
                408, f"Nothing of the body came for {RECEIVE_SECONDS:g} s; send it again."
            )
            raise self.failure from None
        self._done = not message.get("more_body", False)
        self._count += len(message.get("body", b""))
        if self._count > self._most:
            self.failure = self._too_large()
            raise self.failure
        return message

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"The body is larger than {self._most:,} bytes; send less.", code="body_too_large"
        )

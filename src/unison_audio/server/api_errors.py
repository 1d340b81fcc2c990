"""Errors as OpenAI's clients read them: one object with message, type, param and code."""

import errno
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from unison_audio.errors import InputError, bounded

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
    507: "server_error",
}
"""Status -> type of the error."""


NEVER_AGAIN = (409, 504, 507)
"""Statuses of which the same request gives the same answer: a name that is taken, a deadline that
is too short for the work, a full disk."""


class ApiError(Exception):
    """An answer that is an error.

    Args:
        status: The HTTP status.
        message: One sentence that says what to do.
        param: Name of the field that is wrong.
        code: A word for programs.
        retry_after: Seconds after which the client may try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        message = bounded(message)
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"
        if status in NEVER_AGAIN:
            # OpenAI's client sends a POST of these statuses three times, unless told not to.
            self.headers["X-Should-Retry"] = "false"


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The body of an error; all four keys are always there."""
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(error: ApiError) -> JSONResponse:
    """The answer for an error."""
    body = error_body(error.status, error.message, error.param, error.code)
    return JSONResponse(body, error.status, error.headers)


def full_disk() -> ApiError:
    """The answer where a file cannot be written."""
    return ApiError(507, "The server has no room to write a file.", code="no_room")


def as_api_error(error: BaseException) -> ApiError:
    """An error of the library as an answer; what is unexpected tells the client nothing more."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InputError):
        return ApiError(400, " ".join(str(error).split()))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return full_disk()
    return ApiError(500, "The server failed at this request; its log has the reason.")


def validation_error(error: RequestValidationError) -> ApiError:
    """What is wrong with a request's fields, as one sentence."""
    found = error.errors()
    first = found[0] if found else {"loc": (), "msg": "the request cannot be read"}
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    if first.get("type") == "json_invalid":
        return ApiError(400, "The body is not valid JSON; send one JSON object.")
    if not place:
        return ApiError(
            400, "The body is not what this route takes; send one object as application/json."
        )
    # A union's members follow the field's name in pydantic's locations.
    name = place[0]
    missing = [str(one["loc"][-1]) for one in found if one.get("type") == "missing"]
    if missing:
        names = ", ".join(dict.fromkeys(missing))
        return ApiError(400, f"Missing: {names}; give a value for each.", param=missing[0])
    reason = _plain(str(first["msg"]))
    return ApiError(400, f"{name}: {reason}.", param=name)


def install(app: FastAPI) -> None:
    """Let an application answer every error in this form."""

    async def on_api_error(request: Request, error: Exception) -> JSONResponse:
        return error_response(as_api_error(error))

    async def on_validation_error(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            raise error
        return error_response(validation_error(error))

    async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            raise error
        message = str(error.detail)
        if error.status_code == 404:
            message = f"There is no route {request.url.path}; see /docs for those that there are."
        elif error.status_code == 405:
            message = f"{request.url.path} does not take {request.method}."
        # FastAPI's own status for a body that it cannot parse is 400 with a short text.
        headers: Mapping[str, str] = error.headers or {}
        body = error_body(error.status_code, message.rstrip(".") + ".")
        return JSONResponse(body, error.status_code, dict(headers))

    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(InputError, on_api_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_exception)


def _plain(message: str) -> str:
    """A validator's message inside a sentence of ours."""
    message = message.removeprefix("Value error, ").strip().rstrip(".")
    return message[:1].lower() + message[1:] if message.startswith(("Input", "Value")) else message

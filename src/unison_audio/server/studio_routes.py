"""The studio: the page at `/` and its files, each with a strict policy for the browser."""

import secrets
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from unison_audio.server.api_errors import ApiError

router = APIRouter(tags=["studio"], include_in_schema=False)

MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""Ending of a file -> its type; all others are plain text, such as licenses."""

NONCE = "{{nonce}}"
"""Stands in the page for a number that each answer draws anew."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data: "
    "blob:; media-src 'self' blob:; connect-src 'self' blob:; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""Nothing comes from another host. The nonce allows the style sheet of wavesurfer's shadow tree."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    # A newer package must not meet an older script out of the browser's cache.
    "Cache-Control": "no-cache",
}


@cache
def studio_files() -> dict[str, bytes]:
    """Path below `/studio/` -> content of every file of the page."""
    files: dict[str, bytes] = {}

    def add(folder: Traversable, prefix: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                add(entry, f"{prefix}{entry.name}/")
            else:
                files[prefix + entry.name] = entry.read_bytes()

    add(resources.files("unison_audio.server").joinpath("static"), "")
    return files


@router.get("/", response_class=HTMLResponse)
def studio_page() -> Response:
    """The page."""
    nonce = secrets.token_urlsafe(16)
    page = studio_files()["index.html"].decode().replace(NONCE, nonce)
    return HTMLResponse(page, headers=_headers(nonce))


@router.get("/studio/{path:path}", response_class=Response)
def studio_file(path: str) -> Response:
    """One of its files."""
    content = studio_files().get(path)
    if content is None or path == "index.html":
        raise ApiError(404, f"There is no file {path!r:.120}.")
    kind = MEDIA_TYPES.get(path.rpartition(".")[2], "text/plain; charset=utf-8")
    return Response(content, media_type=kind, headers=_headers(secrets.token_urlsafe(16)))


def _headers(nonce: str) -> dict[str, str]:
    return {"Content-Security-Policy": _POLICY.format(nonce=nonce), **_HEADERS}

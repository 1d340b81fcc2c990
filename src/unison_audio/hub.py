"""Downloads into the cache: resumed where they broke off, checked, and put in place whole."""

import errno
import hashlib
import http.client
import os
import shutil
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeAlias

from unison_audio.errors import InputError

OnProgress: TypeAlias = Callable[[int, int], None]
"""Called with the bytes done and the total, which is 0 if the server does not state it."""

BLOCK = 1 << 20

TIMEOUT_SECONDS = 30.0


class UnreachableError(InputError):
    """A file cannot be downloaded."""

    def __init__(self, url: str, reason: str, target: Path) -> None:
        self.what = f"{url} cannot be had ({reason})"
        super().__init__(
            f"{self.what}; connect to the network and try again, or download it elsewhere and put "
            f"it at {target}."
        )


class ChecksumError(InputError):
    """A file does not have the expected checksum."""


def cache_folder() -> Path:
    """Folder of downloaded and converted files; it may not exist yet.

    Returns:
        ``$UNISON_AUDIO_CACHE``, else ``unison-audio`` in ``$XDG_CACHE_HOME`` or in ``~/.cache``.
    """
    if own := os.environ.get("UNISON_AUDIO_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "unison-audio")


def fetch(
    url: str,
    target: Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Download a file, unless it is there already.

    Received bytes are stored beside the target as ``.partial``, and the next call resumes there.
    Only a complete file with the right checksum takes the target's name. If several processes need
    the same file, one downloads it and the others wait.

    Args:
        url: Address of the file.
        target: Path of the result; its folder is made if missing.
        md5: Checksum of the file, in hexadecimal.
        sha256: Another checksum of the file; one of the two is needed.
        on_progress: Called with the progress; None draws a bar if stderr is a terminal.

    Raises:
        UnreachableError: If the server cannot be reached, breaks off, or has no such file.
        ChecksumError: If the file has another checksum; what was downloaded is removed.
        InputError: If the file cannot be written.
    """
    if target.is_file():
        return
    partial = target.with_name(f"{target.name}.partial")
    with making(target):
        if target.is_file():
            return
        with _bar(target.name) if on_progress is None else nullcontext(on_progress) as show:
            _download(url, partial, target, show)
        try:
            check(partial, md5=md5, sha256=sha256, source=url)
        except ChecksumError:
            partial.unlink()
            raise
        partial.replace(target)


@contextmanager
def making(target: Path) -> Iterator[None]:
    """Locks a file that is being made, and makes its folder if missing.

    Args:
        target: The file.

    Raises:
        InputError: For any `OSError`, such as a full disk or a folder without access.
    """
    from filelock import FileLock  # torch and the hub's client both need it

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or error
        raise InputError(
            f"{error.filename or target} cannot be read or written ({reason}); make room or give "
            "access, or choose another cache folder with $UNISON_AUDIO_CACHE."
        ) from error


def check(
    path: Path, *, md5: str | None = None, sha256: str | None = None, source: str = ""
) -> None:
    """Compare a file with its checksum.

    Args:
        path: The file.
        md5: Its checksum, in hexadecimal.
        sha256: Another checksum; one of the two is needed.
        source: Name of the file in the message; by default its path.

    Raises:
        ChecksumError: If the checksum differs.
    """
    name, wanted = ("md5", md5) if sha256 is None else ("sha256", sha256)
    assert wanted is not None, "a checksum is needed"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False))
    if found.hexdigest() != wanted:
        raise ChecksumError(
            f"{source or path} is damaged or another file: its {name} is {found.hexdigest()} where "
            f"{wanted} is expected; download it again."
        )


def _download(url: str, partial: Path, target: Path, show: OnProgress) -> None:
    """Appends to a partial file until it is complete; gives up when an attempt brings no bytes."""
    while True:
        before = _size(partial)
        try:
            done, total = _attempt(url, partial, show)
            if done >= total:
                return
            reason = f"it broke off after {done} of {total} bytes"
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # no bytes left: the file is complete, or another one
                if error.headers.get("Content-Range") == f"bytes */{before}":
                    return
                partial.unlink()
                continue
            reason = f"it answers {error.code} {error.reason}"
        except urllib.error.URLError as error:
            reason = str(error.reason)
        except (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
        if _size(partial) <= before:
            raise UnreachableError(url, reason, target)


def _attempt(url: str, partial: Path, show: OnProgress) -> tuple[int, int]:
    """Requests the missing bytes once; returns the bytes received so far and the total."""
    done = _size(partial)
    request = urllib.request.Request(url, headers={"User-Agent": "unison-audio"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            done = 0  # the server ignored the range and sends the whole file
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else 0
        free = shutil.disk_usage(partial.parent).free
        if total - done > free:
            raise InputError(
                f"{url} needs another {(total - done) / 1e6:.0f} MB and {partial.parent} has "
                f"{free / 1e6:.0f} MB left; make room, or choose another cache folder with "
                "$UNISON_AUDIO_CACHE."
            )
        show(done, total)
        with partial.open("ab" if done else "wb") as file:
            while block := response.read(BLOCK):
                file.write(block)
                done += len(block)
                show(done, total)
    return done, total


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _bar(name: str) -> Iterator[OnProgress]:
    """Draws the progress of a download if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as shown:
        task = shown.add_task(name, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total or None)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Suppresses transformers' warnings and progress bars.

    It warns about parts of a model that are not loaded here on purpose.
    """
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()

"""One writer a folder: a lock that names the process which holds it."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from unison_audio.errors import InputError

LOCK_FILE = ".lock"

_mine: set[Path] = set()
"""Locks of this process. The system's locks belong to a process: it would grant a second one, and
closing that file would free the first."""


@contextlib.contextmanager
def only_writer(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for this process. The system frees the lock however the process ends.

    Args:
        folder: The folder; it exists.
        what: Who writes, in messages, such as "batch".

    Raises:
        InputError: If another writer holds the folder; the message has its process and host.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # no such locks on Windows
        yield
        return
    path = folder.resolve() / LOCK_FILE
    if path in _mine:
        raise InputError(_busy(folder, what, process_name()))
    with _open(path) as file:
        try:
            # lockf, not flock: children do not inherit it, so that workers which outlive a killed
            # process do not keep its lock.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise InputError(_busy(folder, what, file.read(200).strip())) from error
        if not _is_at(file, path):  # its owner removed it between the two lines above
            raise InputError(_busy(folder, what, ""))
        _mine.add(path)
        try:
            _name_owner(file, path)
            yield
        finally:
            _mine.discard(path)
            # Still held: no other process can have locked the file that is removed here.
            path.unlink(missing_ok=True)


def _open(path: Path) -> TextIO:
    try:
        return path.open("a+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise _unwritable(path, error) from error


def _name_owner(file: TextIO, path: Path) -> None:
    """Write this process into its lock."""
    try:
        file.truncate(0)
        # Without the buffer of the file: what a full disk does not take would fail at closing too.
        os.write(file.fileno(), f"{process_name()}\n".encode())
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written ({error.strerror}); give another folder.")


def _is_at(file: TextIO, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def process_name() -> str:
    """This process and its host, as another one's message names them."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _busy(folder: Path, what: str, owner: str) -> str:
    return (
        f"Another {what} writes to {folder} ({owner or 'its owner is not known yet'}); wait for "
        "its end, or choose another folder."
    )

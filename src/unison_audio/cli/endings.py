"""How a command ends: exit codes, and one sentence for everything that the user can mend."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

BAD_INPUT, INTERRUPTED, BROKEN_PIPE, TERMINATED = 2, 130, 141, 143
"""Exit codes, where a shell adds 128 to the number of a signal."""


class TerminatedError(BaseException):
    """SIGTERM, raised so that files being written are removed and results so far are kept.

    It is no `Exception`: a job that fails must not stop the others, but this must.
    """


@contextlib.contextmanager
def terminated_as_error() -> Iterator[None]:
    """Turn SIGTERM into `TerminatedError`, where this process has not chosen otherwise."""
    usual = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker ends as it would without this handler
            os._exit(TERMINATED)
        raise TerminatedError

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def say(message: str) -> None:
    """Print one line on stderr; a closed stderr is not a reason to fail."""
    line = " ".join(message.split())
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"unison-audio: {line}", file=sys.stderr)


def describe(error: OSError | UnicodeError | MemoryError) -> str:
    """What the system refused, where, and what to do."""
    if isinstance(error, MemoryError):
        return "There is not enough memory for this; ask for less at a time."
    if isinstance(error, UnicodeError):
        return (
            f"A text cannot be written or read as {getattr(error, 'encoding', 'text')} "
            f"({getattr(error, 'reason', error)}); write it as UTF-8, or set PYTHONUTF8=1."
        )
    where = f" at {error.filename}" if error.filename else ""
    reason = error.strerror or type(error).__name__
    return f"{reason}{where}; mend that and try again."


def silence_stdout() -> None:
    """Point standard output at nothing: Python would flush it at exit and print a traceback."""
    if sys.stdout is not None:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

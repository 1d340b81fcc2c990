"""The worker processes of a Ray cluster that this process started."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TITLE = b"ray::_Worker."
"""How Ray names the processes of `unison_audio.cluster.Workers` that do something."""


def busy_workers() -> list[int]:
    """Numbers of the processes that work on a job."""
    return [
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if _read(folder / "cmdline").startswith(TITLE + b"run") and _is_ours(int(folder.name))
    ]


@contextmanager
def one_killed_when(true: Callable[[], bool]) -> Iterator[list[int]]:
    """Kill a worker at its job as soon as something is true; gives the killed one's number."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set() and not killed:
            if true() and (found := busy_workers()):
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
            time.sleep(0.02)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def _is_ours(process: int) -> bool:
    while process > 1:
        if process == os.getpid():
            return True
        text = _read(Path(f"/proc/{process}/stat")).rpartition(b")")[2].split()
        process = int(text[1]) if text else 0
    return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""

"""Progress on stderr: bars in a terminal, otherwise lines or nothing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Show(Protocol):
    """Called after each step of a command."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of `what` are done."""


@contextmanager
def progress(*, always: bool = False) -> Iterator[Show]:
    """Show the progress of one or several kinds of steps, one after the other.

    Args:
        always: Print a line for every tenth where there is no terminal.

    Yields:
        The function to call.
    """
    if not sys.stderr.isatty():
        yield _Lines() if always else _nothing
        return
    # Here, since rich is slow to import and a pipe needs none of it.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as shown:

        def show(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = shown.add_task(what, total=total)
            shown.update(bars[what], completed=done, total=total)

        yield show


class _Lines:
    """Prints a line for every tenth, as logs of jobs without a terminal need."""

    def __init__(self) -> None:
        self.tenths: dict[str, int] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        tenth = done * 10 // total
        if tenth > self.tenths.get(what, 0):
            self.tenths[what] = tenth
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)


def _nothing(what: str, done: int, total: int) -> None:
    """Ignore progress."""

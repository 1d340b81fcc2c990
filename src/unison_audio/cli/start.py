"""The program's first lines: what has to be done before the commands, and torch, are loaded."""

import os
import signal
import sys
from types import FrameType

WAIT_POLICY = "OMP_WAIT_POLICY"
"""OpenMP reads it when torch is loaded. Its threads wait for each other at every operation, by
default in a busy loop: where another program has a core, that loop takes the time of the thread
that it waits for (`benchmarks/shared_cores.py`)."""


def main() -> int:
    """Run the command line of this process.

    Returns:
        The exit code.
    """
    os.environ.setdefault(WAIT_POLICY, "passive")
    # Loading the commands takes about 0.15 s, in which Python would print a traceback.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from unison_audio.cli.endings import INTERRUPTED
    from unison_audio.cli.main import main as run

    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt if before is signal.default_int_handler else before)
    try:
        return run()
    except Exception:
        # torch swallows an interrupt that comes while it loads numpy, and goes on without it.
        if interrupted:
            return INTERRUPTED
        raise


if __name__ == "__main__":
    sys.exit(main())

"""The program's first lines: what has to be done before the commands, and torch, are loaded."""

import os
import signal
import sys

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
    from unison_audio.cli.main import main as run

    signal.signal(signal.SIGINT, before)
    return run()


if __name__ == "__main__":
    sys.exit(main())

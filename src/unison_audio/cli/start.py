"""The program's first lines: an interrupt while the commands are still loading ends it quietly."""

import signal
import sys


def main() -> int:
    """Run the command line of this process.

    Returns:
        The exit code.
    """
    # Loading the commands takes about 0.15 s, in which Python would print a traceback.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from unison_audio.cli.main import main as run

    signal.signal(signal.SIGINT, before)
    return run()


if __name__ == "__main__":
    sys.exit(main())

"""`python -m unison_audio`: the command line."""

import sys

from unison_audio.cli.start import main

if __name__ == "__main__":
    sys.exit(main())

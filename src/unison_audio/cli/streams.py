"""Standard input and standard output in place of files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unison_audio.errors import InputError
from unison_audio.output_format import OutputFormat

if TYPE_CHECKING:
    from unison_audio.audio import Audio

STDOUT = Path("-")
"""Name that stands for standard output, or for standard input."""


def check_stdout() -> None:
    """Check that there is a standard output; Python has none where a shell closed it with `>&-`.

    Raises:
        InputError: If there is none.
    """
    if sys.stdout is None:
        raise InputError("Standard output is closed; give the name of a file with --output.")


def write_out(sounds: Iterator[Audio], path: Path, form: OutputFormat) -> float:
    """Write sounds one after the other into a file, or to standard output for `STDOUT`.

    Returns:
        Their seconds.

    Raises:
        InputError: Standard output cannot be written.
    """
    from unison_audio.longform.sound_stream import write_sounds, write_stream

    seconds = 0.0

    def counted() -> Iterator[Audio]:
        nonlocal seconds
        for sound in sounds:
            seconds += sound.seconds
            yield sound

    if path == STDOUT:
        check_stdout()
        try:
            write_stream(counted(), sys.stdout.buffer, form)
        except BrokenPipeError:  # the reader has heard enough, which `main` knows how to end
            raise
        except OSError as error:
            # What is still buffered would fail again when Python exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise InputError(
                f"Standard output cannot be written ({os.strerror(error.errno or 0)}); "
                "give another place."
            ) from error
    else:
        write_sounds(path, counted(), form)
    return seconds


def read_text(path: Path) -> str:
    """Read a text, from standard input for `-`.

    Raises:
        InputError: It is missing, too long, no UTF-8, or holds nothing.
    """
    from unison_audio.longform.text_windows import MAX_CHARACTERS

    most = 4 * MAX_CHARACTERS  # bytes: UTF-8 takes up to four for one character
    name = "Standard input" if path == STDOUT else str(path)
    try:
        if path == STDOUT and sys.stdin is None:  # closed by `<&-`
            data = b""
        elif path == STDOUT:
            data = sys.stdin.buffer.read(most + 1)
        else:
            with path.open("rb") as file:  # one byte more tells that there is more
                data = file.read(most + 1)
    except OSError as error:
        raise InputError(
            f"{name} cannot be read ({os.strerror(error.errno or 0)}); check the path."
        ) from error
    if len(data) > most:
        raise InputError(
            f"{name} holds more than {most:,} bytes; at most {MAX_CHARACTERS:,} characters of text "
            "are taken at once."
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text ({error.reason}); convert it.") from error
    if not text.strip():
        raise InputError(f"{name} is empty; give a text.")
    return text

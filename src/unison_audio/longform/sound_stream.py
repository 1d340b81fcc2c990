"""Sounds that are written as they are made: to a file, or to a pipe that something plays from."""

import errno
from collections.abc import Iterable, Iterator
from io import RawIOBase
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from unison_audio.audio import Audio
from unison_audio.audio_encoder import AudioEncoder
from unison_audio.audio_writer import SampleLayout, write_audio
from unison_audio.files import check_sound_file, folder_of
from unison_audio.output_format import OutputFormat


def write_stream(
    sounds: Iterable[Audio], out: BinaryIO, output: OutputFormat | None = None
) -> None:
    """Write sounds one after the other to a pipe, each as soon as it is there.

    Args:
        sounds: Of one sample rate.
        out: Where to, such as `sys.stdout.buffer`.
        output: Format and options; by default wav.

    Raises:
        InputError: The format cannot be streamed.
        BrokenPipeError: Nobody reads any more.
    """
    encoder: AudioEncoder | None = None
    for sound in sounds:
        if encoder is None:
            encoder = AudioEncoder(output or OutputFormat(), sound.sample_rate, origin=sound.origin)
        _write(out, encoder.write(sound.waveform))
        # Without this, a player would wait until a buffer of several kilobytes is full.
        out.flush()
    if encoder is not None:
        _write(out, encoder.finish())
        out.flush()


def _write(out: BinaryIO, data: bytes) -> None:
    """Write all bytes.

    A file without a buffer, as standard output is with PYTHONUNBUFFERED, takes a part of them and
    reports no error where a disk or a size limit becomes full.
    """
    rest = memoryview(data)
    while rest:
        taken = out.write(rest)
        if not isinstance(out, RawIOBase):
            return
        if not taken:
            raise BlockingIOError(errno.EAGAIN, "The output takes no more at the moment")
        rest = rest[taken:]


def write_sounds(path: Path, sounds: Iterable[Audio], output: OutputFormat | None = None) -> None:
    """Write sounds one after the other into a file, which appears whole or not at all.

    Args:
        path: The file; its folder is made if it is missing.
        sounds: Of one sample rate, at least one.
        output: Format and options; by default the suffix decides.

    Raises:
        InputError: There is no such format or place, or the file cannot be written.
    """
    check_sound_file(path, output)
    pieces: Iterator[Audio] = iter(sounds)
    first = next(pieces)
    blocks = (sound.waveform.numpy()[:, None] for sound in chain([first], pieces))
    layout = SampleLayout(sample_rate=first.sample_rate, origin=first.origin)
    with folder_of(path):
        write_audio(path, blocks, layout, output)

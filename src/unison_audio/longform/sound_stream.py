"""Sounds that are written as they are made: to a file, or to a pipe that something plays from."""

import secrets
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import soundfile
import torch
from torch import Tensor

from unison_audio.audio import Audio
from unison_audio.audio_files import FORMATS, reason
from unison_audio.errors import InputError
from unison_audio.files import check_sound_file

UNKNOWN_SIZE = 0xFFFF_FFFF
"""Length in the header of a stream, whose length is not known yet. Players then read to
the end."""


def wav_header(sample_rate: int) -> bytes:
    """The header of a mono WAV stream of 16 bit whose length is not known, 44 bytes."""
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        UNKNOWN_SIZE,
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        sample_rate,
        2 * sample_rate,
        2,
        16,
        b"data",
        UNKNOWN_SIZE,
    )


def pcm16(waveform: Tensor) -> bytes:
    """Samples within -1..1 as 16-bit little-endian numbers; what exceeds them is limited."""
    scaled = (waveform.detach().cpu().double() * (1 << 15)).round()
    return scaled.clamp(-(1 << 15), (1 << 15) - 1).to(torch.int16).numpy().astype("<i2").tobytes()


def write_stream(sounds: Iterable[Audio], out: BinaryIO, *, raw: bool = False) -> None:
    """Write sounds one after the other to a pipe, each as soon as it is there.

    Args:
        sounds: Of one sample rate.
        out: Where to, such as `sys.stdout.buffer`.
        raw: Whether only the samples are written, without a WAV header.

    Raises:
        BrokenPipeError: Nobody reads any more.
    """
    first = True
    for sound in sounds:
        if first and not raw:
            out.write(wav_header(sound.sample_rate))
        first = False
        out.write(pcm16(sound.waveform))
        # Without this, a player would wait until a buffer of several kilobytes is full.
        out.flush()


def write_sounds(path: Path, sounds: Iterable[Audio]) -> None:
    """Write sounds one after the other into a file, which appears whole or not at all.

    Args:
        path: The suffix says the format: wav, flac, ogg or mp3.
        sounds: Of one sample rate, at least one.

    Raises:
        InputError: There is no such format or place, or the file cannot be written.
    """
    check_sound_file(path)
    container, coding = FORMATS[path.suffix.lower()]
    pieces: Iterator[Audio] = iter(sounds)
    first = next(pieces)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with soundfile.SoundFile(
            part, "x", first.sample_rate, channels=1, format=container, subtype=coding
        ) as file:
            for block in first.waveform.split(1 << 16):
                file.write(block.numpy())
            for sound in pieces:
                # In blocks: libsndfile's Vorbis encoder overflows its stack on long writes.
                for block in sound.waveform.split(1 << 16):
                    file.write(block.numpy())
        part.replace(path)
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(
            f"Cannot write {path} ({reason(error)}); choose another format or place."
        ) from error
    finally:
        part.unlink(missing_ok=True)

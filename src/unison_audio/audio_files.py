"""Checks of sound files by their headers: formats, faults, length.

Nothing here imports torch, so that a bad file is refused at once.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from unison_audio.errors import InputError
from unison_audio.values import require_path

if TYPE_CHECKING:
    import numpy as np
    from soundfile import SoundFile

MAX_HOURS = 100
"""Longest recording that is read."""

SILENCE_RMS = 1e-7
"""Below this RMS a waveform counts as digital silence: it is never amplified."""

MAX_RATE = 1_000_000
"""Highest sample rate of a recording in memory."""

# A WAV written to a pipe cannot know its length and claims about 2 or 4 GiB.
_STREAMED_SIZE = 0x7FFFF000


def seconds(path: str | os.PathLike[str]) -> float:
    """Read a sound file's length in seconds from its header, without decoding it.

    Raises:
        InputError: As for `audio.load`, if the header shows the fault.
    """
    name = require_file(path)
    import soundfile

    try:
        with soundfile.SoundFile(name) as file:
            return stated_frames(file, name) / file.samplerate
    except (soundfile.SoundFileError, TypeError, OSError, ValueError) as error:
        form = _other_form(name, error)
        if form is None:
            raise unreadable(name, error) from error
        return form[2]


def is_whole(path: Path) -> bool:
    """Whether a sound file of libsndfile's formats can be read up to its last sample."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            # A FLAC that was cut still states its whole length: only its end tells.
            file.seek(max(0, file.frames - 1))
            return len(file.read(1)) == 1
    except (soundfile.SoundFileError, TypeError, OSError, ValueError):
        return False


def _other_form(name: str, error: Exception) -> tuple[int, int, float] | None:
    """Rate, channels and seconds of a recording that only PyAV reads; None of any other.

    Raises:
        InputError: PyAV is missing, or cannot read it either.
    """
    from unison_audio.av_audio import container_of, read_form

    container = None if isinstance(error, InputError) else container_of(name)
    if container is None:
        return None
    try:
        form = read_form(name, container)
    except (OSError, ValueError) as reason_of_it:
        raise unreadable(name, reason_of_it) from reason_of_it
    if form[2] > MAX_HOURS * 3600:
        raise InputError(
            f"{name} is {form[2] / 3600:.0f} h long; give one of at most {MAX_HOURS} h."
        )
    return form


@dataclass(frozen=True, kw_only=True)
class SoundForm:
    """How the samples of a sound file are stored."""

    sample_rate: int
    """Samples per second."""
    channels: int
    """Number of channels."""
    bit_depth: int
    """16, 24, or 32 for float and for 32-bit integers; 16 where they are coded otherwise."""


def form_of(path: str | os.PathLike[str]) -> SoundForm:
    """Read from a sound file's header how its samples are stored.

    Raises:
        InputError: As for `audio.load`, if the header shows the fault.
    """
    name = require_file(path)
    import soundfile

    depths = {"PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 32}
    try:
        with soundfile.SoundFile(name) as file:
            return SoundForm(
                sample_rate=file.samplerate,
                channels=file.channels,
                bit_depth=depths.get(file.subtype, 16),
            )
    except (soundfile.SoundFileError, TypeError, OSError, ValueError) as error:
        form = _other_form(name, error)
        if form is None:
            raise unreadable(name, error) from error
        return SoundForm(sample_rate=form[0], channels=form[1], bit_depth=16)


def stated_frames(file: "SoundFile", name: str) -> int:
    """The frames that an open sound file's header states.

    libsndfile reports the unknown length of a streamed FLAC as 2^63 - 1 frames, and soundfile
    cannot read such a file to its end (findings/streamed-flac-read.sh).

    Raises:
        InputError: If the header states no length, or one that no recording has.
    """
    frames = int(file.frames)
    if frames > MAX_HOURS * 3600 * file.samplerate:
        raise InputError(
            f"The header of {name} states no length that a recording can have ({frames} samples), "
            "as of a stream; convert it to a whole file first, such as with: ffmpeg -i in out.wav"
        )
    return frames


def require_finite(
    samples: "np.ndarray",
    sample_rate: int,
    name: str,
    *,
    start: int = 0,
    advice: str = "give a clean recording",
) -> None:
    """Refuse samples that hold NaN or infinity, and say where the first is.

    This comes before resampling: soxr spreads one NaN over hundreds of samples.

    Args:
        samples: (samples,) or (samples, channels).
        sample_rate: Samples per second.
        name: Name of the recording in the message.
        start: Place of the first sample in the whole recording.
        advice: What to do.

    Raises:
        InputError: If a value is not finite.
    """
    import numpy as np

    finite = np.isfinite(samples)
    if finite.all():
        return
    bad = np.flatnonzero(~(finite if finite.ndim == 1 else finite.all(axis=1)))
    first = start + int(bad[0])
    others = f", and {len(bad) - 1} more after it" if len(bad) > 1 else ""
    raise InputError(
        f"{name} holds values that are not finite (NaN or infinity): the first at "
        f"{first / sample_rate:.3f} s (sample {first}){others}; {advice}."
    )


def require_file(path: str | os.PathLike[str]) -> str:
    """Refuse a path that is no file, an empty file, or a WAV shorter than its header says."""
    file = require_path(path, "The recording")
    if not file.exists():
        raise InputError(f"There is no file {file}; check the path.")
    if not file.is_file():
        raise InputError(f"{file} is not a file; give the path of a sound file.")
    try:
        size = file.stat().st_size
        if size == 0:
            raise InputError(f"{file} is empty (0 bytes); give a sound file.")
        with file.open("rb") as stream:
            missing = missing_wav_bytes(stream, size)
    except OSError as error:
        raise unreadable(str(file), error) from error
    if missing > 0:
        raise InputError(
            f"{file} is cut short ({missing} bytes of sound are missing); give the whole file."
        )
    return str(file)


def missing_wav_bytes(stream: BinaryIO, size: int) -> int:
    """Bytes that a RIFF file's data chunk promises and the file does not hold.

    libsndfile reads such a file up to its end without an error.

    Args:
        stream: The file; any that is no RIFF file lacks nothing.
        size: Its length in bytes.
    """
    stream.seek(0)
    head = stream.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return 0
    while len(chunk := stream.read(8)) == 8:
        kind, length = struct.unpack("<4sI", chunk)
        if kind == b"data":
            held = size - stream.tell()
            return 0 if length >= _STREAMED_SIZE else max(0, length - held)
        stream.seek(length + length % 2, os.SEEK_CUR)
    return 0


def reason(error: Exception) -> str:
    """The library's message on one line."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return str(text).strip().rstrip(".")


def unreadable(name: str, error: Exception) -> InputError:
    """The error of a file that the library cannot read."""
    if isinstance(error, InputError):  # it already says what is wrong
        return error
    return InputError(
        f"{name} cannot be read as sound ({reason(error)}); give a wav, flac, ogg, mp3, opus or "
        "m4a file."
    )

"""Recordings that clients upload: checked by their headers, and decoded within bounds."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import soundfile
import torch
from torch import Tensor

from unison_audio.audio import resample
from unison_audio.audio_files import require_finite
from unison_audio.av_audio import decode_blocks
from unison_audio.errors import InputError
from unison_audio.longform.native_audio import NativeAudio, open_recording
from unison_audio.sample_codings import to_float
from unison_audio.server.limits import Limits

RATES = (4_000, 384_000)
"""Lowest and highest sample rate that is read."""

MAX_CHANNELS = 8


@contextmanager
def kept_upload(file: IO[bytes]) -> Iterator[Path]:
    """Copy an upload to a folder of its own, without a name of the client's choice.

    Args:
        file: The upload, as the form's parser keeps it.
    """
    with tempfile.TemporaryDirectory(prefix="unison-upload-") as folder:
        path = Path(folder, "upload")
        with path.open("wb") as out:
            file.seek(0)
            shutil.copyfileobj(file, out)
        yield path


def open_upload(path: Path, what: str, limits: Limits, seconds: float) -> NativeAudio:
    """Look at an uploaded recording; what libsndfile cannot read is decoded to a file beside it.

    Args:
        path: The upload, in a folder of its own.
        what: Its name in messages, such as "audio".
        limits: Bounds on decoded samples.
        seconds: Longest recording.

    Raises:
        InputError: It is no recording, or exceeds a bound.
    """
    if path.stat().st_size == 0:
        raise InputError(f"{what} is empty (0 bytes); send a recording.")
    try:
        with soundfile.SoundFile(path) as file:
            _check(what, limits, seconds, (file.frames, file.samplerate, file.channels))
        found = open_recording(path)
    except InputError as error:
        raise _renamed(error, path, what) from error
    except (soundfile.SoundFileError, OSError, ValueError, TypeError):
        found = open_recording(_decode(path, what, limits, seconds))
    return replace(found, name=what)


def _check(what: str, limits: Limits, seconds: float, found: tuple[int, int, int]) -> None:
    """Refuse a recording by its header."""
    frames, rate, channels = found
    if not RATES[0] <= rate <= RATES[1] or not 1 <= channels <= MAX_CHANNELS:
        raise InputError(
            f"{what} has {channels} channels at {rate} Hz; send at most {MAX_CHANNELS} channels "
            f"at {RATES[0]} to {RATES[1]} Hz."
        )
    if frames > seconds * rate:
        raise InputError(
            f"{what} is longer than the {seconds:g} s that this server takes; cut it to that."
        )
    if frames * channels > limits.max_upload_samples:
        raise InputError(
            f"{what} has more than {limits.max_upload_samples:,} samples; lower its rate, or cut "
            "it."
        )


def _decode(path: Path, what: str, limits: Limits, seconds: float) -> Path:
    """Decode with FFmpeg into a wav file, since hours of samples would fill the memory."""
    demuxer = _demuxer(path)
    if demuxer is None:
        raise InputError(
            f"{what} is no recording that is understood; send wav, flac, mp3, ogg, opus, aac, m4a "
            "or webm."
        )
    decoded = path.with_name("decoded.wav")
    count = 0
    try:
        with path.open("rb") as file, ExitStack() as stack:
            out: soundfile.SoundFile | None = None
            for samples, rate in decode_blocks(file, f"{what} ({demuxer})", demuxer):
                if out is None:
                    opened = soundfile.SoundFile(decoded, "w", rate, samples.shape[1], "PCM_16")
                    out = stack.enter_context(opened)
                if (rate, samples.shape[1]) != (out.samplerate, out.channels):
                    raise InputError(f"{what} changes its format inside; convert it to wav.")
                count += len(samples)
                _check(what, limits, seconds, (count, rate, samples.shape[1]))
                out.write(samples)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} is damaged and cannot be decoded; send it again.") from error
    if count == 0:
        raise InputError(f"{what} holds no sound; send a recording.")
    return decoded


def _demuxer(path: Path) -> str | None:
    """FFmpeg's name of a container, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(16)
    if head[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if head[4:8] == b"ftyp":
        return "mov"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"
    if head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0):
        return "mp3"
    return {b"OggS": "ogg", b"fLaC": "flac", b"RIFF": "wav"}.get(head[:4])


def _renamed(error: InputError, path: Path, what: str) -> InputError:
    """A message about the client's field in place of the server's file."""
    return InputError(str(error).replace(f"The source {path}", what).replace(str(path), what))


def read_mono(recording: NativeAudio, sample_rate: int) -> Tensor:
    """A whole recording as mono at a sample rate.

    Args:
        recording: The recording.
        sample_rate: Samples per second of the result.

    Returns:
        (samples,) float32.

    Raises:
        InputError: It holds values that are not finite.
    """
    samples = to_float(recording.read(0, recording.frames)).mean(axis=1)
    require_finite(samples, recording.sample_rate, recording.name, advice="send a clean one")
    return resample(torch.from_numpy(samples).float(), recording.sample_rate, sample_rate)

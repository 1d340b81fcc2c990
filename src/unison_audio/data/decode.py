"""Decodes clips quickly for training: mono, resampled, cropped, and checked."""

import io
import wave
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from unison_audio.audio import resample
from unison_audio.audio_files import SILENCE_RMS
from unison_audio.data.recording import (
    SHORT_SECONDS,
    SHORT_SHARE,
    Recording,
    UnreadableAudioError,
)
from unison_audio.data.records import BrokenClipError

BROKEN_SOUND = "broken sound"

NOT_FINITE = "samples that are not finite"

SILENT = "silence"

MP3_LEAD = 12 * 1152
"""Frames decoded before a crop of MP3, since an MP3 packet uses bits of the packets before it."""


def decode(
    content: bytes,
    suffix: str,
    sample_rate: int,
    *,
    crop_seconds: float | None = None,
    draw: Callable[[], float] = lambda: 0.0,
) -> Tensor:
    """Decodes a clip.

    Args:
        content: The encoded recording, of any format, rate and number of channels.
        suffix: Suffix of its file name.
        sample_rate: Sample rate of the result in Hz.
        crop_seconds: Length of the stretch that is decoded of a longer recording.
        draw: Draws where the stretch begins, from 0 to 1; called only for a longer recording.

    Returns:
        Waveform (samples,), float32, the channels averaged.

    Raises:
        BrokenClipError: If the recording cannot be decoded to its end, or the stretch has a sample
            that is not finite, or is silent.
    """
    # For plain WAV, libsndfile takes ten times as long as the standard library.
    plain = _plain_wav(content) if suffix == "wav" else None
    if plain is not None:
        frames, rate = plain
        start, stop = _stretch(len(frames), rate, crop_seconds, draw)
        decoded = frames[start:stop].astype(np.float32) * np.float32(1 / (1 << 15))
    else:
        decoded, rate = _decode(content, suffix, crop_seconds, draw)
    mono = decoded[:, 0] if decoded.shape[1] == 1 else decoded.mean(axis=1)
    # One sum for both checks: any NaN or infinity makes the sum of squares NaN or infinite.
    power = float(np.dot(mono, mono)) / max(1, len(mono))
    if not np.isfinite(power):
        raise BrokenClipError(NOT_FINITE, "it holds NaN or infinity")
    if power < SILENCE_RMS**2:
        raise BrokenClipError(SILENT, "it is digital silence")
    waveform = resample(torch.from_numpy(np.ascontiguousarray(mono)), rate, sample_rate)
    return waveform if crop_seconds is None else waveform[: int(crop_seconds * sample_rate)]


def _decode(
    content: bytes, suffix: str, crop_seconds: float | None, draw: Callable[[], float]
) -> tuple[np.ndarray, int]:
    """Decodes with libsndfile: (frames, channels) and the rate."""
    try:
        recording = Recording(content, f"clip.{suffix}")
        try:
            header = recording.header
            start, stop = _stretch(header.frames, header.sample_rate, crop_seconds, draw)
            lead = min(start, MP3_LEAD) if suffix == "mp3" else 0
            decoded = recording.read(start - lead, stop)[lead:]
        finally:
            recording.close()
    except UnreadableAudioError as error:
        raise BrokenClipError(BROKEN_SOUND, str(error)) from error
    missing = (stop - start - len(decoded)) / header.sample_rate
    if missing > max(SHORT_SECONDS, SHORT_SHARE * header.seconds):
        raise BrokenClipError(BROKEN_SOUND, f"it ends {missing:.2f} s early")
    return decoded, header.sample_rate


def _stretch(
    frames: int, rate: int, crop_seconds: float | None, draw: Callable[[], float]
) -> tuple[int, int]:
    """First frame wanted, and one past the last."""
    wanted = frames if crop_seconds is None else min(frames, round(crop_seconds * rate))
    start = round(draw() * (frames - wanted)) if wanted < frames else 0
    return start, start + wanted


def _plain_wav(content: bytes) -> tuple[np.ndarray, int] | None:
    """Views the samples of a 16-bit PCM WAV.

    Returns:
        (frames, channels) int16 and the sample rate; None for any other or damaged file.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            shape = (file.getnframes(), file.getnchannels())
            if file.getsampwidth() != 2 or not shape[0] or not file.getframerate():
                return None
            samples = np.frombuffer(file.readframes(shape[0]), np.int16)
            return samples.reshape(shape), file.getframerate()
    except (wave.Error, EOFError, ValueError, RuntimeError):  # libsndfile says what is wrong
        return None

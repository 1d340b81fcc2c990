"""Encoded clips to waveforms: decoded as far as needed, mono, at the rate of the codec."""

import struct
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from unison_audio import audio
from unison_audio.data.encoded import Recording, UnreadableAudioError

BROKEN_SOUND = "broken sound"
NOT_FINITE = "samples that are not finite"
SILENT = "silence"
MP3_LEAD = 12 * 1152
"""Frames decoded before a stretch of mp3: its first packets need bits from those before them."""
_SHORT_SECONDS, _SHORT_SHARE = 0.1, 0.01
"""An mp3's header estimates its length: only what is missing beyond this is cut off."""
_RIFF, _CHUNK, _FORMAT = struct.Struct("<4sI4s"), struct.Struct("<4sI"), struct.Struct("<HHIIHH")
_PCM, _BITS = 1, 16


class BrokenClipError(Exception):
    """A clip that cannot be used; ``reason`` is one of a few, the message has the details."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


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
        suffix: Of its file name.
        sample_rate: Wanted, in Hz.
        crop_seconds: A longer recording gives a stretch of this length; only that is decoded.
        draw: Gives where the stretch begins, from 0 to 1; called only if one is cut out.

    Returns:
        Waveform (samples,), float32, the channels averaged.

    Raises:
        BrokenClipError: If the recording cannot be decoded to its end, holds values that are not
            finite, or is silent in the stretch.
    """
    plain = _plain_wav(content) if suffix == "wav" else None
    if plain is not None:
        frames, rate = plain
        start, stop = _stretch(len(frames), rate, crop_seconds, draw)
        decoded = frames[start:stop].astype(np.float32) * np.float32(1 / (1 << 15))
    else:
        decoded, rate = _decode(content, suffix, crop_seconds, draw)
    mono = decoded[:, 0] if decoded.shape[1] == 1 else decoded.mean(axis=1)
    # One pass for both: any NaN or infinity makes the sum of squares one, too.
    power = float(np.dot(mono, mono)) / max(1, len(mono))
    if not np.isfinite(power):
        raise BrokenClipError(NOT_FINITE, "it holds NaN or infinity")
    if power < audio.SILENCE_RMS**2:
        raise BrokenClipError(SILENT, "it is digital silence")
    waveform = audio.resample(torch.from_numpy(np.ascontiguousarray(mono)), rate, sample_rate)
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
    if missing > max(_SHORT_SECONDS, _SHORT_SHARE * header.seconds):
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
    """Views the samples of a 16-bit PCM WAV where they lie; libsndfile takes ten times as long.

    Returns:
        (frames, channels) int16 and the rate; None for anything else, or if anything is amiss.
    """
    if len(content) < _RIFF.size:
        return None
    riff, _, wave = _RIFF.unpack_from(content)
    if (riff, wave) != (b"RIFF", b"WAVE"):
        return None
    place, layout = _RIFF.size, None
    while place + _CHUNK.size <= len(content):
        name, size = _CHUNK.unpack_from(content, place)
        place += _CHUNK.size
        if name == b"fmt " and size >= _FORMAT.size and place + _FORMAT.size <= len(content):
            layout = _FORMAT.unpack_from(content, place)
        elif name == b"data":
            if layout is None or place + size > len(content):
                return None
            tag, channels, rate, _, frame_bytes, bits = layout
            if (tag, bits, frame_bytes) != (_PCM, _BITS, 2 * channels) or not (channels and rate):
                return None
            count = size // frame_bytes
            if not count:
                return None
            samples = np.frombuffer(content, "<i2", count * channels, place)
            return samples.reshape(count, channels), rate
        place += size + size % 2
    return None

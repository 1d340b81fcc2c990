"""Decodes recordings: whole or cut for preparation, quickly and cropped for training."""

import dataclasses
import io
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from unison_audio import audio
from unison_audio.audio import SILENCE_RMS
from unison_audio.audio_files import MAX_HOURS
from unison_audio.data.records import BrokenClipError
from unison_audio.errors import InputError

SUFFIXES = {
    "WAV": "wav",
    "WAVEX": "wav",
    "RF64": "wav",
    "FLAC": "flac",
    "MP3": "mp3",
    "OGG": "ogg",
}
"""libsndfile's name of a container that goes into a shard unchanged -> its suffix there."""

FOREIGN = frozenset({".m4a", ".aac", ".mp4", ".webm", ".mkv", ".wma"})
"""Suffixes of formats that PyAV (FFmpeg) reads and libsndfile does not."""

_BLOCK = 1 << 18

# A WAV written to a pipe states this length or more, since its true length is not known yet.
_STREAMED_SIZE = 0x7FFFF000

_SHORT_SECONDS, _SHORT_SHARE = 0.1, 0.01
"""Missing seconds, and share of the length, that are no damage: an MP3's length is an estimate."""

_FINE_SUBTYPES = frozenset({"PCM_24", "PCM_32", "FLOAT", "DOUBLE"})


class UnreadableAudioError(Exception):
    """A damaged recording; the message is the reason."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """Format and length of a recording."""

    suffix: str
    """Suffix of its container in a shard; empty if it must be encoded again."""
    frames: int
    """Samples per channel; for MP3 an estimate."""
    sample_rate: int
    """Sample rate in Hz."""
    channels: int
    """Number of channels."""

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


class Recording:
    """An open recording.

    Args:
        source: The file, or its bytes.
        name: File name; its suffix selects PyAV for formats that libsndfile cannot read.

    Raises:
        UnreadableAudioError: If it cannot be decoded.
        InputError: If PyAV is needed and missing.
    """

    def __init__(self, source: Path | bytes, name: str) -> None:
        self._foreign: tuple[np.ndarray, int] | None = None
        if Path(name).suffix.lower() in FOREIGN:
            samples, rate = self._foreign = _decode_foreign(source, name)
            self.header = Header(
                suffix="", frames=len(samples), sample_rate=rate, channels=samples.shape[1]
            )
            self._subtype = "PCM_16"
            return
        with _reasons():
            file = source if isinstance(source, Path) else io.BytesIO(source)
            self._file = soundfile.SoundFile(file)
            self.header = Header(
                suffix=SUFFIXES.get(self._file.format, ""),
                frames=self._file.frames,
                sample_rate=self._file.samplerate,
                channels=self._file.channels,
            )
            self._subtype = "PCM_24" if self._file.subtype in _FINE_SUBTYPES else "PCM_16"
        if not self.header.frames:
            raise UnreadableAudioError("no samples")
        if self.header.frames > MAX_HOURS * 3600 * self.header.sample_rate:
            raise UnreadableAudioError("its header states no length, as of a stream")
        if self.header.suffix == "wav" and _wav_is_short(source):
            raise UnreadableAudioError("ends before the length its header states")

    def close(self) -> None:
        """Closes the file."""
        if self._foreign is None:
            self._file.close()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Decodes the samples from `start` to `stop`.

        Returns:
            (frames, channels) float32; fewer frames at the end of the file.
        """
        if self._foreign is not None:
            return self._foreign[0][start:stop]
        with _reasons():
            if self._file.tell() != start:
                self._file.seek(start)
            return self._file.read(stop - start, dtype="float32", always_2d=True)

    def examine(self) -> tuple[int, bool]:
        """Decodes the whole recording.

        Returns:
            (frames, whether all of it is digital silence).

        Raises:
            UnreadableAudioError: If it cannot be decoded to its end, or has a sample that is not
                finite.
        """
        frames, silent = 0, True
        while len(block := self.read(frames, frames + _BLOCK)):
            low, high = float(block.min()), float(block.max())
            if not np.isfinite(low) or not np.isfinite(high):
                raise UnreadableAudioError("samples that are not finite")
            silent = silent and max(-low, high) < SILENCE_RMS
            frames += len(block)
        missing = (self.header.frames - frames) / self.header.sample_rate
        if missing > max(_SHORT_SECONDS, _SHORT_SHARE * self.header.seconds):
            raise UnreadableAudioError(
                f"ends after {frames / self.header.sample_rate:.2f} of {self.header.seconds:.2f} s"
            )
        return frames, silent

    def cut(self, start: int, stop: int) -> tuple[bytes, int, bool]:
        """Encodes the samples from `start` to `stop` as FLAC.

        Returns:
            (FLAC file, frames, whether it is digital silence).

        Raises:
            UnreadableAudioError: As in `examine`.
        """
        samples = self.read(start, stop)
        peak = float(np.abs(samples).max(initial=0.0))
        if not np.isfinite(peak):
            raise UnreadableAudioError("samples that are not finite")
        if peak > 1.0:  # lossy codecs overshoot, and FLAC would clip
            samples = samples / peak
        encoded = io.BytesIO()
        soundfile.write(encoded, samples, self.header.sample_rate, self._subtype, format="FLAC")
        return encoded.getvalue(), len(samples), peak < SILENCE_RMS


def _wav_is_short(source: Path | bytes) -> bool:
    # libsndfile reads a truncated file without an error. The transcript would then have more words
    # than the sound.
    if isinstance(source, Path):
        with source.open("rb") as file:
            head, size = file.read(8), source.stat().st_size
    else:
        head, size = source[:8], len(source)
    stated = int.from_bytes(head[4:8], "little")
    return head[:4] == b"RIFF" and size + 1 < stated + 8 and stated < _STREAMED_SIZE


@contextmanager
def _reasons() -> Iterator[None]:
    try:
        yield
    except (soundfile.SoundFileError, OSError, TypeError, ValueError, RuntimeError) as error:
        reason = str(getattr(error, "error_string", error)).strip()
        raise UnreadableAudioError(f"cannot be decoded ({reason})") from error


def _decode_foreign(source: Path | bytes, name: str) -> tuple[np.ndarray, int]:
    try:
        import av
    except ModuleNotFoundError:
        raise InputError(
            f"{name} can only be read with the package av, which is missing; install it with: "
            "pip install 'unison-audio[av]'"
        ) from None
    try:
        with av.open(str(source) if isinstance(source, Path) else io.BytesIO(source)) as container:
            if not container.streams.audio:
                raise UnreadableAudioError("no audio stream")
            assert isinstance(container, av.container.InputContainer)
            stream = container.streams.audio[0]
            planar = av.AudioResampler(format="fltp")
            blocks = [
                block.to_ndarray().T
                for frame in container.decode(stream)
                for block in planar.resample(frame)
            ]
            rate = int(stream.rate)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableAudioError(f"cannot be decoded ({error})") from error
    if not blocks:
        raise UnreadableAudioError("no samples")
    return np.concatenate(blocks), rate


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

"""Opens recordings of any format, checks them, and decodes the clips of training."""

import dataclasses
import io
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from unison_audio.audio_files import MAX_HOURS, SILENCE_RMS, missing_wav_bytes
from unison_audio.av_audio import decode_blocks
from unison_audio.data.records import BrokenClipError
from unison_audio.output_format import require_av

if TYPE_CHECKING:
    from torch import Tensor

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

SHORT_SECONDS, SHORT_SHARE = 0.1, 0.01
"""Missing seconds, and share of the length, that are no damage: an MP3's length is an estimate."""

MP3_LEAD = 12 * 1152
"""Frames decoded before a crop of MP3, since an MP3 packet uses bits of the packets before it."""

NOT_FINITE = "samples that are not finite"

_FINE_SUBTYPES = frozenset({"PCM_24", "PCM_32", "FLOAT", "DOUBLE"})


class UnreadableAudioError(BrokenClipError):
    """A damaged recording; the message says how."""

    def __init__(self, detail: str) -> None:
        super().__init__("broken sound", detail)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """Format and length of a recording."""

    suffix: str = ""
    """Suffix of its container in a shard; empty if it must be encoded again."""
    subtype: str = "PCM_16"
    """Type of FLAC samples that loses nothing of it."""
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

    def is_short(self, missing: int) -> bool:
        """Whether so many missing frames are damage."""
        return missing / self.sample_rate > max(SHORT_SECONDS, SHORT_SHARE * self.seconds)


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
        self._decoded: np.ndarray | None = None
        if Path(name).suffix.lower() in FOREIGN:
            self._decoded, rate = _decode_foreign(source, name)
            frames, channels = self._decoded.shape
            self.header = Header(frames=frames, sample_rate=rate, channels=channels)
            return
        with _reasons():
            with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
                missing = missing_wav_bytes(file, file.seek(0, io.SEEK_END))
            # A path, since libsndfile reads a file of its own faster than one of Python's.
            self._file = soundfile.SoundFile(
                source if isinstance(source, Path) else io.BytesIO(source)
            )
        self.header = Header(
            suffix=SUFFIXES.get(self._file.format, ""),
            subtype="PCM_24" if self._file.subtype in _FINE_SUBTYPES else "PCM_16",
            frames=self._file.frames,
            sample_rate=self._file.samplerate,
            channels=self._file.channels,
        )
        if not self.header.frames:
            raise UnreadableAudioError("no samples")
        if self.header.frames > MAX_HOURS * 3600 * self.header.sample_rate:
            raise UnreadableAudioError("its header states no length, as of a stream")
        # libsndfile reads a truncated WAV without an error; its transcript would have more words.
        if missing:
            raise UnreadableAudioError("ends before the length its header states")

    def close(self) -> None:
        """Closes the file."""
        if self._decoded is None:
            self._file.close()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Decodes the samples from `start` to `stop`.

        Returns:
            (frames, channels) float32; fewer frames at the end of the file.
        """
        if self._decoded is not None:
            return self._decoded[start:stop]
        with _reasons():
            # To seek in MP3 or Vorbis costs a search, even to the place where the file stands.
            if self._file.tell() != start:
                self._file.seek(start)
            return self._file.read(stop - start, dtype="float32", always_2d=True)


@contextmanager
def _reasons() -> Iterator[None]:
    try:
        yield
    except (soundfile.SoundFileError, OSError, TypeError, ValueError, RuntimeError) as error:
        reason = str(getattr(error, "error_string", error)).strip()
        raise UnreadableAudioError(f"cannot be decoded ({reason})") from error


def _decode_foreign(source: Path | bytes, name: str) -> tuple[np.ndarray, int]:
    require_av(name)  # outside of `_reasons`: that the package is missing is no fault of the file
    with _reasons():
        file = str(source) if isinstance(source, Path) else io.BytesIO(source)
        blocks = list(decode_blocks(file, name))
    if not blocks:
        raise UnreadableAudioError("no samples")
    return np.concatenate([block for block, _ in blocks]), blocks[0][1]


def decode(
    content: bytes,
    suffix: str,
    sample_rate: int,
    *,
    crop_seconds: float | None = None,
    draw: Callable[[], float] = lambda: 0.0,
) -> "Tensor":
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
    import torch

    from unison_audio.audio import resample

    with closing(Recording(content, f"clip.{suffix}")) as recording:
        header = recording.header
        frames, rate = header.frames, header.sample_rate
        wanted = frames if crop_seconds is None else min(frames, round(crop_seconds * rate))
        start = round(draw() * (frames - wanted)) if wanted < frames else 0
        lead = min(start, MP3_LEAD) if suffix == "mp3" else 0
        decoded = recording.read(start - lead, start + wanted)[lead:]
    if header.is_short(wanted - len(decoded)):
        missing = (wanted - len(decoded)) / rate
        raise UnreadableAudioError(f"it ends {missing:.2f} s early")
    mono = decoded[:, 0] if decoded.shape[1] == 1 else decoded.mean(axis=1)
    # One sum for both checks: any NaN or infinity makes the sum of squares NaN or infinite.
    power = float(np.dot(mono, mono)) / max(1, len(mono))
    if not np.isfinite(power):
        raise BrokenClipError(NOT_FINITE, "it holds NaN or infinity")
    if power < SILENCE_RMS**2:
        raise BrokenClipError("silence", "it is digital silence")
    waveform = resample(torch.from_numpy(np.ascontiguousarray(mono)), rate, sample_rate)
    return waveform if crop_seconds is None else waveform[: int(crop_seconds * sample_rate)]

"""Opens recordings of any format, checks them to their end and cuts pieces out; needs no torch."""

import dataclasses
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

from unison_audio.audio_files import MAX_HOURS, SILENCE_RMS
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

SHORT_SECONDS, SHORT_SHARE = 0.1, 0.01
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
            # To seek in MP3 or Vorbis costs a search, even to the place where the file stands.
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
            # NaN goes through min and max, so that no mask of the samples is needed.
            low, high = float(block.min()), float(block.max())
            if not np.isfinite(low) or not np.isfinite(high):
                raise UnreadableAudioError("samples that are not finite")
            silent = silent and max(-low, high) < SILENCE_RMS
            frames += len(block)
        missing = (self.header.frames - frames) / self.header.sample_rate
        if missing > max(SHORT_SECONDS, SHORT_SHARE * self.header.seconds):
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

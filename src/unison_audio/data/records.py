"""One clip: its record, and its recording, which is opened, checked and decoded here."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from unison_audio.audio_files import MAX_HOURS, SILENCE_RMS, missing_wav_bytes
from unison_audio.av_audio import decode_blocks
from unison_audio.data.captions import plain_caption
from unison_audio.output_format import require_av

if TYPE_CHECKING:
    from torch import Tensor

ZERO_SHOT_SECONDS = 3.0
"""Speech at least this long can give a reference and a target (paper, appendix C)."""

BROKEN_RECORD, NOT_FINITE = "broken record", "samples that are not finite"

MAX_RECORD_BYTES = 1 << 20

_BLOCK = 1 << 20
"""Samples that are decoded at once of a file that is decoded whole."""

SUFFIXES = {"WAV": "wav", "WAVEX": "wav", "RF64": "wav", "FLAC": "flac", "MP3": "mp3", "OGG": "ogg"}
"""libsndfile's name of a container that goes into a shard unchanged -> its suffix there."""

FOREIGN = frozenset({".m4a", ".aac", ".mp4", ".webm", ".mkv", ".wma"})
"""Suffixes of formats that PyAV (FFmpeg) reads and libsndfile does not."""

SHORT_SECONDS, SHORT_SHARE = 0.1, 0.01
"""Missing seconds, and share of the length, that are no damage: an MP3's length is an estimate."""

MP3_LEAD = 12 * 1152
"""Frames decoded before a crop of MP3, since an MP3 packet uses bits of the packets before it."""

_FINE_SUBTYPES = frozenset({"PCM_24", "PCM_32", "FLOAT", "DOUBLE"})


class BrokenClipError(Exception):
    """A clip that cannot be used; `reason` is one of a few texts, the message has the details."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


class UnreadableAudioError(BrokenClipError):
    """A damaged recording; the message says how."""

    def __init__(self, detail: str) -> None:
        super().__init__("broken sound", detail)


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """Metadata of one recording; its fields are the JSON keys in a shard."""

    key: str
    """Name, unique in its corpus."""
    kind: str
    """`speech` or `sound`; `noise` for synthetic noise, which no corpus holds."""
    split: str
    """`train`, `heldout` (held-out texts or clips) or `speakers` (held-out speakers)."""
    seconds: float
    """Length in seconds."""
    licence: str
    """License of the recording or the voice."""
    source: str
    """Corpus or package with the path in it, or the synthetic voice."""
    text: str = ""
    """Transcript; empty if unknown."""
    speaker: str = ""
    """Speaker name, equal for equal voices."""
    gender: str = ""
    """`male`, `female` or empty."""
    label: str = ""
    """Event label that fits into "Add ..."."""
    caption: str = ""
    """A sentence that describes the sound."""
    language: str = ""
    """Language of the text or caption: `en`, `zh` or another code; empty if unknown."""
    sample_rate: int = 0
    """Sample rate of the recording in the shard in Hz; 0 in corpora of one rate, such as nano's."""
    channels: int = 1
    """Channels of the recording in the shard."""

    @property
    def zero_shot(self) -> bool:
        """Whether it is long enough to give a reference and a target (paper, appendix C)."""
        return self.kind == "speech" and bool(self.text) and self.seconds >= ZERO_SHOT_SECONDS


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A decoded recording with its record."""

    record: ClipRecord
    waveform: "Tensor"
    """(samples,) float32, mono."""


def in_split(split: str, wanted: str | None) -> bool:
    """Whether a split is wanted: `heldout` includes `speakers`, None is every split."""
    return wanted in (None, split) or (wanted == "heldout" and split == "speakers")


def label_of(record: ClipRecord) -> str:
    """The label of a sound, or its caption as a phrase if it has none."""
    return record.label or plain_caption(record.caption)


_TYPES: dict[str, Any] = {field.name: field.type for field in fields(ClipRecord)}
_TYPES["seconds"] = (float, int)  # JSON may state whole seconds as an integer


def read_record(content: bytes) -> ClipRecord:
    """Reads the record of a clip; unknown keys are ignored.

    Raises:
        BrokenClipError: If it is no record, or a sound has neither label nor caption.
    """
    # No record is so long, and the parser would take many times its size in memory.
    if len(content) > MAX_RECORD_BYTES:
        raise BrokenClipError(BROKEN_RECORD, f"it has {len(content)} bytes")
    try:
        values = json.loads(content)
        record = ClipRecord(**{name: values[name] for name in _TYPES if name in values})
    except (ValueError, TypeError, RecursionError) as error:
        raise BrokenClipError(BROKEN_RECORD, str(error)) from error
    # A dataclass checks no types; a wrong one would fail much later, in a builder.
    for name, types in _TYPES.items():
        if not isinstance(getattr(record, name), types):
            raise BrokenClipError(BROKEN_RECORD, f"{name} is {getattr(record, name)!r:.80}")
    if record.kind == "sound" and not (record.label or record.caption):
        raise BrokenClipError(BROKEN_RECORD, "it has neither label nor caption")
    return record


class Recording:
    """An open recording.

    Args:
        source: The file, or its bytes.
        name: File name; its suffix selects PyAV for formats that libsndfile cannot read.

    Raises:
        UnreadableAudioError: If it cannot be decoded.
        InputError: If PyAV is needed and missing.
    """

    suffix: str = ""
    """Suffix of its container in a shard; empty if it must be encoded again."""
    subtype: str = "PCM_16"
    """Type of FLAC samples that loses nothing of it."""
    frames: int
    """Samples per channel; for MP3 an estimate."""
    sample_rate: int
    channels: int

    def __init__(self, source: Path | bytes, name: str) -> None:
        self._decoded: np.ndarray | None = None
        if Path(name).suffix.lower() in FOREIGN:
            self._decoded, self.sample_rate = _decode_foreign(source, name)
            self.frames, self.channels = self._decoded.shape
            return
        with _reasons():
            with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
                missing = missing_wav_bytes(file, file.seek(0, io.SEEK_END))
            # A path, since libsndfile reads a file of its own faster than one of Python's.
            self._file = soundfile.SoundFile(
                source if isinstance(source, Path) else io.BytesIO(source)
            )
        self.suffix = SUFFIXES.get(self._file.format, "")
        self.subtype = "PCM_24" if self._file.subtype in _FINE_SUBTYPES else "PCM_16"
        self.frames, self.channels = self._file.frames, self._file.channels
        self.sample_rate = self._file.samplerate
        if not self.frames:
            raise UnreadableAudioError("no samples")
        if self.frames > MAX_HOURS * 3600 * self.sample_rate:
            raise UnreadableAudioError("its header states no length, as of a stream")
        # libsndfile reads a truncated WAV without an error; its transcript would have more words.
        if missing:
            raise UnreadableAudioError("ends before the length its header states")
        if not self._file.seekable():  # GSM and the like: kept as FLAC, which can be cropped
            self._decoded, self.suffix = self._read_all(), ""
            self.frames = len(self._decoded)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate

    def is_short(self, missing: int) -> bool:
        """Whether so many missing frames are damage."""
        return missing / self.sample_rate > max(SHORT_SECONDS, SHORT_SHARE * self.seconds)

    def _read_all(self) -> np.ndarray:
        """Decodes the whole file in pieces, as far as it goes, and closes it."""
        blocks = [np.zeros((0, self.channels), np.float32)]
        with _reasons(), self._file as file:
            while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                blocks.append(block)
        return np.concatenate(blocks)

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
    """Decodes a clip of any format, rate and number of channels, which are averaged.

    Args:
        content: The encoded recording.
        suffix: Suffix of its file name.
        sample_rate: Sample rate of the waveform in Hz.
        crop_seconds: Length of the stretch that is decoded of a longer recording.
        draw: Draws where the stretch begins, from 0 to 1; called only for a longer recording.

    Returns:
        (samples,) float32.

    Raises:
        BrokenClipError: If the recording cannot be decoded to its end, or the stretch has a sample
            that is not finite, or is silent.
    """
    import torch

    from unison_audio.audio import resample

    with closing(Recording(content, f"clip.{suffix}")) as recording:
        frames, rate = recording.frames, recording.sample_rate
        wanted = frames if crop_seconds is None else min(frames, round(crop_seconds * rate))
        start = round(draw() * (frames - wanted)) if wanted < frames else 0
        lead = min(start, MP3_LEAD) if suffix == "mp3" else 0
        decoded = recording.read(start - lead, start + wanted)[lead:]
    missing = wanted - len(decoded)
    if recording.is_short(missing):
        raise UnreadableAudioError(f"it ends {missing / rate:.2f} s early")
    mono = decoded[:, 0] if decoded.shape[1] == 1 else decoded.mean(axis=1)
    # One sum for both checks: any NaN or infinity makes the sum of squares NaN or infinite.
    power = float(np.dot(mono, mono)) / max(1, len(mono))
    if not np.isfinite(power):
        raise BrokenClipError(NOT_FINITE, "it holds NaN or infinity")
    if power < SILENCE_RMS**2:
        raise BrokenClipError("silence", "it is digital silence")
    waveform = resample(torch.from_numpy(np.ascontiguousarray(mono)), rate, sample_rate)
    return waveform if crop_seconds is None else waveform[: int(crop_seconds * sample_rate)]

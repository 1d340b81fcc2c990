"""Turns a published clip into clips of a shard: checks, filters and cutting."""

import dataclasses
import hashlib
import io
import re
from pathlib import Path

import numpy as np
import soundfile

from unison_audio.audio_files import SILENCE_RMS
from unison_audio.data.captions import (
    EMPTY,
    MENTIONS_SPEECH,
    NOT_UTF8,
    mentions_speech,
    plain_caption,
    text_fault,
)
from unison_audio.data.corpora.source import Skipped, SourceClip
from unison_audio.data.corpora.source_files import ARCHIVE_ERRORS
from unison_audio.data.records import NOT_FINITE, ClipRecord, Recording, UnreadableAudioError

MIN_SECONDS = 0.5
"""Shorter clips are left out."""

MAX_SECONDS = 30.0
"""Longer speech is left out, since its text cannot be cut too; longer sounds become pieces."""

PIECE_SECONDS, PIECES = 10.0, 3
"""Length and number of the pieces of a long sound, spread evenly over it.

The paper counts 841K clips of 9.4 s for WavCaps, which has 403K recordings of 67.6 s. It does not
say how they were cut; this rule is this project's choice."""

TOO_SHORT = f"shorter than {MIN_SECONDS:g} s"

TOO_LONG = f"speech longer than {MAX_SECONDS:g} s"

SILENT = "silent"

# Published lengths are rounded, and decoders pad: a small difference is no damage.
_END_TOLERANCE = 0.5

_STATED_SHARE = 0.9

# A plain tar header has room for 100 bytes, the suffix included.
_KEY_BYTES = 80

_BLOCK = 1 << 18


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodedClip:
    """A clip as bytes for a shard: the published bytes, since coding them again loses quality."""

    record: ClipRecord
    """Its metadata."""
    suffix: str
    """Suffix of its container."""
    content: bytes
    """The encoded recording."""


class ClipReader:
    """Turns published clips into encoded ones; the last file stays open for its next segment.

    Args:
        corpus: Name of the corpus, for the field `source`.
        licence: License of clips that state none.
    """

    def __init__(self, corpus: str, licence: str) -> None:
        self.corpus = corpus
        self.licence = licence
        self._open: tuple[Path, Recording] | None = None

    def close(self) -> None:
        """Closes the file kept open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def read(self, clip: SourceClip) -> list[EncodedClip] | Skipped:
        """Reads a clip.

        Returns:
            The encoded clips, several for a long sound; or the reason why there are none.

        Raises:
            InputError: If its format needs a package that is missing.
        """
        fault = _text_fault(clip)
        if fault:
            return Skipped(file=clip.file, reason=fault, broken=fault == NOT_UTF8)
        if clip.kind == "sound" and mentions_speech(f"{clip.caption}\n{clip.label}"):
            return Skipped(file=clip.file, reason=MENTIONS_SPEECH)
        try:
            return self._encode(clip)
        except UnreadableAudioError as error:
            return Skipped(file=clip.file, reason=str(error), broken=True)
        except ARCHIVE_ERRORS as error:
            return Skipped(file=clip.file, reason=f"cannot be read ({error})", broken=True)

    def _encode(self, clip: SourceClip) -> list[EncodedClip] | Skipped:
        content = None if isinstance(clip.audio, Path) else clip.audio()
        recording = self._recording(clip, content)
        try:
            span = _span(clip, recording.seconds)
            length = recording.seconds if span is None else span[1] - span[0]
            if length < MIN_SECONDS:
                return Skipped(file=clip.file, reason=TOO_SHORT)
            if length > MAX_SECONDS and clip.kind == "speech":
                return Skipped(file=clip.file, reason=TOO_LONG)
            # None stands for a file that goes into the shard with its own bytes.
            spans = [span] if length <= MAX_SECONDS else _pieces(span or (0.0, length))
            if spans == [None]:
                return self._whole(clip, recording, content)
            encoded = []
            for i, (start, end) in enumerate(filter(None, spans)):
                first, last = (
                    round(start * recording.sample_rate),
                    round(end * recording.sample_rate),
                )
                flac, frames, silent = cut(recording, first, last)
                if silent:
                    continue
                key = clip.key if len(spans) == 1 else f"{clip.key}_piece{i}"
                record = self._record(clip, key, recording, frames)
                encoded.append(EncodedClip(record=record, suffix="flac", content=flac))
            return encoded or Skipped(file=clip.file, reason=SILENT)
        finally:
            if content is not None:
                recording.close()

    def _recording(self, clip: SourceClip, content: bytes | None) -> Recording:
        if content is not None:
            return Recording(content, clip.file)
        assert isinstance(clip.audio, Path)
        # WenetSpeech has hours in one file, which would otherwise be opened for each segment.
        if self._open is None or self._open[0] != clip.audio:
            self.close()
            self._open = (clip.audio, Recording(clip.audio, clip.file))
        return self._open[1]

    def _whole(
        self, clip: SourceClip, recording: Recording, content: bytes | None
    ) -> list[EncodedClip] | Skipped:
        # Decoded to its end although the bytes are kept: damage must not reach the training.
        frames, silent = examine(recording)
        seconds = frames / recording.sample_rate
        if clip.seconds is not None and seconds < _STATED_SHARE * clip.seconds - _END_TOLERANCE:
            raise UnreadableAudioError(f"{seconds:.2f} s long where {clip.seconds:.2f} are stated")
        if silent:
            return Skipped(file=clip.file, reason=SILENT)
        suffix = recording.suffix
        if not suffix:
            suffix, (content, frames, _) = "flac", cut(recording, 0, frames)
        elif content is None:
            assert isinstance(clip.audio, Path)
            content = clip.audio.read_bytes()
        record = self._record(clip, clip.key, recording, frames)
        return [EncodedClip(record=record, suffix=suffix, content=content)]

    def _record(self, clip: SourceClip, key: str, recording: Recording, frames: int) -> ClipRecord:
        caption = " ".join(clip.caption.split())
        label = " ".join(clip.label.split())
        return ClipRecord(
            key=safe_key(key),
            kind=clip.kind,
            split=clip.split,
            seconds=round(frames / recording.sample_rate, 6),
            licence=clip.licence or self.licence,
            # A file name need not be UTF-8; JSON in a shard must be.
            source=f"{self.corpus}:{clip.file}".encode("utf-8", "replace").decode(),
            text=" ".join(clip.text.split()),
            speaker=clip.speaker,
            gender=clip.gender,
            label=label or (plain_caption(caption) if clip.kind == "sound" else ""),
            caption=caption,
            language=clip.language,
            sample_rate=recording.sample_rate,
            channels=recording.channels,
        )


def examine(recording: Recording) -> tuple[int, bool]:
    """Decodes a whole recording.

    Returns:
        (frames, whether all of it is digital silence).

    Raises:
        UnreadableAudioError: If it cannot be decoded to its end, or has a sample that is not
            finite.
    """
    frames, silent = 0, True
    while len(block := recording.read(frames, frames + _BLOCK)):
        # NaN goes through min and max, so that no mask of the samples is needed.
        low, high = float(block.min()), float(block.max())
        if not np.isfinite(low) or not np.isfinite(high):
            raise UnreadableAudioError(NOT_FINITE)
        silent = silent and max(-low, high) < SILENCE_RMS
        frames += len(block)
    if recording.is_short(recording.frames - frames):
        raise UnreadableAudioError(
            f"ends after {frames / recording.sample_rate:.2f} of {recording.seconds:.2f} s"
        )
    return frames, silent


def cut(recording: Recording, start: int, stop: int) -> tuple[bytes, int, bool]:
    """Encodes the samples from `start` to `stop` as FLAC.

    Returns:
        (FLAC file, frames, whether it is digital silence).

    Raises:
        UnreadableAudioError: As in `examine`.
    """
    samples = recording.read(start, stop)
    peak = float(np.abs(samples).max(initial=0.0))
    if not np.isfinite(peak):
        raise UnreadableAudioError(NOT_FINITE)
    if peak > 1.0:  # lossy codecs overshoot, and FLAC would clip
        samples = samples / peak
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, recording.sample_rate, recording.subtype, format="FLAC")
    return encoded.getvalue(), len(samples), peak < SILENCE_RMS


def safe_key(key: str) -> str:
    """Makes a key that WebDataset and tar accept; different keys stay different.

    WebDataset ends a key at the first dot, and takes the part before a slash as a folder.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", key)[:_KEY_BYTES]
    if plain == key:
        return key
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return f"{plain[: _KEY_BYTES - 17]}-{digest}"


def _text_fault(clip: SourceClip) -> str:
    words = clip.text if clip.kind == "speech" else clip.caption or clip.label
    others = (clip.text, clip.caption, clip.label, clip.speaker)
    faults = (fault for text in others if (fault := text_fault(text)) not in ("", EMPTY))
    return text_fault(words) or next(faults, "")


def _span(clip: SourceClip, seconds: float) -> tuple[float, float] | None:
    """The segment to cut out, in seconds; None for the whole file."""
    if clip.start is None or seconds <= clip.cut_over:
        return None
    end = seconds if clip.end is None else clip.end
    # Speech must have its end, where words are; a sound may be shorter than its table says.
    missing = end - seconds
    if not 0.0 <= clip.start < min(end, seconds) or (
        clip.kind == "speech" and missing > _END_TOLERANCE
    ):
        raise UnreadableAudioError(
            f"the segment from {clip.start:.2f} to {end:.2f} s is not inside the file's "
            f"{seconds:.2f} s"
        )
    return clip.start, min(end, seconds)


def _pieces(span: tuple[float, float]) -> list[tuple[float, float] | None]:
    start, room = span[0], span[1] - span[0] - PIECE_SECONDS
    starts = [start + room * i / (PIECES - 1) for i in range(PIECES)]
    return [(first, first + PIECE_SECONDS) for first in starts]

"""Files of sound, written whole or not at all, in every format of `output_format`."""

import os
import secrets
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from unison_audio.audio_files import reason
from unison_audio.av_audio import AvWriter, decode_blocks
from unison_audio.errors import InputError
from unison_audio.files import check_replaceable
from unison_audio.loudness import gain_to, measure, require_loudness_filter
from unison_audio.output_format import OutputFormat, bit_rate_limits, require_av
from unison_audio.provenance.file_tags import write_tags
from unison_audio.provenance.manifests import sign
from unison_audio.provenance.marks import Marks, choose_marks
from unison_audio.provenance.origin import Origin
from unison_audio.provenance.payload import PayloadStream
from unison_audio.provenance.watermark import MarkStream, WatermarkStream, mark_blocks
from unison_audio.sample_codings import Samples, from_float, to_float
from unison_audio.values import require_path

LOSSY_PEAK = 0.99
"""Highest sample of a lossy file as it is decoded, where the first attempt exceeds full scale."""

LONGEST_WAV_BYTES = 0xFFFF_0000
"""A WAV's sizes are 32-bit numbers; what is longer becomes an RF64 file."""

_BLOCK = 1 << 16
"""Samples that are written at once: libsndfile's Vorbis encoder overflows its stack on long
single writes."""


class OutputWarning(UserWarning):
    """What was written differs from what was asked for."""


@dataclass(frozen=True, kw_only=True)
class SampleLayout:
    """The samples that a file is written from."""

    sample_rate: int
    """Samples per second."""
    channels: int = 1
    """Number of channels."""
    coding: str | None = None
    """A key of `LOSSLESS` for samples as they are stored in files, which a lossless file keeps
    where no other bit depth is asked for."""
    frames: int = 0
    """Samples of one channel, where their number is known."""
    origin: Origin | None = None
    """Where the sound comes from; None for sound that this program did not make."""


def write_audio(
    path: str | os.PathLike[str],
    blocks: Iterable[Samples],
    layout: SampleLayout,
    output: OutputFormat | None = None,
    on_note: Callable[[str], None] | None = None,
) -> None:
    """Write a file of sound atomically, with its marks: every output that is a file comes here.

    The level of a lossy file is lowered where its decoded samples would exceed full scale.

    Args:
        path: The file; its folder must exist.
        blocks: (samples, channels) each, floats within -1..1 or stored samples. A lossy file may
            have to be written several times, and a loudness takes two passes: blocks that are no
            sequence are kept on the disk.
        layout: Rate, channels and number type of the blocks.
        output: Format and options; by default the suffix decides.
        on_note: Called with a sentence about the result; by default it becomes a warning.

    Raises:
        InputError: The name or an option does not fit, or the file cannot be written.
    """
    target = require_path(path, "The output").resolve()
    output = (output or OutputFormat()).of_file(target)
    check_replaceable(target)
    if not target.parent.is_dir():
        raise InputError(f"Cannot write {path}: there is no folder {target.parent}; create it.")
    rate = output.rate_for(layout.sample_rate)
    marks = choose_marks(output, layout.origin)
    if not output.info.container:
        require_av(f"The format {output.format}")
        output.bits_per_second(rate, layout.channels)
    if output.loudness is not None:
        require_loudness_filter(layout.channels)
    say = _warn if on_note is None else on_note
    # Beside the target, so that the final rename stays within one file system and is atomic.
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with ExitStack() as stack:
            # 1. The level, of the samples as they are before they are marked and coded.
            if output.loudness is not None:
                again = stack.enter_context(_repeatable(blocks, part.parent, layout.channels))
                found = measure(again, layout.sample_rate, layout.channels)
                gain, note = gain_to(output.loudness, found)
                blocks = _at_level(again, gain, layout.coding)
                if note:
                    say(note)
            # 2. The mark in the samples.
            stream = _open_mark(marks, layout)
            if stream is not None:
                blocks = _with_mark(blocks, stream, layout.coding)
            # 3. The samples, behind the tags.
            if output.info.lossy:
                again = stack.enter_context(_repeatable(blocks, part.parent, layout.channels))
                _write_lossy(part, again, layout, (output, marks))
            else:
                _write_once(part, blocks, layout, (output, marks))
        # 4. The signature, of the whole file: whatever changes after it breaks it.
        if marks.signature is not None and layout.origin is not None:
            signed = sign(part.read_bytes(), target.suffix, layout.origin, marks.signature)
            part.write_bytes(signed)
        part.replace(target)
        if stream is not None and stream.note:
            say(stream.note)
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"Cannot write {path} at {rate} Hz ({reason(error)}); choose another format or place."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _warn(note: str) -> None:
    warnings.warn(OutputWarning(note), stacklevel=3)


def _at_level(blocks: Iterable[Samples], gain: float, coding: str | None) -> Iterator[Samples]:
    for block in blocks:
        scaled = to_float(block) * gain
        yield scaled.astype(np.float32) if coding is None else from_float(scaled, coding)


def _open_mark(marks: Marks, layout: SampleLayout) -> MarkStream | None:
    if marks.payload is not None:
        return PayloadStream(layout.sample_rate, layout.channels, marks.payload)
    return WatermarkStream(layout.sample_rate, layout.channels) if marks.watermark else None


def _with_mark(
    blocks: Iterable[Samples], stream: MarkStream, coding: str | None
) -> Iterator[Samples]:
    for block in mark_blocks((to_float(block) for block in blocks), stream):
        yield block if coding is None else from_float(block.astype(np.float64), coding)


def _write_lossy(
    part: Path,
    blocks: Iterable[Samples],
    layout: SampleLayout,
    how: tuple[OutputFormat, Marks],
) -> None:
    """Write, decode, and write again at a lower level while the decoded peak exceeds full scale."""
    output, gain = how[0], 1.0
    while True:
        _write_once(part, (_scaled(block, gain) for block in blocks), layout, how)
        peak = _decoded_peak(part, output)
        if peak <= 1.0:
            return
        gain *= LOSSY_PEAK / peak
        part.unlink()


@contextmanager
def _repeatable(
    blocks: Iterable[Samples], folder: Path, channels: int
) -> Iterator[Iterable[Samples]]:
    """Blocks that can be read several times: those of a generator are kept on the disk."""
    if isinstance(blocks, Sequence):
        yield blocks
        return
    with tempfile.TemporaryFile(dir=folder) as spool:
        _spool(blocks, spool)
        yield _Spooled(spool, channels)


def _scaled(block: Samples, gain: float) -> Samples:
    return block if gain == 1.0 else (to_float(block) * gain).astype(np.float32)


def _spool(blocks: Iterable[Samples], file: Any) -> None:
    for block in blocks:
        stored = block if block.dtype == np.float32 else to_float(block).astype(np.float32)
        file.write(np.ascontiguousarray(stored).tobytes())
    file.flush()


class _Spooled:
    """Blocks that lie in a file and can be read again."""

    def __init__(self, file: Any, channels: int) -> None:
        self._file, self._channels = file, channels

    def __iter__(self) -> Iterator[Samples]:
        self._file.seek(0)
        while data := self._file.read(4 * self._channels * _BLOCK):
            yield np.frombuffer(data, np.float32).reshape(-1, self._channels)


def _decoded_peak(file: Path, output: OutputFormat) -> float:
    peak = 0.0
    if output.info.container:
        with soundfile.SoundFile(file) as sound:
            for block in sound.blocks(_BLOCK, dtype="float32"):
                peak = max(peak, float(np.abs(block).max(initial=0.0)))
        return peak
    for block, _ in decode_blocks(str(file), f"The format {output.format}"):
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
    return peak


def _write_once(
    part: Path,
    blocks: Iterable[Samples],
    layout: SampleLayout,
    how: tuple[OutputFormat, Marks],
) -> None:
    output, marks = how
    rate = output.rate_for(layout.sample_rate)
    # Lossless files keep the coding of stored samples; raw samples are of 16 bit.
    keeps = output.format in ("wav", "flac") and output.bit_depth is None
    stored = keeps and layout.coding is not None
    coding = layout.coding if keeps and layout.coding is not None else output.coding
    if rate != layout.sample_rate:
        blocks = _resampled(blocks, layout, rate, coding if stored else None)
    elif layout.coding is not None and not stored:
        blocks = (_converted(block, coding) for block in blocks)
    with part.open("x+b") as raw:
        file = _CheckedFile(raw)
        try:
            if output.info.container:
                _write_soundfile(file, blocks, rate, layout, (coding, output, marks))
            else:
                writer = AvWriter(file, output, rate, layout.channels, marks.origin)
                for block in blocks:
                    for start in range(0, len(block), _BLOCK):
                        piece = to_float(block[start : start + _BLOCK])
                        writer.write(piece.astype(np.float32))
                writer.close()
        except Exception as error:
            # libsndfile and FFmpeg report a full disk in many ways; the disk's own word is best.
            if file.error is not None and not isinstance(error, InputError):
                raise file.error from error
            raise
        if file.error is not None:
            raise file.error


def _write_soundfile(
    file: "_CheckedFile",
    blocks: Iterable[Samples],
    rate: int,
    layout: SampleLayout,
    how: tuple[str, OutputFormat, Marks],
) -> None:
    coding, output, marks = how
    container = output.info.container
    if not soundfile.check_format(container, coding):
        raise InputError(
            f"This machine's libsndfile has no {container} with {coding}; write .wav or .flac, or "
            "install a newer soundfile."
        )
    if container == "WAV" and 8 * layout.frames * layout.channels > LONGEST_WAV_BYTES:
        container = "RF64"
    with soundfile.SoundFile(
        file,
        "w",
        rate,
        layout.channels,
        coding,
        endian="LITTLE" if container == "RAW" else None,
        format=container,
        **_soundfile_bit_rate(output, rate, layout.channels),
    ) as sound:
        if marks.origin is not None and container != "RAW":
            write_tags(sound, marks.origin)
        for block in blocks:
            for start in range(0, len(block), _BLOCK):
                sound.write(block[start : start + _BLOCK])


def _soundfile_bit_rate(output: OutputFormat, rate: int, channels: int) -> dict[str, Any]:
    """Options of soundfile for a bit rate: a share of the range that the format has."""
    if output.bits_per_second(rate, channels) is None or output.bit_rate is None:
        return {}
    least, most = bit_rate_limits(str(output.format), rate, channels)
    # libsndfile refuses a level of exactly 1.
    level = min(0.9999, (most - output.bit_rate) / (most - least))
    if output.format == "mp3":
        return {"compression_level": level, "bitrate_mode": "CONSTANT"}
    return {"compression_level": level}


def _converted(block: Samples, coding: str) -> Samples:
    """Stored samples for a file of another coding: floats where it is coded, else rounded once."""
    return from_float(to_float(block), coding if coding.startswith("PCM") else "FLOAT")


def _resampled(
    blocks: Iterable[Samples], layout: SampleLayout, rate: int, coding: str | None
) -> Iterator[Samples]:
    """Blocks at another rate, as floats or as a coding stores them."""
    stream = soxr.ResampleStream(layout.sample_rate, rate, layout.channels, dtype="float64")
    empty: NDArray[np.float64] = np.zeros((0, layout.channels))
    for block, last in _marked(blocks, empty):
        # Resampled sound swings beyond the samples that it is made from.
        values = stream.resample_chunk(to_float(block), last=last).clip(-1.0, 1.0)
        if len(values):
            yield values.astype(np.float32) if coding is None else from_float(values, coding)


def _marked(
    blocks: Iterable[Samples], empty: NDArray[np.float64]
) -> Iterator[tuple[Samples, bool]]:
    for block in blocks:
        yield block, False
    yield empty, True


class _CheckedFile:
    """A file for libraries that do not notice a full disk: it keeps the first error.

    libsndfile ignores failed writes of its FLAC, Ogg and MP3 encoders, and an exception inside a
    callback of C would only be printed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                return self._file.write(data)
            except OSError as error:
                self.error = error
        return 0

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:  # what is buffered is written first
            self.error = self.error or error
            return -1

    def tell(self) -> int:
        try:
            return self._file.tell()
        except OSError as error:
            self.error = self.error or error
            return -1

    def flush(self) -> None:
        """FFmpeg calls it; what is left is written when the file is closed."""

"""A recording at its own rate, channel count and bit depth, read in pieces and written exactly."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from torch import Tensor

from unison_audio.audio import Audio
from unison_audio.audio_files import (
    MAX_RATE,
    require_file,
    require_finite,
    stated_frames,
    unreadable,
)
from unison_audio.audio_writer import SampleLayout, write_audio
from unison_audio.errors import InputError
from unison_audio.output_format import OutputFormat, merge_output
from unison_audio.provenance.origin import Origin
from unison_audio.sample_codings import LOSSLESS, Samples
from unison_audio.values import as_whole, require_path, shown

_BLOCK = 1 << 16

MOST_IN_MEMORY = 1 << 28
"""Samples of a recording in which libsndfile cannot seek: 9 h at 8 kHz."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NativeAudio:
    """Samples as they are stored: a file that is read in pieces, or an array in memory."""

    sample_rate: int
    """Samples per second."""
    channels: int
    """Number of channels."""
    frames: int
    """Samples of one channel."""
    coding: str
    """A key of `LOSSLESS`."""
    name: str
    """Name of the recording in messages."""
    samples: Samples | None = None
    """(samples, channels) where they are in memory."""
    file: str = ""
    """The path where they are not."""
    origin: Origin | None = None
    """Where the sound comes from, as its marks state it; None for what this program did not
    make."""
    warnings: tuple[str, ...] = ()
    """Warnings about the edit that made it."""

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate

    @property
    def dtype(self) -> str:
        """The number type of its samples."""
        return LOSSLESS[self.coding][0]

    def read(self, start: int, stop: int) -> Samples:
        """Read samples from `start` up to `stop`.

        Returns:
            (samples, channels) of the recording's own type.

        Raises:
            InputError: The file cannot be read, or holds less than its header says.
        """
        if self.samples is not None:
            return self.samples[start:stop]
        try:
            with soundfile.SoundFile(self.file) as file:
                file.seek(start)
                block: Samples = file.read(stop - start, dtype=self.dtype, always_2d=True)
        except (soundfile.SoundFileError, OSError, ValueError) as error:
            raise unreadable(self.file, error) from error
        if len(block) < stop - start:
            raise InputError(f"{self.file} is cut short; give the whole file.")
        return block

    def save(
        self, path: str | os.PathLike[str], output: OutputFormat | None = None, **options: Any
    ) -> None:
        """Write a file: wav and flac with exactly these samples, other formats coded.

        Args:
            path: The file; its suffix selects the format.
            output: Format and options; by default the suffix decides.
            **options: Fields of `OutputFormat`, such as `bit_depth=24`, over those of `output`.

        Raises:
            InputError: The format cannot hold them, or the file cannot be written.
        """
        write_recording(path, self.blocks(), self, merge_output(output, options))

    def blocks(self) -> Iterator[Samples]:
        """The samples in order, in pieces of bounded size."""
        for start in range(0, self.frames, _BLOCK):
            yield self.read(start, min(self.frames, start + _BLOCK))


Source = str | os.PathLike[str] | Audio | NativeAudio | tuple[Any, int]
"""A path, an `Audio`, what an edit returned, or (waveform, sample_rate) with (samples,) or
(channels, samples)."""


def open_recording(given: Source) -> NativeAudio:
    """Look at a recording without decoding it.

    Args:
        given: The recording.

    Raises:
        InputError: It cannot be used.
    """
    if isinstance(given, NativeAudio):
        return given
    if isinstance(given, Audio):
        given = (given.waveform, given.sample_rate)
    if isinstance(given, tuple | list) and len(given) == 2:
        return _from_array(given[0], given[1])
    if not isinstance(given, str | os.PathLike):
        raise InputError(
            f"The source is {shown(given)}; give a path, an Audio, or (waveform, sample_rate)."
        )
    name = require_file(given)
    try:
        with soundfile.SoundFile(name) as file:
            found = (file.samplerate, file.channels, stated_frames(file, name), file.subtype)
            samples = None if file.seekable() else _read_all(file, found[2], name)
    except (soundfile.SoundFileError, TypeError, OSError, ValueError) as error:
        raise unreadable(name, error) from error
    rate, channels, frames, coding = found
    frames = frames if samples is None else len(samples)
    if frames == 0:
        raise InputError(f"{name} holds no sound (0 samples); give a file that does.")
    return NativeAudio(
        sample_rate=rate,
        channels=channels,
        frames=frames,
        coding=coding if coding in LOSSLESS else "PCM_16",
        name=f"The source {name}",
        file=name,
        samples=samples,
    )


def _read_all(file: soundfile.SoundFile, frames: int, name: str) -> Samples:
    """Read a file of a coding in which libsndfile cannot seek, such as GSM.

    Raises:
        InputError: It is too long to be kept in memory.
    """
    if frames * file.channels > MOST_IN_MEMORY:
        raise InputError(
            f"{name} is too long for its coding ({file.subtype}), which has to be read whole; "
            "convert it to 16-bit samples, such as with: ffmpeg -i in.wav -c:a pcm_s16le out.wav"
        )
    samples: Samples = file.read(frames, dtype="int16", always_2d=True)
    return samples


def _from_array(values: object, given_rate: object) -> NativeAudio:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    codings = {"int16": "PCM_16", "int32": "PCM_32", "float32": "FLOAT", "float64": "DOUBLE"}
    if not isinstance(values, np.ndarray) or str(values.dtype) not in codings:
        kind = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise InputError(f"The source's waveform is {kind}; give one of {', '.join(codings)}.")
    if values.ndim not in (1, 2) or values.size == 0:
        raise InputError(
            f"The source's waveform has the shape {values.shape}; give (samples,) or "
            "(channels, samples), with at least one sample."
        )
    rate = as_whole(given_rate)
    if rate is None or not 0 < rate <= MAX_RATE:
        raise InputError(
            f"The source has the sample rate {shown(given_rate)}; give samples per second, above "
            f"0 and at most {MAX_RATE:,}."
        )
    samples = values[:, None] if values.ndim == 1 else values.T
    if samples.dtype.kind == "f":
        require_finite(samples, rate, "The source")
    return NativeAudio(
        sample_rate=rate,
        channels=samples.shape[1],
        frames=samples.shape[0],
        coding=codings[str(values.dtype)],
        name="The source",
        samples=samples,
    )


def check_exact(path: Path, coding: str, output: OutputFormat) -> None:
    """Refuse a file whose format cannot hold a recording's samples as they are.

    A bit depth or a sample rate that is asked for is the user's own choice, and is not refused.

    Raises:
        InputError: It cannot; the message names what can.
    """
    chosen = output.of_file(path)
    if chosen.bit_depth is not None:
        return
    container = chosen.info.container
    kept = chosen.format in ("wav", "flac") and soundfile.check_format(container, coding)
    if not kept and not (chosen.format == "pcm" and coding == "PCM_16"):
        raise InputError(
            f"Cannot write {path}: samples of {coding} outside the regions stay as they are, "
            f"which {chosen.format} files cannot hold; write a .wav file."
        )


def write_recording(
    path: str | os.PathLike[str],
    blocks: Iterable[Samples],
    like: NativeAudio,
    output: OutputFormat | None = None,
) -> None:
    """Write blocks one after the other; the file is written atomically.

    Args:
        path: A wav or flac file keeps the samples exactly; the lossy formats code them.
        blocks: (samples, channels) each, of `like`'s type.
        like: Recording that gives the file its rate, channels and coding.
        output: Format and options; by default the suffix decides.

    Raises:
        InputError: The format cannot hold it, or the file cannot be written.
    """
    target = require_path(path, "The output")
    chosen = (output or OutputFormat()).of_file(target)
    if not chosen.info.lossy:
        check_exact(target, like.coding, chosen)
    layout = SampleLayout(
        sample_rate=like.sample_rate,
        channels=like.channels,
        coding=like.coding,
        frames=like.frames,
        origin=like.origin,
    )
    write_audio(target, blocks, layout, chosen)

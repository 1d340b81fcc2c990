"""A recording at its own rate, channel count and bit depth, read in pieces and written exactly."""

import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from torch import Tensor

from unison_audio.audio import Audio
from unison_audio.audio_files import FORMATS, reason, require_file, stated_frames, unreadable
from unison_audio.errors import InputError

Samples = NDArray[np.generic]
"""(samples, channels) in the recording's own number type."""

LOSSLESS: dict[str, tuple[str, int]] = {
    "PCM_U8": ("int16", 1 << 8),
    "PCM_S8": ("int16", 1 << 8),
    "PCM_16": ("int16", 1),
    "PCM_24": ("int32", 1 << 8),
    "PCM_32": ("int32", 1),
    "FLOAT": ("float32", 0),
    "DOUBLE": ("float64", 0),
}
"""Coding of libsndfile -> the type that holds its samples exactly, and the step between two of
them; 0 for floats. What is coded otherwise (ogg, mp3) counts as 16 bit once decoded."""

LONGEST_WAV_BYTES = 0xFFFF_0000
"""A WAV's sizes are 32-bit numbers; what is longer becomes an RF64 file."""

_BLOCK = 1 << 16


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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a wav or flac file with exactly these samples.

        Raises:
            InputError: The format cannot hold them, or the file cannot be written.
        """
        write_recording(path, self.blocks(), self)

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
    if isinstance(given, tuple):
        return _from_array(*given)
    name = require_file(given)
    try:
        with soundfile.SoundFile(name) as file:
            found = (file.samplerate, file.channels, stated_frames(file, name), file.subtype)
    except (soundfile.SoundFileError, TypeError, OSError, ValueError) as error:
        raise unreadable(name, error) from error
    rate, channels, frames, coding = found
    if frames == 0:
        raise InputError(f"{name} holds no sound (0 samples); give a file that does.")
    return NativeAudio(
        sample_rate=rate,
        channels=channels,
        frames=frames,
        coding=coding if coding in LOSSLESS else "PCM_16",
        name=f"The source {name}",
        file=name,
    )


def _from_array(values: object, rate: int) -> NativeAudio:
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
    if not isinstance(rate, int | np.integer) or rate <= 0:
        raise InputError(f"The source has the sample rate {rate!r}; give samples per second.")
    samples = values[:, None] if values.ndim == 1 else values.T
    return NativeAudio(
        sample_rate=int(rate),
        channels=samples.shape[1],
        frames=samples.shape[0],
        coding=codings[str(values.dtype)],
        name="The source",
        samples=samples,
    )


def to_float(samples: Samples) -> NDArray[np.float64]:
    """Stored samples as numbers within -1..1."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float64)
    return samples.astype(np.float64) / (1 << (8 * samples.dtype.itemsize - 1))


def from_float(values: NDArray[np.float64], coding: str) -> Samples:
    """Numbers within -1..1 as samples that a coding stores; what exceeds it is limited."""
    dtype, step = LOSSLESS[coding]
    if step == 0:
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    # 8- and 24-bit samples fill the upper bytes of their number type: only multiples of `step`
    # exist.
    steps = np.round(values * (-float(limits.min) / step))
    return (steps.clip(limits.min / step, limits.max // step) * step).astype(dtype)


def check_exact(path: Path, coding: str) -> None:
    """Refuse the name of a file whose format cannot hold a recording's samples as they are.

    Raises:
        InputError: It cannot; the message names what can.
    """
    suffix = path.suffix.lower()
    container = FORMATS.get(suffix, ("", ""))[0]
    if suffix not in (".wav", ".flac") or not soundfile.check_format(container, coding):
        raise InputError(
            f"Cannot write {path}: samples of {coding} outside the regions stay as they are, "
            f"which {suffix or 'this'} files cannot hold; write a .wav file."
        )


def write_recording(
    path: str | os.PathLike[str], blocks: Iterable[Samples], like: NativeAudio
) -> None:
    """Write blocks one after the other; the file is written atomically.

    Args:
        path: A wav or flac file keeps the samples exactly; ogg and mp3 code them.
        blocks: (samples, channels) each, of `like`'s type.
        like: Recording that gives the file its rate, channels and coding.

    Raises:
        InputError: The format cannot hold it, or the file cannot be written.
    """
    target = Path(path).resolve()
    container, coding = FORMATS.get(target.suffix.lower(), ("", ""))
    if target.suffix.lower() not in (".ogg", ".mp3"):
        check_exact(target, like.coding)
        coding = like.coding
        size = like.frames * like.channels * 8
        container = "RF64" if container == "WAV" and size > LONGEST_WAV_BYTES else container
    # Beside the target, so that the final rename stays within one file system and is atomic.
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with soundfile.SoundFile(
            part, "x", like.sample_rate, like.channels, coding, format=container
        ) as file:
            for block in blocks:
                for start in range(0, len(block), _BLOCK):
                    file.write(block[start : start + _BLOCK])
        part.replace(target)
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(
            f"Cannot write {path} at {like.sample_rate} Hz ({reason(error)}); "
            "choose another format or place."
        ) from error
    finally:
        part.unlink(missing_ok=True)

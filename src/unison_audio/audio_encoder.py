"""`AudioEncoder`: sound coded while it is made, for pipes and HTTP answers.

| format | first bytes | samples before the sound | samples after it |
|---|---|---|---|
| wav, pcm | at once | 0 | 0 |
| flac | after 4,096 samples | 0 | 0 |
| mp3 | after about 0.1 s | 1,105 | up to 2 frames of 1,152 (576 below 32 kHz) |
| opus | header at once, sound after 0.2 s | 0 (pre-skip) | 0 (granule position) |
| aac | after 2,048 samples | 1,024 | up to one frame of 1,024 |

A player cuts nothing off where the format has no place to say so: mp3 and aac have priming samples
before the sound, and silence after it.
"""

import struct
import warnings
from typing import Protocol

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from torch import Tensor

from unison_audio.av_audio import AvWriter
from unison_audio.output_format import OutputFormat
from unison_audio.provenance.file_tags import wav_info, write_tags
from unison_audio.provenance.marks import Marks, choose_marks
from unison_audio.provenance.origin import Origin
from unison_audio.provenance.watermark import WatermarkStream
from unison_audio.sample_codings import from_float

UNKNOWN_SIZE = 0xFFFF_FFFF
"""Length in the header of a stream, whose length is not known yet. Players then read to
the end."""

STREAM_GAIN = 0.85
"""Factor on what lossy formats code, since decoded samples exceed those that were coded: by up to
8 % in 12 sounds of nano at 32 to 96 kbit/s. A file is coded again at a lower level where it has to
be; a stream cannot."""


class AudioEncoder:
    """Codes one sound piece by piece, with its marks: every stream comes here.

    Args:
        output: Format and options; by default wav. Its `sample_rate` is that of the result.
        sample_rate: Samples per second of what is written.
        channels: Number of channels of what is written.
        origin: Where the sound comes from; None for sound that this program did not make.

    Raises:
        InputError: The format cannot be streamed, or needs a package that is missing.
    """

    def __init__(
        self,
        output: OutputFormat,
        sample_rate: int,
        channels: int = 1,
        origin: Origin | None = None,
    ) -> None:
        self.output = output.of_stream()
        marks = choose_marks(self.output, origin, streamed=True)
        self._watermark = WatermarkStream(sample_rate, channels) if marks.watermark else None
        self.channels = channels
        self.sample_rate = self.output.rate_for(sample_rate)
        """Samples per second of the result."""
        self._resampler = None
        if self.sample_rate != sample_rate:
            self._resampler = soxr.ResampleStream(
                sample_rate, self.sample_rate, channels, dtype="float32"
            )
        self._sink = _Sink()
        self._coder = _open_coder(self._sink, (self.output, marks), self.sample_rate, channels)

    @property
    def media_type(self) -> str:
        """Content type of HTTP."""
        return self.output.info.media_type

    def write(self, samples: Tensor | NDArray[np.floating]) -> bytes:
        """Code samples.

        Args:
            samples: (samples,) or (samples, channels), within -1..1.

        Returns:
            The bytes that are ready, which may be none.
        """
        if isinstance(samples, Tensor):
            samples = samples.detach().cpu().numpy()
        if self._watermark is not None:
            samples = self._watermark.write(samples)
        self._code(samples, last=False)
        return self._sink.take()

    def finish(self) -> bytes:
        """End the sound; nothing can be written after it.

        Returns:
            The remaining bytes.
        """
        if self._watermark is not None:
            self._code(self._watermark.finish(), last=False)
            if self._watermark.note:
                warnings.warn(self._watermark.note, stacklevel=2)
        if self._resampler is not None:
            self._code(np.zeros((0, self.channels), np.float32), last=True)
        self._coder.close()
        return self._sink.take()

    def _code(self, samples: NDArray[np.floating], *, last: bool) -> None:
        block = np.asarray(samples, dtype=np.float32).reshape(-1, self.channels)
        if self._resampler is not None:
            # Resampled sound swings beyond the samples that it is made from.
            block = self._resampler.resample_chunk(block, last=last).clip(-1.0, 1.0)
        if self.output.info.lossy:
            block = block * np.float32(STREAM_GAIN)
        self._coder.write(block)


class _Coder(Protocol):
    """What codes blocks into the sink."""

    def write(self, samples: NDArray[np.float32], /) -> None: ...

    def close(self) -> None: ...


class _Sink:
    """A file that only grows: bytes are taken away as they come, and none is written again."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._position = self._end = 0

    def take(self) -> bytes:
        """The bytes since the last call."""
        taken = bytes(self._pending)
        self._pending.clear()
        return taken

    def write(self, data: bytes) -> int:
        if self._position == self._end:
            self._pending += data
            self._end += len(data)
        # Else an encoder goes back to complete its header, which has been sent.
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._end)[whence]
        return self._position

    def tell(self) -> int:
        return self._position


class _Pipe:
    """The part of a sink that cannot go back, so that FFmpeg does not try to."""

    def __init__(self, sink: _Sink) -> None:
        self._sink = sink

    def write(self, data: bytes) -> int:
        return self._sink.write(bytes(data))


class _PlainCoder:
    """wav with a header of unknown length, and pcm."""

    def __init__(
        self, sink: _Sink, how: tuple[OutputFormat, Marks], sample_rate: int, channels: int
    ) -> None:
        output, marks = how
        self._sink, self._coding = sink, output.coding
        if output.format == "wav":
            info = b"" if marks.origin is None else wav_info(marks.origin)
            sink.write(wav_header(sample_rate, channels, output.coding, info))

    def write(self, samples: NDArray[np.float32]) -> None:
        self._sink.write(sample_bytes(samples, self._coding))

    def close(self) -> None:
        """Nothing is held back."""


def _open_coder(
    sink: _Sink, how: tuple[OutputFormat, Marks], sample_rate: int, channels: int
) -> _Coder:
    output, marks = how
    if output.format in ("wav", "pcm"):
        return _PlainCoder(sink, how, sample_rate, channels)
    if output.format == "flac":
        file = soundfile.SoundFile(
            sink, "w", sample_rate, channels, output.coding, format=output.info.container
        )
        if marks.origin is not None:
            write_tags(file, marks.origin)
        return file
    return AvWriter(_Pipe(sink), output, sample_rate, channels, marks.origin)


def wav_header(
    sample_rate: int, channels: int = 1, coding: str = "PCM_16", info: bytes = b""
) -> bytes:
    """The header of a WAV stream whose length is not known: 44 bytes and the chunk of tags."""
    kind, size = {"PCM_16": (1, 2), "PCM_24": (1, 3), "FLOAT": (3, 4)}[coding]
    begin = struct.pack(
        "<4sI4s4sIHHIIHH",
        b"RIFF",
        UNKNOWN_SIZE,
        b"WAVE",
        b"fmt ",
        16,
        kind,
        channels,
        sample_rate,
        size * channels * sample_rate,
        size * channels,
        8 * size,
    )
    return begin + info + struct.pack("<4sI", b"data", UNKNOWN_SIZE)


def sample_bytes(samples: NDArray[np.floating], coding: str = "PCM_16") -> bytes:
    """Samples within -1..1 as little-endian numbers; what exceeds them is limited in integers."""
    stored = from_float(samples.astype(np.float64), coding)
    if coding == "PCM_24":  # the upper three bytes of each number
        return stored.astype("<i4").reshape(-1, 1).view(np.uint8)[:, 1:].tobytes()
    return stored.astype(stored.dtype.newbyteorder("<")).tobytes()

"""Coding and decoding of sound with PyAV (FFmpeg), for what libsndfile cannot write or read."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unison_audio.output_format import OutputFormat, bit_rate_limits, require_av
from unison_audio.provenance.file_tags import container_tags
from unison_audio.provenance.origin import Origin

_CONTAINERS: dict[str, tuple[str, str, str]] = {
    "mp3": ("mp3", "libmp3lame", "fltp"),
    "opus": ("ogg", "libopus", "flt"),
    "aac": ("adts", "aac", "fltp"),
    "m4a": ("ipod", "aac", "fltp"),
}
"""Format -> FFmpeg's names of the container, the encoder and the type of its samples."""

_DEFAULT_BIT_RATES = {"mp3": 64, "opus": 64, "aac": 96, "m4a": 96}
"""Kilobits per second of one channel where none are asked for and the sample rate allows them."""


class ByteSink(Protocol):
    """The part of a file that an encoder writes to."""

    def write(self, data: bytes, /) -> int:
        """Take bytes."""
        ...


class AvWriter:
    """Codes sound with PyAV into a file or a sink.

    Args:
        out: Where to; a sink without `seek` is written from the beginning to the end.
        output: Format and bit rate.
        sample_rate: Samples per second, one that the format has.
        channels: Number of channels.
        origin: What the tags state; None for no tags. An ADTS stream (aac) has no place for any.

    Raises:
        InputError: PyAV is missing, or the format has no such bit rate.
    """

    def __init__(
        self,
        out: ByteSink,
        output: OutputFormat,
        sample_rate: int,
        channels: int,
        origin: Origin | None = None,
    ) -> None:
        name = str(output.format)
        bits = output.bits_per_second(sample_rate, channels)
        av = require_av(f"The format {name}")
        container, encoder, self._sample_format = _CONTAINERS[name]
        # bitexact: the same sound gives the same bytes, where Ogg has a random serial number.
        options = {"fflags": "+bitexact"}
        if name == "mp3":
            # A pipe cannot be gone back in, so the header with the length would stay empty, and
            # libsndfile then reads a quarter of the sound.
            options |= {"write_xing": "0", "id3v2_version": "0" if origin is None else "3"}
        elif name == "opus":
            options["page_duration"] = "200000"  # in place of 1 s, before which nothing is sent
        elif name == "m4a":
            # The unit of the edit list, which cuts off the priming and the padding to the sample.
            options["movie_timescale"] = str(sample_rate)
        self._av, self._rate, self._channels, self._position = av, sample_rate, channels, 0
        self._container = av.open(out, "w", format=container, options=options)
        stream: Any = self._container.add_stream(encoder, rate=sample_rate)
        if origin is not None and name != "aac":
            # Ogg takes the tags of its stream, the others those of the container.
            (stream if name == "opus" else self._container).metadata.update(container_tags(origin))
        stream.codec_context.format = av.AudioFormat(self._sample_format)
        stream.layout = "mono" if channels == 1 else "stereo"
        if bits is None:
            most = bit_rate_limits(name, sample_rate, channels)[1]
            bits = 1000 * min(most, _DEFAULT_BIT_RATES[name] * channels)
        stream.bit_rate = bits
        self._stream = stream

    def write(self, samples: NDArray[np.float32]) -> None:
        """Code samples, (samples, channels) within -1..1."""
        if not len(samples):
            return
        planar = self._sample_format.endswith("p")
        data = samples.T if planar else samples.reshape(1, -1)
        frame = self._av.AudioFrame.from_ndarray(
            np.ascontiguousarray(data, dtype=np.float32),
            format=self._sample_format,
            layout="mono" if self._channels == 1 else "stereo",
        )
        frame.sample_rate, frame.pts = self._rate, self._position
        frame.time_base = Fraction(1, self._rate)
        self._position += len(samples)
        self._encode(frame)

    def close(self) -> None:
        """Code what the encoder still holds, and end the container."""
        self._encode(None)
        with _reasons(self._av):
            self._container.close()

    def _encode(self, frame: Any) -> None:
        with _reasons(self._av):
            for packet in self._stream.encode(frame):
                self._container.mux(packet)


@contextmanager
def _reasons(av: Any) -> Iterator[None]:
    """Turn FFmpeg's own errors into a `ValueError`."""
    try:
        yield
    except av.FFmpegError as error:
        raise ValueError(error.strerror or str(error)) from error


def container_of(path: str) -> str | None:
    """FFmpeg's name of a recording's container, where only PyAV reads it: m4a and aac.

    The name is taken from the first bytes and given to FFmpeg, which else tries formats that are
    lists of other files.
    """
    with Path(path).open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp":
        return "mp4"
    # ADTS: twelve bits of ones, then a layer of zero (MPEG audio has another).
    return "aac" if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 else None


def read_form(path: str, container: str) -> tuple[int, int, float]:
    """Sample rate, channels and seconds of a recording, from its header.

    Raises:
        InputError: PyAV is missing.
        ValueError: There is no sound in it.
    """
    av = require_av(f"The recording {path}")
    with _reasons(av), av.open(path, format=container) as opened:
        if not opened.streams.audio:
            raise ValueError("no audio stream")
        stream = opened.streams.audio[0]
        length = float((stream.duration or 0) * (stream.time_base or 0))
        return int(stream.rate), int(stream.channels), length


def decode_blocks(
    source: Any, what: str, container: str | None = None
) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Decode a recording piece by piece.

    Args:
        source: A path or a binary file.
        what: Name of the recording, at the beginning of the message where PyAV is missing.
        container: FFmpeg's name of the container; None to have it found.

    Yields:
        (samples, channels) within -1..1, and the samples per second.

    Raises:
        InputError: PyAV is missing.
        ValueError: It cannot be decoded, or there is no sound in it.
    """
    av = require_av(what)
    # FFmpeg's playlists would otherwise open any path or address that a file's content names.
    options = {} if isinstance(source, str) else {"protocol_whitelist": "none"}
    with _reasons(av), av.open(source, format=container, options=options) as opened:
        if not opened.streams.audio:
            raise ValueError("no audio stream")
        planar = av.AudioResampler(format="fltp")
        for frame in opened.decode(opened.streams.audio[0]):
            for block in planar.resample(frame):
                # The decoder's own rate, which may differ from what the container states.
                yield block.to_ndarray().T, int(block.sample_rate)

"""Loudness of a sound after EBU R128, and the gain that brings it to a level without clipping.

FFmpeg's `ebur128` filter measures the integrated loudness: K-weighting and both gates of ITU-R
BS.1770. The true peak is that of the samples at four times their rate, as BS.1770 has it.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from unison_audio.errors import InputError
from unison_audio.output_format import LOWEST_LOUDNESS, require_av
from unison_audio.sample_codings import Samples, to_float

MAX_TRUE_PEAK_DB = -1.0
"""Highest true peak that a gain may lead to: EBU R128's limit."""

SHORTEST_SECONDS = 0.4
"""Length of the blocks that BS.1770 measures; a shorter sound has no loudness."""

_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
"""Channel counts with weights in BS.1770."""

_OVERSAMPLING = 4

_BLOCK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Loudness:
    """What was measured of one sound."""

    integrated: float | None
    """Integrated loudness in LUFS; None for a sound that is too short or silent."""
    true_peak_db: float
    """True peak in dB of full scale."""
    seconds: float
    """Length."""


def require_loudness_filter(channels: int = 1) -> Any:
    """Import PyAV, in a version that returns what the filter measures.

    Args:
        channels: Number of channels to measure.

    Raises:
        InputError: It is missing or too old, or that many channels have no loudness.
    """
    if channels not in _LAYOUTS:
        raise InputError(
            f"The loudness of {channels} channels is not defined; leave the loudness out, or give "
            "1, 2 or 6 channels."
        )
    av = require_av("The loudness")
    if not hasattr(av.AudioFrame, "metadata"):
        raise InputError(
            f"The loudness needs the package av from version 18 on, and this is {av.__version__}; "
            "install it with: pip install 'unison-audio[loudness]'"
        )
    return av


def measure(blocks: Iterable[Samples], sample_rate: int, channels: int) -> Loudness:
    """Measure a sound.

    A mono sound is measured as one channel: 3 LU below the same sound in two channels.

    Args:
        blocks: (samples, channels) each, floats within -1..1 or stored samples.
        sample_rate: Samples per second.
        channels: Number of channels: 1, 2 or 6 (5.1).

    Raises:
        InputError: PyAV is missing or too old, or that many channels have no loudness.
    """
    graph = _FilterGraph(require_loudness_filter(channels), sample_rate, channels)
    upsampler = soxr.ResampleStream(
        sample_rate, _OVERSAMPLING * sample_rate, channels, dtype="float32"
    )
    peak, samples = 0.0, 0
    for piece in _pieces(blocks):
        samples += len(piece)
        graph.push(piece)
        between = upsampler.resample_chunk(piece)
        peak = max(peak, _highest(piece), _highest(between))
    graph.finish()
    rest = upsampler.resample_chunk(np.zeros((0, channels), np.float32), last=True)
    found = graph.integrated
    return Loudness(
        integrated=None if found is None or found <= LOWEST_LOUDNESS else found,
        true_peak_db=20 * math.log10(max(peak, _highest(rest), 1e-9)),
        seconds=samples / sample_rate,
    )


def gain_to(target: float, found: Loudness) -> tuple[float, str]:
    """The gain that brings a sound to a loudness, or as near as its true peak allows.

    Args:
        target: LUFS.
        found: What was measured.

    Returns:
        The factor, and what has to be said about it, or nothing.
    """
    if found.integrated is None:
        why = (
            f"shorter than {SHORTEST_SECONDS:g} s"
            if found.seconds < SHORTEST_SECONDS
            else f"silent (below {LOWEST_LOUDNESS:g} LUFS)"
        )
        return 1.0, f"The sound is {why} and has no loudness: its level stays as it is."
    wanted = target - found.integrated
    gain = min(wanted, MAX_TRUE_PEAK_DB - found.true_peak_db)
    if gain == wanted:
        return 10 ** (gain / 20), ""
    return 10 ** (gain / 20), (
        f"The loudness is {found.integrated + gain:.1f} LUFS instead of {target:g}: a higher gain "
        f"would raise the true peak above {MAX_TRUE_PEAK_DB:g} dB of full scale."
    )


class _FilterGraph:
    """FFmpeg's `ebur128` filter, fed piece by piece."""

    def __init__(self, av: Any, sample_rate: int, channels: int) -> None:
        self._av, self._rate, self._layout = av, sample_rate, _LAYOUTS[channels]
        self._position = 0
        self.integrated: float | None = None
        """Integrated loudness so far; None while no block of 0.4 s is full."""
        self._graph = av.filter.Graph()
        self._graph.link_nodes(
            self._graph.add_abuffer(
                format="fltp",
                sample_rate=sample_rate,
                layout=self._layout,
                time_base=Fraction(1, sample_rate),
            ),
            self._graph.add("ebur128", "metadata=1"),
            self._graph.add("abuffersink"),
        )
        self._graph.configure()

    def push(self, piece: NDArray[np.float32]) -> None:
        """Measure further samples, (samples, channels)."""
        planes = np.ascontiguousarray(piece.T)
        frame = self._av.AudioFrame.from_ndarray(planes, format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts = self._rate, self._position
        frame.time_base = Fraction(1, self._rate)
        self._position += len(piece)
        self._graph.push(frame)
        self._pull()

    def finish(self) -> None:
        """Measure what is still inside the filter."""
        self._graph.push(None)
        self._pull()

    def _pull(self) -> None:
        while True:
            try:
                metadata = self._graph.pull().metadata
            except (self._av.BlockingIOError, self._av.EOFError):
                return
            # A last frame of less than 0.1 s carries no figures.
            if "lavfi.r128.I" in metadata:
                self.integrated = float(metadata["lavfi.r128.I"])


def _pieces(blocks: Iterable[Samples]) -> Iterator[NDArray[np.float32]]:
    for block in blocks:
        for start in range(0, len(block), _BLOCK):
            yield to_float(block[start : start + _BLOCK]).astype(np.float32)


def _highest(samples: NDArray[np.float32]) -> float:
    return float(np.abs(samples).max(initial=0.0))

"""Sets and finds the watermark in recordings of any length, rate and channel count."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unison_audio.provenance.perth import HOP, PERTH_RATE, load_perth
from unison_audio.spectrogram import stft

SHORTEST_SECONDS = 0.1
"""Sounds under this length are not marked."""
FOUND = 0.95
"""Least score that counts as found; above it still lie about 1 % of unmarked sounds."""

_BLOCK_HOPS = 1000  # 10 s: memory stays flat however long the recording
_SHORTEST_BLOCK = 2048
_CONTEXT = 24
"""Hops on both sides that a sample's mark depends on: 15 frames of convolutions, 7 of STFT."""
_FIRST_HOPS = 50
"""Hops that are marked at once at least, so that a stream does not wait for long."""
SILENCE_RMS = 1e-7
_HIGHEST = 0.99
_TRUSTED_SECONDS = 1.0
_BAND_LIMITED = 1e-6
"""Part of the power above 4 kHz under which a recording counts as band-limited."""
_TONAL = 1e-4
"""Spectral flatness from 50 to 2,000 Hz under which a recording counts as tonal."""

Verdict = Literal["found", "not found", "unknown"]


@dataclass(frozen=True, kw_only=True)
class WatermarkResult:
    """What the detector says about a recording."""

    verdict: Verdict
    """"found", "not found" or "unknown"."""
    score: float | None
    """The detector's score, 0 to 1; None where there is none."""
    reason: str = ""
    """Why the verdict is unknown."""


class MarkStream(Protocol):
    """A mark in the samples of a sound that comes piece by piece."""

    @property
    def note(self) -> str:
        """Why the sound carries no mark; "" where it does."""
        ...

    def write(self, samples: NDArray[np.floating], /) -> NDArray[np.float32]:
        """Take (samples, channels), and return what is ready."""
        ...

    def finish(self) -> NDArray[np.float32]:
        """The rest of the sound."""
        ...


class WatermarkStream:
    """Sets the watermark in a sound that comes piece by piece.

    Only the difference that the mark makes is resampled: what lies above 16 kHz stays, and so does
    every sample of silence.

    Args:
        sample_rate: Samples per second.
        channels: Number of channels.

    Raises:
        InputError: If the watermark's weights are not installed.
    """

    def __init__(self, sample_rate: int, channels: int = 1) -> None:
        self._net = load_perth()
        self._rate, self._channels = sample_rate, channels
        # Blocks begin on a frame of the networks and on a sample of the sound alike.
        self._grid = sample_rate // math.gcd(sample_rate, 100)
        per_hop = sample_rate / 100
        self._context = self._on_grid(_CONTEXT * per_hop)
        self._least = self._on_grid(_FIRST_HOPS * per_hop)
        self._most = self._on_grid(_BLOCK_HOPS * per_hop)
        self._held: NDArray[np.float32] = np.zeros((0, channels), np.float32)
        self._before = 0  # samples at the beginning of what is held that are out already
        self._total, self._loudest = 0, 0.0

    @property
    def note(self) -> str:
        """Why the sound as a whole carries no mark; "" where it does."""
        if self._total < SHORTEST_SECONDS * self._rate:
            return f"Sounds under {SHORTEST_SECONDS} s are too short for a watermark."
        if self._loudest < SILENCE_RMS:
            return "The sound is silent and carries no watermark."
        return ""

    def write(self, samples: NDArray[np.floating]) -> NDArray[np.float32]:
        """Take (samples, channels) within -1..1, and return what is ready, which may be nothing."""
        block = np.asarray(samples, np.float32).reshape(-1, self._channels)
        self._total += len(block)
        self._loudest = max(self._loudest, float(np.abs(block).max(initial=0.0)))
        self._held = np.concatenate([self._held, block])
        return self._ready(len(self._held) - self._context, self._least)

    def finish(self) -> NDArray[np.float32]:
        """The rest of the sound."""
        if self._total < SHORTEST_SECONDS * self._rate:
            return self._held[self._before :]
        return self._ready(len(self._held), 1)

    def _ready(self, end: int, least: int) -> NDArray[np.float32]:
        made = [np.zeros((0, self._channels), np.float32)]
        while end - self._before >= least:
            stop = min(end, self._before + self._most)
            if stop < len(self._held):
                stop = self._before + (stop - self._before) // self._grid * self._grid
            made.append(self._marked(stop))
            cut = max(0, stop - self._context)  # a multiple of the grid
            self._held, self._before, end = self._held[cut:], stop - cut, end - cut
        return np.concatenate(made)

    def _marked(self, stop: int) -> NDArray[np.float32]:
        """The held samples from those that are out up to `stop`, marked."""
        given = self._held[: stop + self._context]
        marked = np.stack([self._row(channel) for channel in given.T], axis=1)
        return marked[self._before : stop]

    def _row(self, channel: NDArray[np.float32]) -> NDArray[np.float32]:
        inside = torch.from_numpy(soxr.resample(channel, self._rate, PERTH_RATE))
        padded = _padded(inside)
        with torch.inference_mode():
            change = (self._net.mark(padded[None])[0] - padded)[: len(inside)]
        added = soxr.resample(change.numpy(), PERTH_RATE, self._rate)[: len(channel)]
        added = np.pad(added, (0, len(channel) - len(added)))
        return limited(channel + added, self._rate)

    def _on_grid(self, samples: float) -> int:
        return self._grid * math.ceil(samples / self._grid)


def limited(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Turn a sound down for some 10 ms round each peak that passes full scale.

    Args:
        samples: (samples,).
        sample_rate: Samples per second.
    """
    if np.abs(samples).max(initial=0.0) <= 1.0:
        return samples
    size = 2 * max(1, sample_rate // 200) + 1
    wave = torch.from_numpy(samples)[None]
    gain = (_HIGHEST / wave.abs().clamp_min(1e-9)).clamp_max(1.0)
    # The mean over windows of the least gain within a window is nowhere above the gain itself.
    least = -F.max_pool1d(-gain, size, stride=1, padding=size // 2)
    smooth = F.avg_pool1d(least, size, stride=1, padding=size // 2, count_include_pad=False)
    limited_wave: NDArray[np.float32] = (wave * smooth)[0].numpy()
    return limited_wave


def mark_blocks(
    blocks: Iterable[NDArray[np.floating]], stream: MarkStream
) -> Iterator[NDArray[np.float32]]:
    """Set a mark in blocks (samples, channels), in as much memory as ten seconds take."""
    for block in blocks:
        yield stream.write(block)
    yield stream.finish()


def find_watermark(waveform: Tensor, sample_rate: int) -> WatermarkResult:
    """Look for the watermark, block by block.

    Args:
        waveform: (samples,) or (channels, samples).
        sample_rate: Samples per second.

    Returns:
        The verdict on the median of the blocks' scores: the best of many blocks would turn the
        detector's false alarms on a few of them into a verdict on a long recording.

    Raises:
        InputError: If the watermark's weights are not installed.
    """
    net = load_perth()
    mono = waveform.detach().to("cpu", torch.float32)
    mono = mono if mono.ndim == 1 else mono.mean(dim=0)
    seconds = mono.shape[-1] / sample_rate
    if mono.numel() == 0 or float(mono.abs().max()) < SILENCE_RMS:
        return WatermarkResult(verdict="unknown", score=None, reason="it is silent")
    inside = torch.from_numpy(soxr.resample(mono.numpy(), sample_rate, PERTH_RATE))
    with torch.inference_mode():
        scores = torch.cat([net.score(_padded(block)[None]) for block in _blocks(inside)])
    heard = scores[~scores.isnan()]  # a silent block has no score
    if heard.numel() == 0:
        return WatermarkResult(verdict="unknown", score=None, reason="it is too quiet")
    score = round(float(heard.median()), 3)
    doubt = _doubt(inside, seconds)
    if doubt:
        return WatermarkResult(verdict="unknown", score=score, reason=doubt)
    return WatermarkResult(verdict="found" if score >= FOUND else "not found", score=score)


def _blocks(waveform: Tensor) -> list[Tensor]:
    """Equal parts of about ten seconds, (samples,) each: no last part of a few samples."""
    hops = -(-len(waveform) // HOP)
    count = max(1, round(hops / _BLOCK_HOPS))
    edges = [HOP * (hops * i // count) for i in range(count)] + [len(waveform)]
    return [waveform[start:end] for start, end in pairwise(edges)]


def _padded(block: Tensor) -> Tensor:
    """A block long enough for an STFT with reflected ends."""
    return F.pad(block, (0, max(0, _SHORTEST_BLOCK - len(block))))


def _doubt(waveform: Tensor, seconds: float) -> str:
    """Why the detector's answer on this recording is not worth much; "" where it is."""
    if seconds < _TRUSTED_SECONDS:
        return f"it is {seconds:.2f} s long, and the detector errs under {_TRUSTED_SECONDS:g} s"
    power = stft(_padded(waveform), 2048, 1024, padding="zeros").abs().square()  # (F, T)
    hertz = torch.linspace(0.0, PERTH_RATE / 2, len(power))
    loud = power[:, power.sum(dim=0) > 1e-3 * power.sum(dim=0).max()]
    low = loud[(hertz > 50) & (hertz < 2000)].clamp_min(1e-20)
    flatness = (low.log().mean(dim=0).exp() / low.mean(dim=0)).median()
    if float(flatness) < _TONAL:
        return "it consists of tones, on which the detector errs"
    mean = power.mean(dim=1)
    if float(mean[hertz > 4000].sum()) < _BAND_LIMITED * float(mean.sum()):
        return "it holds next to nothing above 4 kHz, where the detector often errs"
    return ""

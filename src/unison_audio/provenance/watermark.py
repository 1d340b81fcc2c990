"""Sets and finds the watermark in recordings of any length, rate and channel count."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from unison_audio.audio import SILENCE_RMS, resample, rms
from unison_audio.provenance.perth import HOP, PERTH_RATE, PerthNet, load_perth
from unison_audio.spectrogram import stft

SHORTEST_SECONDS = 0.1
"""Sounds under this length are not marked."""
FOUND = 0.95
"""Least score that counts as found; above, 5 % of unmarked sounds and instruments still score."""

_BLOCK_HOPS = 1000  # 10 s: memory stays flat however long the recording
_SHORTEST_BLOCK = 2048
_CONTEXT = 24 * HOP
"""Samples on both sides that a sample's mark depends on: 15 frames of convolutions, 7 of STFT."""
_TRUSTED_SECONDS = 1.0
_BAND_LIMITED = 1e-6
"""Part of the power above 4 kHz under which a recording counts as band-limited."""
_TONAL = 1e-4
"""Spectral flatness from 50 to 2,000 Hz under which a recording counts as tonal."""
_LOUDEST_PEAK = 0.99

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


def set_watermark(waveform: Tensor, sample_rate: int) -> tuple[Tensor, str]:
    """Set the watermark.

    Only the difference that the mark makes is resampled: what lies above 16 kHz stays, and so does
    every sample of a silent recording.

    Args:
        waveform: (samples,) or (channels, samples), within -1..1.
        sample_rate: Samples per second.

    Returns:
        The same shape, within -1..1, and a sentence for the user: why there is no mark, or that
        the whole was turned down to keep it from clipping; "" otherwise.

    Raises:
        InputError: If the watermark's weights are not installed.
    """
    net = load_perth()
    if waveform.shape[-1] < SHORTEST_SECONDS * sample_rate:
        return waveform, f"Sounds under {SHORTEST_SECONDS} s are too short for a watermark."
    if float(rms(waveform.reshape(-1))) < SILENCE_RMS:
        return waveform, "The sound is silent and carries no watermark."
    channels = waveform.reshape(-1, waveform.shape[-1]).to("cpu", torch.float32)
    rows = []
    for channel in channels:
        inside = resample(channel, sample_rate, PERTH_RATE)
        change = torch.cat([_change(net, *block) for block in _blocks(inside)])
        added = resample(change, PERTH_RATE, sample_rate)
        added = torch.nn.functional.pad(added, (0, max(0, len(channel) - len(added))))
        rows.append(channel + added[: len(channel)])
    marked = torch.stack(rows).reshape(waveform.shape)
    peak = float(marked.abs().amax())
    if peak <= 1.0:
        return marked, ""
    lowered = 20.0 * torch.tensor(peak / _LOUDEST_PEAK).log10()
    return marked * (_LOUDEST_PEAK / peak), (
        f"The watermark's peaks pass full scale; the whole was turned down by {lowered:.1f} dB."
    )


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
    mono = waveform.to("cpu", torch.float32)
    mono = mono if mono.ndim == 1 else mono.mean(dim=0)
    seconds = mono.shape[-1] / sample_rate
    if mono.numel() == 0 or float(rms(mono)) < SILENCE_RMS:
        return WatermarkResult(verdict="unknown", score=None, reason="it is silent")
    inside = resample(mono, sample_rate, PERTH_RATE)
    with torch.inference_mode():
        scores = torch.cat([net.score(_padded(block)[None]) for block, _, _ in _blocks(inside)])
    heard = scores[~scores.isnan()]  # a silent block has no score
    if heard.numel() == 0:
        return WatermarkResult(verdict="unknown", score=None, reason="it is too quiet")
    score = round(float(heard.median()), 3)
    doubt = _doubt(inside, seconds)
    if doubt:
        return WatermarkResult(verdict="unknown", score=score, reason=doubt)
    return WatermarkResult(verdict="found" if score >= FOUND else "not found", score=score)


def _blocks(waveform: Tensor) -> list[tuple[Tensor, int, int]]:
    """Stretches with context on both sides, and the context's samples: (block, before, after).

    All start on a frame, so that their frames are those of the whole.
    """
    hops = -(-len(waveform) // HOP)
    count = max(1, round(hops / _BLOCK_HOPS))  # equal parts: no last part of a few samples
    edges = [HOP * (hops * i // count) for i in range(count)] + [len(waveform)]
    cut = []
    for start, end in pairwise(edges):
        before, after = min(start, _CONTEXT), min(len(waveform) - end, _CONTEXT)
        cut.append((waveform[start - before : end + after], before, after))
    return cut


def _change(net: PerthNet, block: Tensor, before: int, after: int) -> Tensor:
    """What the mark adds to a block, without its context."""
    with torch.inference_mode():
        padded = _padded(block)
        change = (net.mark(padded[None])[0] - padded)[: len(block)]
    return change[before : len(block) - after]


def _padded(block: Tensor) -> Tensor:
    """A block long enough for an STFT with reflected ends."""
    return torch.nn.functional.pad(block, (0, max(0, _SHORTEST_BLOCK - len(block))))


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

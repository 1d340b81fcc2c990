"""Hides a number of 16 bits in recordings of any length, rate and channel count, and finds it."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unison_audio.provenance.payload_networks import (
    FRAME_HOP,
    PAYLOAD_RATE,
    WINDOW,
    PayloadNet,
    at_normal_speed,
    band_levels,
    frame_spectrum,
    load_payload_net,
)
from unison_audio.provenance.payload_pattern import (
    FRAMES,
    LINES,
    PERIOD,
    ROWS,
    SLOTS,
    codebook,
    correlators,
    tile,
)
from unison_audio.provenance.watermark import (
    SHORTEST_SECONDS,
    SILENCE_RMS,
    Verdict,
    limited,
)

FOUND_Z = 6.9
"""Least z that counts as found. The key is drawn apart from any recording, so that a hypothesis
passes z by chance with at most exp(-z²/2). There are 23 speeds, 80 shifts and 65,536 numbers: at
most 0.6 % of unmarked recordings pass."""

STRENGTH = 1.15
"""Factor on the gains of the networks."""

_SPEEDS = tuple(round(0.89 + 0.01 * step, 2) for step in range(23))
_TILE_SECONDS = PERIOD * FRAME_HOP / PAYLOAD_RATE
_PIECE_TILES = 8
_RAMP_SECONDS = 0.032
_SEARCHED_FRAMES = 400
"""Frames that are searched at once: over a longer time the steps of 1 % in speed would blur."""
_HOPEFUL = 40
"""Hypotheses whose numbers are all tried."""
_TRUSTED_SECONDS = 1.0
_SURE = 0.999
"""Least probability with which a number is reported."""


@dataclass(frozen=True, kw_only=True)
class PayloadResult:
    """What the detector says about a recording."""

    verdict: Verdict
    """"found", "not found" or "unknown"."""
    payload: int | None
    """The number; None where none was found, or not for sure."""
    score: float | None
    """The detector's z; None for a silent recording."""
    speed: float | None = None
    """Speed at which it was found."""
    reason: str = ""
    """Why the verdict is unknown, or the number is."""


class PayloadStream:
    """Hides a number in a sound that comes piece by piece, ten seconds behind.

    Only the change is resampled: what lies above 8 kHz stays.

    Args:
        sample_rate: Samples per second.
        channels: Number of channels.
        payload: The number, 0 to 65535.
    """

    def __init__(self, sample_rate: int, channels: int, payload: int) -> None:
        self._net, self._cells = load_payload_net(), tile(payload)
        self._rate, self._channels = sample_rate, channels
        # Pieces begin on a tile, so that the pattern runs on from one to the next.
        self._margin = round(_TILE_SECONDS * sample_rate)
        self._piece = round(_PIECE_TILES * _TILE_SECONDS * sample_rate)
        self._ramp = round(_RAMP_SECONDS * sample_rate)
        self._held: NDArray[np.float32] = np.zeros((0, channels), np.float32)
        self._before = 0  # samples of the held ones that lie before the piece: its margin
        self._tail: NDArray[np.float32] = np.zeros((0, channels), np.float32)
        self._total, self._loudest = 0, 0.0

    @property
    def note(self) -> str:
        """Why the sound as a whole carries no number; "" where it does."""
        if self._total < SHORTEST_SECONDS * self._rate:
            return f"Sounds under {SHORTEST_SECONDS} s are too short for a payload."
        if self._loudest < SILENCE_RMS:
            return "The sound is silent and carries no payload."
        return ""

    def write(self, samples: NDArray[np.floating]) -> NDArray[np.float32]:
        """Take (samples, channels) within -1..1, and return what is ready, which may be nothing."""
        block = np.asarray(samples, np.float32).reshape(-1, self._channels)
        self._total += len(block)
        self._loudest = max(self._loudest, float(np.abs(block).max(initial=0.0)))
        self._held = np.concatenate([self._held, block])
        made = [np.zeros((0, self._channels), np.float32)]
        # The last piece has one to two lengths: none is so short that its level means little.
        while len(self._held) - self._before >= 2 * self._piece + self._margin:
            made.append(self._next(self._before + self._piece, last=False))
        return np.concatenate(made)

    def finish(self) -> NDArray[np.float32]:
        """The rest of the sound."""
        if self._total < SHORTEST_SECONDS * self._rate:
            return self._held
        return self._next(len(self._held), last=True)

    def _next(self, stop: int, *, last: bool) -> NDArray[np.float32]:
        """Mark the piece up to `stop`, and return it but for the ramp into the next."""
        first = self._before
        given = self._held[: len(self._held) if last else stop + self._margin]
        change = np.stack([self._change(channel) for channel in given.T], axis=1)
        # Ramps of a margin's samples sum to one with those of the piece before.
        weight = np.ones(len(given), np.float32)
        rise = np.linspace(0.0, 1.0, 2 * self._ramp, dtype=np.float32)
        if first:
            weight[: first - self._ramp] = 0.0
            weight[first - self._ramp : first + self._ramp] = rise
        if not last:
            weight[stop - self._ramp : stop + self._ramp] = 1.0 - rise
        change *= weight[:, None]
        begin = max(0, first - self._ramp)
        change[begin : begin + len(self._tail)] += self._tail
        end = stop if last else stop - self._ramp
        made = (given + change)[begin:end]
        if not last:
            self._tail = change[end : stop + self._ramp]
            self._held, self._before = self._held[stop - self._margin :], self._margin
        return np.stack([limited(channel, self._rate) for channel in made.T], axis=1)

    def _change(self, channel: NDArray[np.float32]) -> NDArray[np.float32]:
        inside = torch.from_numpy(soxr.resample(channel, self._rate, PAYLOAD_RATE))
        change = (hidden(self._net, inside, self._cells) - inside).numpy()
        added: NDArray[np.float32] = soxr.resample(change, PAYLOAD_RATE, self._rate)
        return np.pad(added[: len(channel)], (0, max(0, len(channel) - len(added))))


def hidden(net: PayloadNet, waveform: Tensor, cells: Tensor, strength: float = STRENGTH) -> Tensor:
    """A sound with repeated cells, (slots, 27), in it: (samples,) at 16 kHz."""
    padded = F.pad(waveform, (0, max(0, WINDOW - len(waveform))))
    repeats = 2 + len(padded) // (FRAME_HOP * PERIOD)
    with torch.inference_mode():
        return net.hide(padded[None], cells.repeat(repeats, 1)[None], strength)[0][
            0, : len(waveform)
        ]


def find_payload(
    waveform: Tensor, sample_rate: int, net: PayloadNet | None = None
) -> PayloadResult:
    """Look for a number, piece by piece.

    Args:
        waveform: (samples,) or (channels, samples).
        sample_rate: Samples per second.
        net: Other networks than the package's.

    Returns:
        The verdict on the highest z of the pieces; each further piece raises the least z that
        counts, so that a long recording is no more often taken for a marked one.
    """
    mono = waveform.detach().to("cpu", torch.float32)
    mono = mono if mono.ndim == 1 else mono.mean(dim=0)
    seconds = mono.shape[-1] / sample_rate
    if mono.numel() == 0 or float(mono.abs().max()) < SILENCE_RMS:
        return PayloadResult(verdict="unknown", payload=None, score=None, reason="it is silent")
    inside = torch.from_numpy(soxr.resample(mono.numpy(), sample_rate, PAYLOAD_RATE))
    count = max(1, round(len(inside) / (FRAME_HOP * _SEARCHED_FRAMES)))
    chosen = net or load_payload_net()
    best = max(_search(chosen, piece) for piece in inside.chunk(count))
    score = round(best.z, 2)
    if best.z >= math.sqrt(FOUND_Z**2 + 2 * math.log(count)):
        # A weak mark may be found and its number misread, so only a sure number is reported.
        sure = best.chance >= _SURE
        return PayloadResult(
            verdict="found",
            payload=best.payload if sure else None,
            score=score,
            speed=best.speed,
            reason="" if sure else "a payload is there, but its number cannot be read for sure",
        )
    reason = f"it is {seconds:.2f} s long" if seconds < _TRUSTED_SECONDS else ""
    verdict: Verdict = "unknown" if reason else "not found"
    return PayloadResult(verdict=verdict, payload=None, score=score, reason=reason)


class _Match(NamedTuple):
    """The best hypothesis; matches are ordered by z."""

    z: float
    payload: int
    speed: float
    chance: float
    """Probability of the number, given the hypothesis's speed and shift."""


def _search(net: PayloadNet, piece: Tensor) -> _Match:
    """The hypothesis with the highest z in a piece at 16 kHz."""
    padded = F.pad(piece, (0, max(0, 2 * WINDOW - len(piece))))
    with torch.inference_mode():
        odds = net.evidence(band_levels(frame_spectrum(padded[None]).abs().square()))
        # 1. The odds of each cell, under each speed and each shift of the tile.
        tiles = []
        for speed in _SPEEDS:
            frames = math.ceil(odds.shape[1] * speed / PERIOD) * PERIOD
            flat = at_normal_speed(odds, torch.tensor([speed]), frames)[0]
            folded = flat.reshape(-1, PERIOD, LINES, ROWS).sum(dim=(0, 3))
            tiles.append(torch.stack([folded.roll(-k, 0) for k in range(FRAMES)]).sum(dim=0))
        slots = torch.arange(PERIOD)[:, None] + FRAMES * torch.arange(SLOTS)  # (shifts, slots)
        cells = torch.stack(tiles)[:, slots % PERIOD].flatten(0, 1).flatten(1)  # (N, 432)
        size = cells.square().sum(dim=1, keepdim=True).sqrt().clamp_min(1e-6)
        cells = cells / size
        # 2. All numbers under the hypotheses that look best.
        sums = cells @ correlators()  # (N, 65)
        hopeful = (sums[:, 0] + 0.6 * sums[:, 1:].abs().sum(dim=1)).topk(_HOPEFUL).indices
        scores = sums[hopeful, 1:] @ codebook().T + sums[hopeful, :1]  # (40, 65536)
        row, payload = divmod(int(scores.argmax()), scores.shape[1])
        # 3. The number's probability, from odds that are log-likelihood ratios.
        chance = float((scores[row] * size[hopeful[row]]).softmax(dim=0)[payload])
        speed = _SPEEDS[int(hopeful[row]) // PERIOD]
        return _Match(float(scores[row, payload]), payload, speed, chance)

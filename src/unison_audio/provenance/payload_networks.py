"""The networks of the payload: one sets the level of each cell, one reads the cells' signs.

`benchmarks/own_mark.py` trains them; `dev/own-mark.md` has the figures.
"""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unison_audio.provenance.payload_pattern import BANDS, spread

PAYLOAD_RATE = 16_000
"""Sample rate inside, in Hz."""
FRAME_HOP = 256
"""Samples between two frames."""
WINDOW = 1024
"""Samples of a frame."""
WEIGHTS_FILE = Path(__file__).parents[1] / "weights" / "payload.safetensors"

_PER_OCTAVE, _LOWEST_HZ = 12, 300.0
_STRONGEST_DB = 4.0
_FLOOR = 1e-5


@cache
def _band_matrices() -> tuple[Tensor, Tensor]:
    """Bins to bands for powers, (513, 54), and bands to bins for gains, (54, 513)."""
    hertz = torch.arange(WINDOW // 2 + 1) * PAYLOAD_RATE / WINDOW
    place = _PER_OCTAVE * torch.log2(hertz.clamp_min(1.0) / _LOWEST_HZ)
    up = (1 - (place[None] - torch.arange(BANDS)[:, None]).abs()).clamp_min(0.0)
    centers = _LOWEST_HZ * 2 ** (torch.arange(BANDS) / _PER_OCTAVE)
    width = torch.maximum(centers * 0.06, torch.tensor(PAYLOAD_RATE / WINDOW))
    down = (1 - (hertz[:, None] - centers[None]).abs() / width[None]).clamp_min(0.0)
    return down / down.sum(dim=0), up


def band_levels(power: Tensor) -> Tensor:
    """Powers (B, frames, bins) -> log levels of bands (B, frames, 54), relative to the mean."""
    bands = power @ _band_matrices()[0]
    return torch.log(bands / (bands.mean(dim=(1, 2), keepdim=True) + 1e-12) + _FLOOR)


def frame_spectrum(waves: Tensor) -> Tensor:
    """(B, samples) -> (B, frames, bins), complex."""
    window = torch.hann_window(WINDOW)
    return torch.stft(waves, WINDOW, FRAME_HOP, window=window, return_complex=True).transpose(1, 2)


def at_normal_speed(values: Tensor, speeds: Tensor, frames: int) -> Tensor:
    """A map of recordings that run at `speeds`, (B, T, 54), as of the normal speed.

    On the logarithmic axis of pitch a speed is a shift, and in time a stretch.

    Args:
        values: (B, T, 54).
        speeds: (B,).
        frames: Frames of the result.

    Returns:
        (B, frames, 54), 0 outside the map.
    """
    count, length, _ = values.shape
    t = torch.arange(frames)[None] / speeds[:, None]  # (B, frames)
    f = torch.arange(BANDS)[None] + _PER_OCTAVE * torch.log2(speeds)[:, None]
    grid = torch.stack(
        [
            (2 * f / (BANDS - 1) - 1)[:, None].expand(count, frames, BANDS),
            (2 * t / (length - 1) - 1)[:, :, None].expand(count, frames, BANDS),
        ],
        dim=-1,
    )
    return F.grid_sample(values[:, None], grid, align_corners=True)[:, 0]


class BandConvolutions(nn.Module):
    """Residual 3x3 convolutions over (B, channels, frames, bands) with a bias for each band."""

    def __init__(
        self, inputs: int, width: int, dilations: tuple[int, ...], bias: float = 0.0
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.place = nn.Parameter(torch.zeros(1, width, 1, BANDS))
        self.rest = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=(d, 1), dilation=(d, 1)) for d in dilations
        )
        self.last = nn.Conv2d(width, 1, 1)
        nn.init.zeros_(self.last.weight)
        self.last.bias = nn.Parameter(torch.full((1,), bias))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T, 54) -> (B, T, 54)."""
        x = self.first(x.contiguous(memory_format=torch.channels_last)) + self.place
        for layer in self.rest:
            x = x + layer(F.gelu(x))
        values: Tensor = self.last(F.gelu(x))[:, 0]
        return values


class PayloadNet(nn.Module):
    """The encoder, which sets the level of cells, and the detector, which reads their signs."""

    def __init__(self) -> None:
        super().__init__()
        # At first 1.2 dB: below that the detector learns nothing.
        self.encoder = BandConvolutions(2, 20, (1, 1, 2, 4), bias=-0.8)
        self.detector = BandConvolutions(2, 28, (1, 2, 4, 1, 2, 4))

    def gains(self, level: Tensor, pattern: Tensor) -> Tensor:
        """Gains in dB, (B, T, 54), for levels and a pattern of the same shape."""
        strength = torch.sigmoid(self.encoder(torch.stack([level / 4, pattern], dim=1)))
        return _STRONGEST_DB * strength * pattern

    def evidence(self, level: Tensor) -> Tensor:
        """Log odds of the sign of each frame and band: (B, T, 54)."""
        mean = F.avg_pool2d(level[:, None], (21, 7), 1, (10, 3), count_include_pad=False)[:, 0]
        odds: Tensor = self.detector(torch.stack([level / 4, level - mean], dim=1))
        return 0.3 * odds

    def hide(self, waves: Tensor, cells: Tensor, strength: float = 1.0) -> tuple[Tensor, Tensor]:
        """Hide cells in waveforms.

        Args:
            waves: (B, samples), more than half a frame.
            cells: (B, slots, 27), signs.
            strength: Factor on all gains in dB.

        Returns:
            The waveforms and the gains in dB, (B, T, 54).
        """
        bins = frame_spectrum(waves)
        pattern = spread(cells, bins.shape[1])
        gains = strength * self.gains(band_levels(bins.abs().square()), pattern)
        change = 10 ** (gains @ _band_matrices()[1] / 20)
        made = torch.istft(
            (bins * change).transpose(1, 2),
            WINDOW,
            FRAME_HOP,
            window=torch.hann_window(WINDOW),
            length=waves.shape[1],
        )
        return made, gains


@cache
def load_payload_net(file: Path = WEIGHTS_FILE) -> PayloadNet:
    """Load networks, by default those of the package; loaded once."""
    from safetensors.torch import load_file

    net = PayloadNet()
    net.load_state_dict({name: one.float() for name, one in load_file(file).items()})
    return net.eval().requires_grad_(False)

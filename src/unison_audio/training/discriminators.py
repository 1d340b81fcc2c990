"""Small discriminators for the nano codec: bands of complex spectra, and waveforms by period.

All convolutions run over time alone, with the bins of a band, or nothing, as input channels: on a
processor they cost a fifth of convolutions over time and frequency.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class BandShape:
    """Shape of a `BandDiscriminator`."""

    n_fft: int
    """STFT size; the hop is a quarter of it."""
    bands: int
    """Bands of equal width; their number divides ``n_fft // 2``."""
    width: int
    """Channels of a band."""
    layers: int
    """Convolutions before the score, each with twice the reach of the one before."""


BANDS = (
    BandShape(n_fft=1024, bands=8, width=32, layers=3),
    BandShape(n_fft=512, bands=4, width=48, layers=3),
    BandShape(n_fft=256, bands=2, width=48, layers=2),
)
PERIODS = (3, 5, 7)
COMPRESSION = 0.3
"""Power to which magnitudes are raised, so that what is quiet is judged too."""

Judgement = tuple[Tensor, list[Tensor]]
"""Scores, and the features of every layer."""


class BandDiscriminator(nn.Module):
    """Judges each band of a complex spectrum by itself, magnitudes and phases together."""

    window: Tensor

    def __init__(self, shape: BandShape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("window", torch.hann_window(shape.n_fft), persistent=False)
        bins = shape.n_fft // 2 // shape.bands
        widths = [2 * bins, *([shape.width] * shape.layers)]
        self.layers = nn.ModuleList(
            nn.Conv1d(
                a * shape.bands,
                b * shape.bands,
                3,
                padding=2**i,
                dilation=2**i,
                groups=shape.bands,
            )
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.last = nn.Conv1d(
            shape.width * shape.bands, shape.bands, 3, padding=1, groups=shape.bands
        )

    def forward(self, waveform: Tensor) -> Judgement:
        """Judges (B, samples); the scores are (B, bands, T)."""
        return _run(self.layers, self.last, self.spectrum(waveform))

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Real and imaginary parts with compressed magnitudes, (B, bands * 2 * bins, T)."""
        n_fft, bands = self.shape.n_fft, self.shape.bands
        spectrum = torch.stft(waveform, n_fft, n_fft // 4, window=self.window, return_complex=True)[
            :, 1:
        ]  # the constant is left out
        real, imaginary = spectrum.real, spectrum.imag
        power = real.square() + imaginary.square() + 1e-6
        gain = power.pow((COMPRESSION - 1) / 2)
        parts = torch.stack([real * gain, imaginary * gain], dim=1)  # (B, 2, n_fft / 2, T)
        return parts.unflatten(2, (bands, -1)).transpose(1, 2).flatten(1, 3)


class PeriodDiscriminator(nn.Module):
    """Judges a waveform folded to rows of one period (HiFi-GAN, Kong et al. 2020)."""

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = period
        widths = (1, 8, 24, 48)
        self.layers = nn.ModuleList(
            nn.Conv1d(a, b, 5, 3, padding=2) for a, b in itertools.pairwise(widths)
        )
        self.last = nn.Conv1d(widths[-1], 1, 3, padding=1)

    def forward(self, waveform: Tensor) -> Judgement:
        """Judges (B, samples); the scores are (B * period, 1, T)."""
        padded = F.pad(waveform, (0, -waveform.shape[-1] % self.period))
        rows = padded.unflatten(1, (-1, self.period)).transpose(1, 2).flatten(0, 1)
        return _run(self.layers, self.last, rows[:, None])


def _run(layers: nn.ModuleList, last: nn.Module, x: Tensor) -> Judgement:
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), 0.1)
        features.append(x)
    return last(x), features


class Discriminators(nn.Module):
    """All discriminators together."""

    def __init__(self) -> None:
        super().__init__()
        self.judges = nn.ModuleList(
            [BandDiscriminator(shape) for shape in BANDS]
            + [PeriodDiscriminator(period) for period in PERIODS]
        )

    def forward(self, waveform: Tensor) -> list[Judgement]:
        """Judges (B, samples)."""
        return [judge(waveform) for judge in self.judges]


def judge_loss(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """Least-squares loss that scores recordings 1 and outputs 0, the mean over discriminators."""
    losses = [
        (1 - ours).square().mean() + theirs.square().mean()
        for (ours, _), (theirs, _) in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).mean()


def fooling_loss(fake: list[Judgement]) -> Tensor:
    """Least-squares loss that wants outputs scored 1, the mean over discriminators."""
    return torch.stack([(1 - scores).square().mean() for scores, _ in fake]).mean()


def feature_loss(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """Mean L1 distance of features, each layer relative to the size of the recording's.

    Gradients reach the outputs' features alone.
    """
    losses = []
    for (_, theirs), (_, ours) in zip(real, fake, strict=True):
        for their, our in zip(theirs, ours, strict=True):
            their = their.detach()
            losses.append(F.l1_loss(our, their) / their.abs().mean().clamp(min=1e-3))
    return torch.stack(losses).mean()


class Adversary:
    """Discriminators in training.

    Args:
        peak_lr: Their highest learning rate.
    """

    def __init__(self, peak_lr: float) -> None:
        self.discriminators = Discriminators()
        self.optimizer = torch.optim.AdamW(
            self.discriminators.parameters(), lr=peak_lr, betas=(0.8, 0.99)
        )

    def meet(
        self, output: Tensor, target: Tensor, *, fooling: float, features: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Gives the discriminators their gradient, and the decoder's share of the loss.

        Both sides learn from the same judgements, so that recordings and outputs are judged once.

        Args:
            output: What the decoder made, (B, samples).
            target: The recordings, (B, samples).
            fooling: Weight of the loss of not fooling the discriminators.
            features: Weight of the distance of their features.

        Returns:
            The decoder's loss, and figures for the log.
        """
        real, fake = self.discriminators(target), self.discriminators(output)
        judge = judge_loss(real, fake)
        weights = list(self.discriminators.parameters())
        for weight, gradient in zip(
            weights, torch.autograd.grad(judge, weights, retain_graph=True), strict=True
        ):
            weight.grad = gradient
        fooled, distance = fooling_loss(fake), feature_loss(real, fake)
        told = {"judge": judge.item(), "fooled": fooled.item(), "features": distance.item()}
        return fooling * fooled + features * distance, told

    def state(self) -> dict[str, object]:
        """Their part of a checkpoint."""
        return {
            "discriminators": self.discriminators.state_dict(),
            "judge_optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict) -> None:
        """Takes up their part of a checkpoint.

        Raises:
            KeyError: If it has none.
            RuntimeError: If it has others.
        """
        self.discriminators.load_state_dict(state["discriminators"])
        self.optimizer.load_state_dict(state["judge_optimizer"])

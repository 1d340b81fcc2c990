"""Small discriminators for the nano codec: multi-period and multi-resolution STFT."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PERIODS = (2, 3, 5, 7)
RESOLUTIONS = (1024, 512, 256)


class PeriodDiscriminator(nn.Module):
    """Judges a waveform folded to rows of one period (HiFi-GAN, Kong et al. 2020)."""

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = period
        widths = (1, 12, 24, 48, 48)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, (5, 1), (3, 1), padding=(2, 0)) for a, b in itertools.pairwise(widths)
        )
        self.last = nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judges (B, samples); gives scores and the features of every layer."""
        padded = F.pad(waveform, (0, -waveform.shape[-1] % self.period))
        return _run(self.layers, self.last, padded.view(len(padded), 1, -1, self.period))


class ResolutionDiscriminator(nn.Module):
    """Judges a log-magnitude spectrogram of one resolution (UnivNet, Jang et al. 2021)."""

    window: Tensor

    def __init__(self, n_fft: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        widths, strides = (1, 12, 12, 24, 24), ((2, 1), (2, 2), (2, 1), (2, 2))
        self.layers = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], (5, 3), strides[i], padding=(2, 1))
            for i in range(4)
        )
        self.last = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judges (B, samples); gives scores and the features of every layer."""
        spectrum = torch.stft(
            waveform, self.n_fft, self.n_fft // 4, window=self.window, return_complex=True
        )
        magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-8).sqrt()
        return _run(self.layers, self.last, magnitude.clamp(min=1e-3).log()[:, None])


def _run(layers: nn.ModuleList, last: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), 0.1)
        features.append(x)
    return last(x), features


class Discriminators(nn.Module):
    """All discriminators together, with least-squares losses."""

    def __init__(self) -> None:
        super().__init__()
        self.judges = nn.ModuleList(
            [PeriodDiscriminator(period) for period in PERIODS]
            + [ResolutionDiscriminator(n_fft) for n_fft in RESOLUTIONS]
        )

    def forward(self, waveform: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Judges (B, samples); gives a score and the features of each discriminator."""
        judged = [judge(waveform) for judge in self.judges]
        return [scores for scores, _ in judged], [features for _, features in judged]

    def judge_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Least-squares loss that scores targets 1 and outputs 0."""
        scores, _ = self(torch.cat([target, output]))
        total = output.new_zeros(())
        for score in scores:
            real, fake = score.chunk(2)
            total = total + (1 - real).square().mean() + fake.square().mean()
        return total / len(scores)


def feature_loss(ours: list[list[Tensor]], theirs: list[list[Tensor]]) -> Tensor:
    """Mean L1 distance of features, each layer relative to the size of the target's."""
    total = ours[0][0].new_zeros(())
    count = 0
    for our_layers, their_layers in zip(ours, theirs, strict=True):
        for our, their in zip(our_layers, their_layers, strict=True):
            total = total + F.l1_loss(our, their) / their.abs().mean().clamp(min=1e-3)
            count += 1
    return total / count

"""aiSFX, which describes sounds by vectors, for the event classifier."""

import itertools
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unison_audio.audio import resample
from unison_audio.evaluation.models.weights import package_folder
from unison_audio.spectrogram import mel_filters, stft


class FeatureEncoder(Protocol):
    """Describes recordings by vectors; `asr.FasterWhisper` is one too."""

    def features(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Describes a waveform (samples,) by a vector (features,)."""
        ...


class SoundBlock(nn.Module):
    """Two convolutions with batch normalization."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width_out), nn.BatchNorm2d(width_out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, width_in, T, mels) to (B, width_out, T, mels)."""
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))


class SoundNet(nn.Module):
    """Nine-layer convolutions over mel spectrograms (Kong et al. 2018), as aiSFX has them."""

    def __init__(self, widths: Sequence[int] = (1, 64, 128, 256, 512)) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SoundBlock(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, mel: Tensor) -> Tensor:
        """Maps (B, T, mels) to (B, 512, T / 8), averaged over the bands."""
        x = mel[:, None].contiguous(memory_format=torch.channels_last)
        for number, block in enumerate(self.blocks):
            x = block(x if number == 0 else F.max_pool2d(x, 2))
        return x.mean(dim=3)


class SoundEncoder:
    """aiSFX (Ma and Lerch 2022): convolutions trained on the categories of sound libraries.

    Of the package only the weights are read; it is installed without its dependencies.
    """

    sample_rate, n_fft, hop, mels = 44_100, 2048, 1024, 96
    peak = 0.5
    """What recordings are scaled to."""
    span = 9.457798957824707
    """Largest logarithm of the data it was trained on."""

    @cached_property
    def _net(self) -> SoundNet:
        import numpy as np

        # The file holds, beside the weights, numbers of classes as numpy's scalars.
        scalars: list[Any] = [
            (np.int64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
            np.dtype,
            type(np.dtype("int64")),
        ]
        path = package_folder("aisfx") / "models" / "checkpoint.pth"
        with torch.serialization.safe_globals(scalars):
            weights, _ = torch.load(path, map_location="cpu", weights_only=True)
        net = SoundNet()
        prefix = "embedding_net.conv_block"
        net.load_state_dict(
            {  # conv_block1.* -> blocks.0.*
                f"blocks.{int(name[len(prefix)]) - 1}{name[len(prefix) + 1 :]}": value
                for name, value in weights.items()
                if name.startswith(prefix)
            }
        )
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net.eval().requires_grad_(False)

    def features(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Maximum and mean over time of the last layer, (1024,)."""
        wave = resample(waveform.cpu().float(), sample_rate, self.sample_rate)
        wave = wave * (self.peak / wave.abs().max().clamp_min(1e-6))
        wave = F.pad(wave, (0, max(0, 16 * self.hop - len(wave))))
        with torch.no_grad():
            frames = self._net(self._mel(wave)[None])[0]  # (512, T / 8)
        return torch.cat([frames.amax(dim=1), frames.mean(dim=1)])

    def _mel(self, waveform: Tensor) -> Tensor:
        """Logarithms of mel powers as the net knows them: (samples,) -> (T, mels)."""
        filters = mel_filters(self.sample_rate, self.n_fft, self.mels)
        filters = filters / filters.sum(dim=1, keepdim=True).clamp_min(1e-9)
        spectrum = stft(waveform, self.n_fft, self.hop, padding="zeros")
        return ((1e4 * (filters @ spectrum.abs().square()) + 1).log10() / self.span).T


class JointEncoder:
    """Several encoders side by side.

    Args:
        encoders: Encoders; their vectors are joined in this order.
    """

    def __init__(self, encoders: Sequence[FeatureEncoder]) -> None:
        self.encoders = tuple(encoders)

    def features(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Describes a waveform (samples,) by all of them, (sum of their features,)."""
        return torch.cat([encoder.features(waveform, sample_rate) for encoder in self.encoders])

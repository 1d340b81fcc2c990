"""aiSFX (Ma and Lerch 2022), which describes sounds by vectors, out of its package.

Without a network it stands in for VGGish and Cnn14; those figures compare only with each other.
Nano's event classifier reads its vectors too.
"""

import itertools
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unison_audio.audio import resample
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.metric import MetricContext, windows
from unison_audio.evaluation.models.weights import file_identity, package_folder, read_pickle
from unison_audio.spectrogram import mel_filters, stft

EMBEDDING = 512
"""Width of aiSFX's embedding."""

HEAD = "soundlyTrain"
"""Sound library whose categories are the classes."""

FRAGMENT = 100
"""Frames that aiSFX was trained on: 2.3 s."""

LEAST_FRAMES = 16


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
        weights, _ = _read_package()
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


class AisfxTagger:
    """The tagger aiSFX (Ma and Lerch 2022), by its embedding and one of its own heads.

    Args:
        context: Not used; the model comes with the package aisfx.

    Raises:
        InputError: If the package is missing.
    """

    sample_rate = SoundEncoder.sample_rate
    width = EMBEDDING

    def __init__(self, context: MetricContext) -> None:
        weights, heads = _read_package()
        number, classes = heads[HEAD]
        self.head = nn.Sequential(
            nn.Linear(EMBEDDING, 256),
            nn.ReLU(),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )
        prefix = f"fc.{int(number)}."
        self.head.load_state_dict(
            {
                name.removeprefix(prefix): value
                for name, value in weights.items()
                if name.startswith(prefix)
            }
        )
        self.head.eval().requires_grad_(False)
        self.encoder = SoundEncoder()
        self.model, self.identity = f"aiSFX, head {HEAD} (offline)", file_identity(_package_file())

    def fragments(self, waveform: np.ndarray) -> Tensor:
        """Embeds each 2.3 s of a sound, each scaled to one peak.

        Args:
            waveform: (samples,) at 44.1 kHz.

        Returns:
            (fragments, 512): what the last layer is at most over a fragment's time. Fragments are
            evenly spaced and cover the sound; a shorter sound is one.

        Raises:
            InputError: If it is too short.
        """
        hop = SoundEncoder.hop
        if len(waveform) < LEAST_FRAMES * hop:
            raise InputError(
                f"{len(waveform) / self.sample_rate:.3f} s are too short for aiSFX, which needs "
                f"{LEAST_FRAMES * hop / self.sample_rate:.3f} s; generate a longer file"
            )
        parts = windows(waveform, FRAGMENT * hop)
        return torch.stack(
            [
                self.encoder.features(torch.from_numpy(part), self.sample_rate)[:EMBEDDING]
                for part in parts
            ]
        )

    def tag(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Embeddings and logits side by side, (512 + 79,) each: the largest over the fragments.

        Args:
            waveforms: (samples,) each, at 44.1 kHz.

        Raises:
            InputError: If one is too short.
        """
        # The largest, since an event that sounds in one fragment alone must count for the whole
        # sound.
        rows = torch.stack([self.fragments(waveform).amax(dim=0) for waveform in waveforms])
        return list(torch.cat([rows, self.head(rows)], dim=1).numpy())


class AisfxEmbedder:
    """The embedder aiSFX, by fragments.

    Args:
        context: Holds the loaded model.

    Raises:
        InputError: If the package is missing.
    """

    sample_rate = SoundEncoder.sample_rate

    def __init__(self, context: MetricContext) -> None:
        self.tagger = packaged_aisfx(context)
        self.model, self.identity = "aiSFX (offline)", self.tagger.identity

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """Maps (samples,) at 44.1 kHz to (fragments, 512); raises as `AisfxTagger.fragments`."""
        return self.tagger.fragments(waveform).numpy()


def packaged_aisfx(context: MetricContext) -> AisfxTagger:
    """The one aiSFX, loaded once for all metrics."""
    return context.model("aisfx", lambda: AisfxTagger(context))


def _package_file() -> Path:
    """The published checkpoint, which comes with the package."""
    return package_folder("aisfx") / "models" / "checkpoint.pth"


def _read_package() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of the network and of its heads, and each head's number and classes."""
    return read_pickle(_package_file(), "aiSFX")

"""Cnn14 of PANNs at 16 kHz (Kong et al. 2020): the tagger behind FD, KL and IS."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.metric import MetricContext
from unison_audio.evaluation.models.aisfx import SoundBlock
from unison_audio.evaluation.models.weights import file_identity, read_weights, weights_file

SAMPLE_RATE = 16_000

URL = "https://zenodo.org/records/3987831/files/Cnn14_16k_mAP%3D0.438.pth?download=1"

MD5 = "362fc5ff18f1d6ad2f6d464b45893f2c"

FILE = "Cnn14_16k_mAP=0.438.pth"

N_FFT, HOP = 512, 160

MELS, LOWEST, HIGHEST = 64, 50.0, 8000.0
"""Mel bands, and their edges in Hz."""

LEAST_POWER = 1e-10

WIDTHS = (64, 128, 256, 512, 1024, 2048)
"""Channels of the blocks."""

CLASSES = 527
"""Of AudioSet."""

BATCH = 16
"""Sounds in one batch."""

LEAST_SAMPLES = (32 - 1) * HOP
"""Five poolings leave one frame of 32."""


class Spectrum(nn.Module):
    """A short-time Fourier transform by convolution, its kernels in the published file."""

    def __init__(self) -> None:
        super().__init__()
        bins = N_FFT // 2 + 1
        self.stft = nn.Module()
        angles = (
            2
            * math.pi
            / N_FFT
            * torch.outer(
                torch.arange(bins, dtype=torch.float64), torch.arange(N_FFT, dtype=torch.float64)
            )
        )
        window = torch.hann_window(N_FFT, dtype=torch.float64)
        for name, wave in (("conv_real", angles.cos()), ("conv_imag", -angles.sin())):
            kernels = nn.Conv1d(1, bins, N_FFT, stride=HOP, bias=False)
            with torch.no_grad():
                kernels.weight.copy_((wave * window)[:, None])
            self.stft.add_module(name, kernels)

    def forward(self, waveform: Tensor) -> Tensor:
        """Maps (B, samples) to powers (B, T, bins); frames are centered, the ends mirrored."""
        padded = F.pad(waveform[:, None], (N_FFT // 2, N_FFT // 2), mode="reflect")
        real, imaginary = (
            self.stft.get_submodule(name)(padded) for name in ("conv_real", "conv_imag")
        )
        return (real.square() + imaginary.square()).transpose(1, 2)


class LogMel(nn.Module):
    """Mel bands in dB, the filters in the published file."""

    def __init__(self) -> None:
        super().__init__()
        from transformers.audio_utils import mel_filter_bank

        filters = mel_filter_bank(
            num_frequency_bins=N_FFT // 2 + 1,
            num_mel_filters=MELS,
            min_frequency=LOWEST,
            max_frequency=HIGHEST,
            sampling_rate=SAMPLE_RATE,
            norm="slaney",
            mel_scale="slaney",
        )
        self.melW = nn.Parameter(torch.from_numpy(filters).float())

    def forward(self, power: Tensor) -> Tensor:
        """Maps powers (B, T, bins) to dB (B, T, mels)."""
        return 10.0 * (power @ self.melW).clamp_min(LEAST_POWER).log10()


class Cnn14(nn.Module):
    """Six blocks over a log-mel spectrogram, under the published names.

    Args:
        widths: Channels of the blocks; the last is the embedding's width too.
        classes: Number of classes.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, classes: int = CLASSES) -> None:
        super().__init__()
        self.spectrogram_extractor = Spectrum()
        self.logmel_extractor = LogMel()
        self.bn0 = nn.BatchNorm2d(MELS)
        self.blocks = len(widths)
        for number, (width_in, width) in enumerate(
            zip((1, *widths[:-1]), widths, strict=True), start=1
        ):
            self.add_module(f"conv_block{number}", SoundBlock(width_in, width))
        self.fc1 = nn.Linear(widths[-1], widths[-1])
        self.fc_audioset = nn.Linear(widths[-1], classes)

    @classmethod
    def fitting(cls, weights: Mapping[str, Tensor]) -> "Cnn14":
        """A net of the widths that published weights have."""
        numbers = range(1, len(WIDTHS) + 1)
        widths = [len(weights[f"conv_block{number}.conv1.weight"]) for number in numbers]
        return cls(widths, len(weights["fc_audioset.bias"]))

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Embeds and tags waveforms.

        Args:
            waveform: (B, samples) at 16 kHz, at least `LEAST_SAMPLES` long.

        Returns:
            Embeddings after the first linear layer's ReLU (B, 2048), and logits (B, 527).
        """
        x = self.logmel_extractor(self.spectrogram_extractor(waveform))  # (B, T, mels)
        x = self.bn0(x.transpose(1, 2)[..., None]).permute(0, 3, 2, 1)  # (B, 1, T, mels)
        for number in range(1, self.blocks + 1):
            x = self.get_submodule(f"conv_block{number}")(x)
            x = F.avg_pool2d(x, 2) if number < self.blocks else x
        x = x.mean(dim=3)  # (B, 2048, T / 32)
        embedding = F.relu(self.fc1(x.amax(dim=2) + x.mean(dim=2)))
        return embedding, self.fc_audioset(embedding)


class Cnn14Tagger:
    """Cnn14 as a metric model.

    Args:
        context: Where the weights are: ``cnn14``.

    Raises:
        InputError: If they are not available.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, context: MetricContext) -> None:
        path = weights_file(context, "cnn14", FILE, URL, md5=MD5)
        self.net, self.device = read_weights(path, Cnn14.fitting, "PANNs Cnn14"), context.device
        self.net.to(torch.device(context.device))
        self.model, self.identity = f"PANNs Cnn14 16k ({path.name})", file_identity(path)

    @property
    def width(self) -> int:
        """Of the embedding: 2048."""
        return self.net.fc1.out_features

    @torch.inference_mode()
    def tag(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Embeddings and logits side by side, (2048 + 527,) each; equal lengths form a batch.

        Args:
            waveforms: (samples,) each, at 16 kHz.

        Raises:
            InputError: If one is too short.
        """
        said: dict[int, np.ndarray] = {}
        for length in sorted({len(waveform) for waveform in waveforms}):
            if length < LEAST_SAMPLES:
                raise InputError(
                    f"{length / SAMPLE_RATE:.3f} s are too short for Cnn14, which needs "
                    f"{LEAST_SAMPLES / SAMPLE_RATE:.3f} s; generate a longer file"
                )
            places = [k for k, waveform in enumerate(waveforms) if len(waveform) == length]
            for start in range(0, len(places), BATCH):
                group = places[start : start + BATCH]
                batch = torch.from_numpy(np.stack([waveforms[k] for k in group])).to(self.device)
                said.update(
                    zip(group, torch.cat(self.net(batch), dim=1).cpu().numpy(), strict=True)
                )
        return [said[k] for k in range(len(waveforms))]

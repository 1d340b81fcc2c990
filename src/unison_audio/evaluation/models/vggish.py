"""VGGish (Hershey et al. 2017): the network whose embeddings FAD compares."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.metric import MetricContext
from unison_audio.evaluation.models.weights import file_identity, read_weights, weights_file

SAMPLE_RATE = 16_000

URL = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth"

SHA256 = "10086976245803799d9194e9a73d9b6c1549c71d1b80106f5cade5608a561f4b"

FILE = "vggish-10086976.pth"

WINDOW, HOP, N_FFT = 400, 160, 512
"""Samples: 25 ms and 10 ms; the transform's size is the next power of two."""

MELS, LOWEST, HIGHEST = 64, 125.0, 7500.0
"""Mel bands, and their edges in Hz."""

LOG_OFFSET = 0.01

FRAMES = 96
"""Of one example: 0.96 s."""

LEAST_SAMPLES = (FRAMES - 1) * HOP + WINDOW
"""Of one example."""

WIDTHS = (64, 128, 256, 256, 512, 512)
"""Channels of the convolutions."""

POOLED = (True, True, False, True, False, True)
"""Which of them a pooling follows."""


class Vggish(nn.Module):
    """Six convolutions and three linear layers over log-mel patches, under the published names.

    Args:
        widths: Channels of the convolutions.
        hidden: Width of the first two linear layers.
        embedding: Width of the last.
    """

    mel_filters: Tensor

    def __init__(
        self, widths: Sequence[int] = WIDTHS, hidden: int = 4096, embedding: int = 128
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width_in = 1
        for width, pooled in zip(widths, POOLED, strict=True):
            layers += [nn.Conv2d(width_in, width, 3, padding=1), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if pooled else []
            width_in = width
        self.features = nn.Sequential(*layers)
        patch = width_in * (FRAMES // 16) * (MELS // 16)
        # The published net has a ReLU at the end; FAD is defined on what comes before it.
        self.embeddings = nn.Sequential(
            nn.Linear(patch, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, embedding),
        )
        self.register_buffer("mel_filters", mel_filters(), persistent=False)

    @classmethod
    def fitting(cls, weights: Mapping[str, Tensor]) -> "Vggish":
        """A net of the widths that published weights have."""
        biases = (name for name in weights if name.endswith(".bias"))
        widths = [len(weights[name]) for name in biases if name.startswith("features.")]
        return cls(widths, len(weights["embeddings.0.bias"]), len(weights["embeddings.4.bias"]))

    def forward(self, patches: Tensor) -> Tensor:
        """Maps log-mel patches (B, 96, 64) to embeddings (B, 128), neither whitened nor rounded."""
        x = self.features(patches[:, None])  # (B, 512, 6, 4)
        return self.embeddings(x.permute(0, 2, 3, 1).flatten(1))  # channels last, as TensorFlow has


def patches(waveform: Tensor, filters: Tensor) -> Tensor:
    """Log-mel patches without overlap: (samples,) at 16 kHz -> (examples, 96, 64).

    Args:
        waveform: The sound, within -1..1.
        filters: Of `mel_filters`.
    """
    frames = waveform.unfold(0, WINDOW, HOP)  # (T, 400), none beyond the ends
    window = torch.hann_window(WINDOW, dtype=waveform.dtype, device=waveform.device)
    magnitudes = torch.fft.rfft(frames * window, N_FFT).abs()  # (T, 257)
    log_mel = (magnitudes @ filters.to(magnitudes) + LOG_OFFSET).log()  # (T, 64)
    count = len(log_mel) // FRAMES
    return log_mel[: count * FRAMES].reshape(count, FRAMES, MELS)


def mel_filters() -> Tensor:
    """Triangles of unit height, straight over HTK's mel scale: (257, 64)."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=N_FFT // 2 + 1,
        num_mel_filters=MELS,
        min_frequency=LOWEST,
        max_frequency=HIGHEST,
        sampling_rate=SAMPLE_RATE,
        norm=None,
        mel_scale="htk",
        triangularize_in_mel_space=True,
    )
    return torch.from_numpy(filters).float()


class VggishEmbedder:
    """VGGish as a metric model.

    Args:
        context: Where the weights are: ``vggish``.

    Raises:
        InputError: If they are not available.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, context: MetricContext) -> None:
        path = weights_file(context, "vggish", FILE, URL, sha256=SHA256)
        self.net, self.device = read_weights(path, Vggish.fitting, "VGGish"), context.device
        self.net.to(torch.device(context.device))
        self.model, self.identity = f"VGGish ({path.name})", file_identity(path)

    @torch.inference_mode()
    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """Describes each 0.96 s of a sound; what is left at the end is dropped.

        Args:
            waveform: (samples,) at 16 kHz.

        Returns:
            (examples, 128).

        Raises:
            InputError: If there is not even one example.
        """
        if len(waveform) < LEAST_SAMPLES:
            raise InputError(
                f"{len(waveform) / SAMPLE_RATE:.3f} s are too short for VGGish, which takes "
                f"{LEAST_SAMPLES / SAMPLE_RATE:.3f} s at once; generate a longer file"
            )
        examples = patches(torch.from_numpy(waveform).to(self.device), self.net.mel_filters)
        return self.net(examples).cpu().numpy()

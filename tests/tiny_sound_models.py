"""Small instances of the metric models of sound, in the layouts of the published ones."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

VGGISH_FILE = "vggish-10086976.pth"
VGGISH_CONVOLUTIONS = (0, 3, 6, 8, 11, 13)
"""Places of the convolutions in ``features``."""
CNN14_FILE = "Cnn14_16k_mAP=0.438.pth"


def write_vggish(
    folder: Path,
    widths: Sequence[int] = (2, 3, 2, 2, 3, 2),
    hidden: int = 6,
    embedding: int = 4,
    seed: int = 0,
) -> Path:
    """Writes random VGGish weights; returns the file."""
    torch.manual_seed(seed)
    weights: dict[str, Tensor] = {}
    width_in = 1
    for place, width in zip(VGGISH_CONVOLUTIONS, widths, strict=True):
        weights[f"features.{place}.weight"] = torch.randn(width, width_in, 3, 3) / 3
        weights[f"features.{place}.bias"] = torch.randn(width)
        width_in = width
    sizes = (width_in * 6 * 4, hidden, hidden, embedding)
    for number in range(3):
        into, out = sizes[number], sizes[number + 1]
        weights[f"embeddings.{2 * number}.weight"] = torch.randn(out, into) / math.sqrt(into)
        weights[f"embeddings.{2 * number}.bias"] = torch.randn(out)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / VGGISH_FILE)
    return folder / VGGISH_FILE


def write_cnn14(
    folder: Path,
    widths: Sequence[int] = (4, 3, 4, 3, 4, 6),
    classes: int = 5,
    seed: int = 0,
) -> Path:
    """Writes random Cnn14 weights as the training script of PANNs does; returns the file."""
    from scipy.signal import get_window
    from transformers.audio_utils import mel_filter_bank

    torch.manual_seed(seed)
    kernels = np.fft.fft(np.eye(512))[:257] * get_window("hann", 512)
    mel = mel_filter_bank(257, 64, 50.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney")
    weights = {
        "spectrogram_extractor.stft.conv_real.weight": torch.from_numpy(kernels.real)[:, None],
        "spectrogram_extractor.stft.conv_imag.weight": torch.from_numpy(kernels.imag)[:, None],
        "logmel_extractor.melW": torch.from_numpy(mel),
        **_normalisation("bn0", 64),
    }
    weights["bn0.running_mean"] -= 30.0  # dB
    weights["bn0.running_var"] *= 300.0
    width_in = 1
    for block, width in enumerate(widths, start=1):
        for layer, into in ((1, width_in), (2, width)):
            name = f"conv_block{block}"
            scale = math.sqrt(9 * into / 2)
            weights[f"{name}.conv{layer}.weight"] = torch.randn(width, into, 3, 3) / scale
            weights |= _normalisation(f"{name}.bn{layer}", width)
        width_in = width
    for name, out in (("fc1", width_in), ("fc_audioset", classes)):
        weights[f"{name}.weight"] = torch.randn(out, width_in)
        weights[f"{name}.bias"] = torch.randn(out)
    folder.mkdir(parents=True, exist_ok=True)
    sampler = {  # of its balanced training sampler
        "indexes_per_class": [np.arange(3), np.arange(3, 5)],
        "queue": [1, 0],
        "pointers_of_classes": [0] * classes,
    }
    weights = {
        name: value.float() if value.is_floating_point() else value
        for name, value in weights.items()
    }
    torch.save({"iteration": 600_000, "model": weights, "sampler": sampler}, folder / CNN14_FILE)
    return folder / CNN14_FILE


def _normalisation(name: str, width: int) -> dict[str, Tensor]:
    return {
        f"{name}.weight": 1 + 0.2 * torch.randn(width),
        f"{name}.bias": 0.4 + 0.2 * torch.randn(width),
        f"{name}.running_mean": 0.3 * torch.randn(width),
        f"{name}.running_var": 0.5 + torch.rand(width),
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def write_clap(folder: Path, seed: int = 0) -> Path:
    """Writes a small CLAP with a tokeniser of letters, as the hub has it; returns the folder."""
    from transformers import (
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        ClapProcessor,
        RobertaTokenizerFast,
    )

    folder.mkdir(parents=True, exist_ok=True)
    letters = ["<s>", "<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz,.", "Ġ", "<mask>"]
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = RobertaTokenizerFast.from_pretrained(folder)
    extractor = ClapFeatureExtractor(
        frequency_min=50, truncation="rand_trunc", padding="repeatpad", max_length_s=10
    )
    torch.manual_seed(seed)
    config = ClapConfig(
        projection_dim=12,
        text_config={
            "vocab_size": len(letters),
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "max_position_embeddings": 96,
        },
        audio_config={
            "patch_embeds_hidden_size": 4,
            "hidden_size": 8,
            "depths": [1, 1],
            "num_attention_heads": [1, 1],
            "num_hidden_layers": 2,
            "spec_size": 256,
            "patch_size": 8,
            "patch_stride": [8, 8],
            "window_size": 8,
        },
    )
    ClapModel(config).save_pretrained(folder)
    ClapProcessor(feature_extractor=extractor, tokenizer=tokenizer).save_pretrained(folder)
    return folder

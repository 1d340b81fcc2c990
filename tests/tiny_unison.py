"""Small, random parts of nano's kind, for tests that run the whole path."""

import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from unison_audio.codecs.nano import NanoCodec, NanoCodecConfig
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.config import BackboneConfig
from unison_audio.text.states import TextSetup, TextStates
from unison_audio.variants import VARIANTS, Variant

RATE = 16_000
TINY_CODEC = NanoCodecConfig(
    latent_channels=8,
    n_fft=1024,
    mels=16,
    widths=(8, 8, 16),
    encoder_blocks=(1, 1, 1),
    decoder_widths=(8, 8, 16),
    decoder_blocks=(1, 1, 1),
)


def tiny_variant() -> Variant:
    """Nano with a very small backbone that reads the real MiniLM."""
    small = BackboneConfig(
        latent_channels=8,
        dim=32,
        heads=2,
        rope_dim=8,
        blocks=2,
        text_dim=384,
        embed_kernel=3,
    )
    plain = {"solver": "euler", "speech_temperature": 1.0, "speech_candidates": 1}
    return dataclasses.replace(VARIANTS["nano"], backbone=small, steps=3, **plain)


def random_backbone(variant: Variant, seed: int = 0) -> UnisonBackbone:
    """All weights random, also those that begin at zero, so that every input matters."""
    torch.manual_seed(seed)
    backbone = UnisonBackbone(variant.backbone)
    with torch.no_grad():
        for weight in backbone.parameters():
            if not weight.any():
                weight.normal_(std=0.1)
    return backbone.eval()


def random_codec(seed: int = 1) -> NanoCodec:
    torch.manual_seed(seed)
    codec = NanoCodec(TINY_CODEC).eval().requires_grad_(False)
    codec.decoder.head.bias.data[: TINY_CODEC.n_fft // 2 + 1] -= 2.0  # well below clipping
    return codec


class StubEncoder:
    """States drawn from the text itself: as fast as nothing, and different for different texts."""

    def __init__(self, setup: TextSetup | None = None, width: int = 384) -> None:
        self.layers, self.width = len(setup.picks) if setup else 2, width
        self.penultimate = setup is not None and setup.penultimate

    def encode(self, instructions: Sequence[str]) -> TextStates:
        counts = [len(text.split()) for text in instructions]
        states = torch.zeros(len(counts), self.layers + 1, max(counts), self.width)
        mask = torch.arange(max(counts))[None] < torch.tensor(counts)[:, None]
        for row, (text, count) in enumerate(zip(instructions, counts, strict=True)):
            generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
            states[row, :, :count] = torch.randn(
                self.layers + 1, count, self.width, generator=generator
            )
        return TextStates(
            hidden_states=states[:, : self.layers],
            mask=mask,
            penultimate=states[:, -1] if self.penultimate else None,
        )


def tone_file(path: Path, seconds: float, rate: int) -> Path:
    """A file with a tone of 440 Hz."""
    time = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.1 * np.sin(2 * np.pi * 440 * time), rate)
    return path

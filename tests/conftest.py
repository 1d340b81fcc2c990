"""A checkpoint of nano's kind, small and random, for all tests that run the whole path."""

import dataclasses
from pathlib import Path

import pytest
import torch

from unison_audio import checkpoint
from unison_audio.frozen.codec import save_nano_codec
from unison_audio.frozen.nano_codec import NanoCodec, NanoCodecConfig
from unison_audio.model.backbone import BackboneConfig, UnisonBackbone
from unison_audio.variants import VARIANTS, Variant

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
    return dataclasses.replace(VARIANTS["nano"], backbone=small, steps=3)


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


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `Unison.from_pretrained` takes it."""
    folder = tmp_path_factory.mktemp("tiny")
    variant = tiny_variant()
    checkpoint.save(folder, variant, random_backbone(variant))
    save_nano_codec(folder, random_codec())
    return folder

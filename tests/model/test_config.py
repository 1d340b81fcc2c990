"""The number of parameters without torch is that of the backbone itself."""

import dataclasses

import pytest
import torch

from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.config import FUSIONS, BackboneConfig, count_parameters
from unison_audio.variants import VARIANTS

ODD = BackboneConfig(
    latent_channels=5, dim=48, heads=3, rope_dim=6, blocks=3, text_dim=7, embed_kernel=5
)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_count_of_a_variant(name: str) -> None:
    assert count_parameters(VARIANTS[name].backbone) == _built(VARIANTS[name].backbone)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_count_of_every_fusion(fusion: str) -> None:
    config = dataclasses.replace(ODD, fusion=fusion)
    assert count_parameters(config) == _built(config)


def _built(config: BackboneConfig) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in UnisonBackbone(config).parameters())

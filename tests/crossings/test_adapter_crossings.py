"""LoRA adapters in a model that is in evaluation mode: peft's layers start in training mode."""

import pytest
import torch
from torch import nn

from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.config import FUSIONS, BackboneConfig
from unison_audio.model.sampling import ModelInputs, sample
from unison_audio.training.adapters import add_adapters, merge_adapters


def adapted(fusion: str) -> UnisonBackbone:
    torch.manual_seed(0)
    config = BackboneConfig(
        latent_channels=4, dim=32, heads=2, rope_dim=8, blocks=2, text_dim=8, fusion=fusion
    )
    backbone = UnisonBackbone(config).eval()
    add_adapters(backbone, rank=2)  # after eval(), where dropout would be left on
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.1)
    return backbone


def sampled(backbone: UnisonBackbone) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    inputs = ModelInputs(
        z_s=torch.randn(2, 4, 9, generator=generator),
        m=torch.ones(2, 1, 9),
        hidden_states=torch.randn(2, 2, 5, 8, generator=generator),
        text_mask=torch.ones(2, 5, dtype=torch.bool),
        penultimate=torch.randn(2, 5, 8, generator=generator),
    )
    noise = torch.randn(2, 4, 9, generator=generator)
    return sample(backbone, inputs, noise=noise, steps=3)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_sampling_from_an_adapter_is_deterministic(fusion: str) -> None:
    backbone = adapted(fusion)
    active = [m for m in backbone.modules() if isinstance(m, nn.Dropout) and m.p > 0]
    assert not active
    first = sampled(backbone)
    assert torch.equal(sampled(backbone), first)
    merge_adapters(backbone)
    merged = sampled(backbone)
    assert torch.equal(sampled(backbone), merged)
    torch.testing.assert_close(merged, first, atol=1e-3, rtol=1e-3)

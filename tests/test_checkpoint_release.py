"""The release's weights through the importer, against the release's own outputs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from independent_backbone import Size, draw_state
from safetensors import safe_open
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.config import FUSIONS, BackboneConfig
from unison_audio.release import import_release_state

FIXTURES = Path(__file__).parent / "fixtures"
GOLDEN = {"double-deep": "O", "double-last": "L", "double-both": "OL", "single-deep": "S"}


def tiny_config(fusion: str) -> BackboneConfig:
    return BackboneConfig(
        latent_channels=4, dim=64, heads=2, rope_dim=24, blocks=3, text_dim=48, fusion=fusion
    )


def golden_state(fusion: str) -> dict[str, Tensor]:
    """Weights under the release's names at the golden size."""
    size = Size(channels=4, blocks=3, text_dim=48, fusion=fusion, width=64, heads=2, rope_dim=24)
    return draw_state(size)


def golden_backbone(fusion: str) -> UnisonBackbone:
    backbone = UnisonBackbone(tiny_config(fusion))
    backbone.load_state_dict(import_release_state(golden_state(fusion), backbone.config))
    return backbone.eval()


def golden_tensors(name: str) -> dict[str, Tensor]:
    with safe_open(FIXTURES / f"backbone-{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize(("name", "fusion"), GOLDEN.items())
def test_agrees_with_the_golden_values(name: str, fusion: str) -> None:
    backbone, golden = golden_backbone(fusion), golden_tensors(name)
    x, t, states, penultimate, mask = (
        golden[f"in.{key}"] for key in ("x", "t", "hidden_states", "penultimate", "text_mask")
    )
    with torch.no_grad():
        v = backbone(x, t, states, mask.bool(), penultimate)
        without = backbone(
            x, t, 0 * states, torch.zeros_like(mask, dtype=torch.bool), 0 * penultimate
        )
    torch.testing.assert_close(v, golden["out.v"], atol=1e-4, rtol=0)
    torch.testing.assert_close(without, golden["out.v_unconditional"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_release_is_imported_without_loss(fusion: str) -> None:
    release, config = golden_state(fusion), tiny_config(fusion)
    imported = import_release_state(release, config)
    UnisonBackbone(config).load_state_dict(imported)
    assert sum(t.numel() for t in imported.values()) == sum(t.numel() for t in release.values())
    assert sum(t.double().sum() for t in imported.values()).item() == pytest.approx(
        sum(t.double().sum() for t in release.values()).item()
    )


def test_wrappers_around_the_release_are_opened() -> None:
    release, config = golden_state("O"), tiny_config("O")
    plain = import_release_state(release, config)
    prefixed = {f"module.{name}": tensor for name, tensor in release.items()}
    for wrapped in (
        {"ema": release, "step": 7},
        {"shadow": release, "decay": 0.999},
        {"state_dict": prefixed},
        {"ema": {"shadow": prefixed, "decay": 0.999}, "model": {}},
        prefixed,
    ):
        opened = import_release_state(wrapped, config)
        assert opened.keys() == plain.keys()
        assert all(torch.equal(opened[name], plain[name]) for name in plain)


def test_release_keys_that_do_not_fit_are_listed_each() -> None:
    release: dict[str, Any] = dict(golden_state("O"))
    del release["double_blocks.1.txt_attn_k.bias"], release["img_in.proj.2.w3.conv.weight"]
    release["deep_fusion_projs.3.bias"] = torch.zeros(64)
    release["step"] = 80_000
    release["time_in.mlp.0.weight"] = torch.zeros(64, 128)
    with pytest.raises(InputError) as caught:
        import_release_state(release, tiny_config("O"))
    message = str(caught.value)
    missing = "img_in.proj.2.w3.conv.weight, double_blocks.1.txt_attn_k.bias"
    assert f"missing: {missing}; unknown: deep_fusion_projs.3.bias, step;" in message
    assert "misshapen: time_in.mlp.0.weight (64, 128) (should be (64, 256))" in message

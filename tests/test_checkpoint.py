"""Checkpoints: there and back, whole or not at all, and strict about every key."""

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unison_audio import checkpoint, checkpoint_files
from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.config import FUSIONS, BackboneConfig
from unison_audio.variants import VARIANTS, Variant


def tiny_config(fusion: str) -> BackboneConfig:
    return BackboneConfig(
        latent_channels=4, dim=64, heads=2, rope_dim=24, blocks=3, text_dim=48, fusion=fusion
    )


def random_backbone(fusion: str = "O") -> UnisonBackbone:
    torch.manual_seed(0)
    backbone = UnisonBackbone(tiny_config(fusion))
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return backbone.eval()


def random_inputs() -> dict[str, torch.Tensor]:
    return {
        "x": torch.randn(2, 9, 13),
        "t": torch.rand(2),
        "hidden_states": torch.randn(2, 3, 6, 48),
        "text_mask": torch.rand(2, 6) < 0.8,
        "penultimate": torch.randn(2, 6, 48),
    }


def tiny_variant(fusion: str = "O") -> Variant:
    return dataclasses.replace(
        VARIANTS["nano"], name="tiny", backbone=tiny_config(fusion), system_prompt="Sei höflich."
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "saved", tiny_variant(), random_backbone())
    return tmp_path / "saved"


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}), "utf-8")


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_there_and_back(fusion: str, tmp_path: Path) -> None:
    backbone, inputs = random_backbone(fusion), random_inputs()
    checkpoint.save(tmp_path, tiny_variant(fusion), backbone)
    variant, loaded = checkpoint.load(tmp_path)
    assert variant == tiny_variant(fusion)
    assert not loaded.training
    assert len({p.stat().st_mode for p in tmp_path.iterdir()}) == 1
    assert {p.name for p in tmp_path.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    for (name, ours), theirs in zip(backbone.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
        assert ours.requires_grad == theirs.requires_grad, name
    assert torch.equal(loaded(**inputs), backbone(**inputs))


@torch.no_grad()
def test_half_precision_on_disk_is_computed_in_full(tmp_path: Path) -> None:
    backbone, inputs = random_backbone(), random_inputs()
    checkpoint.save(tmp_path, tiny_variant(), backbone, dtype=torch.float16)
    on_disk = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in on_disk.values()} == {torch.float16}
    _, loaded = checkpoint.load(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(loaded(**inputs), backbone(**inputs), atol=2e-2, rtol=0)
    _, half = checkpoint.load(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_every_variant_survives_its_config(tmp_path: Path) -> None:
    for variant in VARIANTS.values():
        path = tmp_path / f"{variant.name}.json"
        path.write_text(json.dumps(dataclasses.asdict(variant)), "utf-8")
        assert checkpoint_files.read_config(path) == variant


def test_a_failed_save_leaves_the_old_checkpoint(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    backbone = random_backbone()
    torch.nn.init.zeros_(backbone.head.linear.weight)

    def fail(*args: Any, **options: Any) -> None:
        Path(args[1]).write_bytes(b"half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", fail)
    with pytest.raises(InputError, match="No space left"):
        checkpoint.save(saved, tiny_variant(), backbone)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_later_save_removes_what_a_killed_one_left(saved: Path) -> None:
    for name, age in (("old", 7200), ("new", 60)):
        (saved / f".incomplete-{name}").mkdir()
        (saved / f".incomplete-{name}" / "model.safetensors").write_bytes(b"half a file")
        then = time.time() - age
        os.utime(saved / f".incomplete-{name}", (then, then))
    variant = tiny_variant()
    checkpoint.save(saved, variant, random_backbone())
    assert [path.name for path in saved.glob(".incomplete-*")] == [".incomplete-new"]


def test_saving_replaces_the_checkpoint_and_nothing_else(saved: Path) -> None:
    (saved / "README.md").write_text("mine")
    old = {}
    for name in ("config.json", "model.safetensors"):
        (saved / f"old-{name}").hardlink_to(saved / name)
        old[name] = (saved / name).read_bytes()
    backbone = random_backbone()
    torch.nn.init.zeros_(backbone.head.linear.weight)
    checkpoint.save(saved, tiny_variant(), backbone)
    _, loaded = checkpoint.load(saved)
    assert not loaded.head.linear.weight.any()
    assert (saved / "README.md").read_text() == "mine"
    for name, content in old.items():  # whoever still reads the old files reads them whole
        assert (saved / f"old-{name}").read_bytes() == content


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    backbone = random_backbone()
    torch.nn.init.constant_(backbone.head.linear.weight, 1e5)
    with pytest.raises(InputError, match=r"float16: head\.linear\.weight"):
        checkpoint.save(tmp_path / "new", tiny_variant(), backbone, dtype=torch.float16)
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="use float32, bfloat16 or float16"):
        checkpoint.save(tmp_path / "new", tiny_variant(), backbone, dtype=torch.int8)


def test_a_backbone_of_another_variant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not that of variant 'nano'"):
        checkpoint.save(tmp_path, VARIANTS["nano"], random_backbone())


def test_wrong_weights_are_listed_each(saved: Path) -> None:
    path = saved / "model.safetensors"
    weights = load_file(path)
    del weights["head.linear.bias"], weights["time.linear_in.bias"]
    weights["head.extra"] = torch.zeros(1)
    weights["embed.conv.bias"] = torch.zeros(3)
    save_file(weights, path)
    with pytest.raises(InputError) as caught:
        checkpoint.load(saved)
    message = str(caught.value)
    assert "missing: time.linear_in.bias, head.linear.bias; unknown: head.extra" in message
    assert "misshapen: embed.conv.bias (3,) (should be (64,))" in message


def test_of_many_wrong_weights_twelve_of_each_kind_are_named(saved: Path) -> None:
    path = saved / "model.safetensors"
    weights = load_file(path)
    save_file({f"model.{name}": value for name, value in weights.items()}, path)
    with pytest.raises(InputError) as caught:
        checkpoint.load(saved)
    more = f" and {len(weights) - 12} more"
    assert str(caught.value).count(more) == 2
    assert str(caught.value).count(", ") == 22
    assert len(str(caught.value)) <= 1400


def test_wrong_config_keys_are_listed_each(saved: Path) -> None:
    edit_config(saved, hop=None, steps=None, colour="red")
    with pytest.raises(InputError, match="missing: hop, steps; unknown: colour"):
        checkpoint.load(saved)


def test_a_config_from_before_a_key_was_added(saved: Path) -> None:
    before = checkpoint.load(saved)[0]
    edit_config(saved, speech_candidates=None, speech_temperature=None)
    assert "speech_candidates" not in json.loads((saved / "config.json").read_text())
    alone = {"speech_candidates": 1, "speech_temperature": 1.0}
    assert checkpoint.load(saved)[0] == dataclasses.replace(before, **alone)


def test_a_text_window_is_written_only_where_there_is_one(saved: Path, tmp_path: Path) -> None:
    variant, backbone = checkpoint.load(saved)
    assert variant.text_window == 0
    assert "text_window" not in json.loads((saved / "config.json").read_text())
    windowed = dataclasses.replace(variant, text_window=126)
    checkpoint.save(tmp_path / "windowed", windowed, backbone)
    assert checkpoint.load(tmp_path / "windowed")[0] == windowed
    edit_config(saved, text_window="126")
    with pytest.raises(InputError, match="text_window '126' \\(should be int\\)"):
        checkpoint.load(saved)
    edit_config(saved, text_window=-1)
    with pytest.raises(InputError, match="text_window is -1"):
        checkpoint.load(saved)


def test_wrong_backbone_keys_and_types_are_listed(saved: Path) -> None:
    backbone = dataclasses.asdict(tiny_config("O"))
    edit_config(saved, backbone=backbone | {"depth": 3})
    with pytest.raises(InputError, match=r"backbone .*BackboneConfig; unknown: depth"):
        checkpoint.load(saved)
    edit_config(saved, backbone=backbone | {"dim": "64", "heads": True})
    with pytest.raises(InputError, match=r"dim '64' \(should be int\), heads True"):
        checkpoint.load(saved)
    edit_config(saved, backbone=backbone | {"fusion": "Z"})
    with pytest.raises(InputError, match="use one of O, L, OL, S"):
        checkpoint.load(saved)


def test_damaged_and_missing_files(saved: Path) -> None:
    weights = saved / "model.safetensors"
    whole = weights.read_bytes()
    for content in (b"", whole[:40], whole[:-100]):
        weights.write_bytes(content)
        with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
            checkpoint.load(saved)
    weights.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is missing"):
        checkpoint.load(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        checkpoint.load(saved)
    (saved / "config.json").write_text("[]")
    with pytest.raises(InputError, match="expected an object"):
        checkpoint.load(saved)
    (saved / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json is missing"):
        checkpoint.load(saved)


def test_hub_names_are_downloaded(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    variant, _ = checkpoint.load("someone/tiny")
    assert variant == tiny_variant()
    assert asked == [("someone/tiny", ["config.json", "model.safetensors"])]


def test_what_is_neither_a_folder_nor_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"'nobody/nothing'.*check the name, the connection"):
        checkpoint.load("nobody/nothing")
    for name in ("nothing", "/no/where", "../nothing", "a/b/c"):
        with pytest.raises(InputError, match="owner/name"):
            checkpoint.load(name)

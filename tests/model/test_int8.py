"""int8 layers: their arithmetic, whole backbones, and checkpoints of them."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.tiny_unison import random_backbone, tiny_variant
from unison_audio import checkpoint
from unison_audio.checkpoint_files import open_checkpoint, read_config
from unison_audio.cli import main as cli
from unison_audio.errors import InputError
from unison_audio.loading import computing_dtype, needed_bytes, require_quantization
from unison_audio.model import int8
from unison_audio.model.config import count_parameters
from unison_audio.model.int8 import (
    Int8Linear,
    has_vnni,
    int8_layers,
    int8_parameters,
    quantize_rows,
    quantize_state,
    use_int8_layout,
)
from unison_audio.model.prepared import PreparedRun
from unison_audio.pipeline import Unison
from unison_audio.training.finetune import finetune
from unison_audio.training.run import RunOutput
from unison_audio.variants import VARIANTS


def quantized(linear: nn.Linear) -> Int8Linear:
    layer = Int8Linear(linear.in_features, linear.out_features)
    state = quantize_state({f"a.{k}": v for k, v in linear.state_dict().items()}, ["a"])
    layer.load_state_dict({key.removeprefix("a."): value for key, value in state.items()})
    return layer


def test_a_layer_is_what_its_integers_say() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(40, 24)
    layer, x = quantized(linear), torch.randn(2, 7, 40)
    # The same in float64, from the stored integers and the definition of the scales.
    step = x.double().abs().amax(-1, keepdim=True) / 127
    integers = torch.round(x.double() / step)
    weight = layer.weight.double() * layer.scale.double()[:, None]
    expected = integers * step @ weight.T + linear.bias.double()
    found = layer(x)
    assert found.shape == (2, 7, 24)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), expected, atol=1e-5)
    assert layer.weight.abs().max() == 127
    exact = linear(x)
    assert (found - exact).norm() / exact.norm() < 0.02
    assert layer(x.bfloat16()).dtype == torch.bfloat16


def test_a_row_depends_on_no_other_and_zeros_give_the_bias() -> None:
    torch.manual_seed(0)
    layer, x = quantized(nn.Linear(40, 24)), torch.randn(9, 40)
    x[3] *= 1000
    x[4] = 0
    alone = torch.cat([layer(row[None]) for row in x])
    assert torch.equal(layer(x), alone)
    assert torch.equal(layer(x)[4], layer.bias)


@pytest.mark.parametrize(("inputs", "outputs"), [(40, 24), (37, 5), (512, 130)])
def test_packed_weights_give_the_same_bits_and_the_same_state_dict(
    inputs: int, outputs: int
) -> None:
    torch.manual_seed(0)
    plain, x = quantized(nn.Linear(inputs, outputs)), torch.randn(3, 9, inputs)
    x[0, 3] *= 1000
    x[1, 4] = 0
    packed = copy.deepcopy(plain)
    packed.pack()
    if not has_vnni():
        assert packed.packed is None
        return
    assert packed.weight is None  # not kept twice
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(packed(x.to(dtype)), plain(x.to(dtype)))
    state = packed.state_dict()
    assert set(state) == set(plain.state_dict())
    for name, tensor in plain.state_dict().items():
        assert torch.equal(state[name], tensor), name
        assert state[name].dtype == tensor.dtype
    other = quantized(nn.Linear(inputs, outputs))
    packed.load_state_dict(other.state_dict())
    assert packed.packed is not None
    assert torch.equal(packed(x), other(x))
    again = quantized(nn.Linear(inputs, outputs))
    again.load_state_dict(packed.state_dict())
    assert torch.equal(again(x), other(x))


def test_rows_are_rounded_alike_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(11, 40, generator=torch.Generator().manual_seed(0))
    integers, scale = quantize_rows(rows)
    assert integers.abs().amax(dim=1).eq(127).all()
    monkeypatch.setattr(int8, "TILE", 3 * 40)
    for found, whole in zip(quantize_rows(rows), (integers, scale), strict=True):
        assert torch.equal(found, whole)
    assert (rows - integers * scale).abs().max() <= 0.5001 * scale.max()


def test_weights_of_zero_stay_zero() -> None:
    linear = nn.Linear(8, 4)
    nn.init.zeros_(linear.weight)
    assert torch.equal(quantized(linear)(torch.randn(3, 8)), linear.bias.detach().expand(3, 4))


@torch.no_grad()
@pytest.mark.parametrize("fusion", ["O", "L", "OL", "S"])
def test_a_quantized_backbone_is_near_and_a_batch_equals_single_calls(
    fusion: str, tmp_path: Path
) -> None:
    plain = tiny_variant()
    variant = dataclasses.replace(
        plain, backbone=dataclasses.replace(plain.backbone, fusion=fusion)
    )
    backbone = random_backbone(variant)
    names = int8_layers(backbone)
    assert names
    assert not any("modulation" in name for name in names)
    checkpoint.save(tmp_path, variant, backbone)
    small = checkpoint.load_backbone(tmp_path, variant, quantize=True)
    assert {name for name, module in small.named_modules() if isinstance(module, Int8Linear)} == (
        set(names)
    )

    torch.manual_seed(0)
    z_t, z_s = torch.randn(2, 3, 8, 11).unbind()
    given = {
        "m": torch.zeros(3, 1, 11),
        "hidden_states": torch.randn(3, 2, 5, 384),
        "text_mask": torch.arange(5) < torch.tensor([[5], [2], [4]]),
        "penultimate": torch.randn(3, 5, 384),
    }

    def velocity(model, rows):
        chosen = {name: value[rows] for name, value in given.items()}
        run = PreparedRun(model, z_s[rows], times=torch.tensor([0.6]), **chosen)
        return run.velocities(z_t[rows], 0, guided=True)

    together = velocity(small, slice(0, 3))
    exact = velocity(backbone, slice(0, 3))[0]
    assert 0 < (together[0] - exact).norm() / exact.norm() < 0.05
    # Attention differs by 1e-7 in a batch. That turns a few integers over by one, which with 32
    # channels is visible; the layers themselves give equal bits.
    for row in range(3):
        for both, one in zip(together, velocity(small, slice(row, row + 1)), strict=True):
            assert (both[row] - one[0]).norm() / one.norm() < 0.02


def test_a_quantized_checkpoint(tiny_checkpoint: Path, tmp_path: Path, stub_text: None) -> None:
    folder = tmp_path / "int8"
    assert cli.main(["quantize", str(tiny_checkpoint), "-o", str(folder)]) == 0
    variant = read_config(folder / "config.json")
    assert variant.quantization == "int8"
    stored = load_file(folder / "model.safetensors")
    names = [name for name, tensor in stored.items() if tensor.dtype == torch.int8]
    original = open_checkpoint(tiny_checkpoint)
    backbone = checkpoint.load_backbone(original.folder, original.variant)
    assert names == sorted(f"{name}.weight" for name in int8_layers(backbone))
    assert sum(stored[name].numel() for name in names) == int8_parameters(variant.backbone)

    # The file gives what quantizing at loading gives, as far as bfloat16 stores the rest.
    from_file = checkpoint.load_backbone(folder, variant, dtype=torch.bfloat16)
    at_loading = checkpoint.load_backbone(
        original.folder, original.variant, dtype=torch.bfloat16, quantize=True
    )
    for name, tensor in at_loading.state_dict().items():
        assert torch.equal(from_file.state_dict()[name], tensor), name

    call = {"instruction": "[Audio] rain", "duration": 0.5, "seed": 1}
    one, two = (
        Unison.from_pretrained(where, dtype=torch.bfloat16, quantize=how).generate(**call)
        for where, how in ((folder, None), (tiny_checkpoint, "int8"))
    )
    assert torch.equal(one.waveform, two.waveform)

    again = tmp_path / "again"
    Unison.from_pretrained(folder).save_pretrained(again)  # keeps its layout
    assert read_config(again / "config.json") == variant
    assert Unison.from_pretrained(again, dtype=torch.bfloat16).generate(**call).seconds == 0.5


def test_what_is_refused(tiny_checkpoint: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "int8"
    opened = open_checkpoint(tiny_checkpoint)
    with pytest.raises(InputError, match="is the checkpoint itself"):
        checkpoint.quantize_checkpoint(opened, tiny_checkpoint)
    checkpoint.quantize_checkpoint(opened, folder)
    assert cli.main(["quantize", str(folder), "-o", str(tmp_path / "twice")]) == 2
    assert "give the checkpoint that they were made from" in capsys.readouterr().err
    with pytest.raises(InputError, match="give the checkpoint that they were made from"):
        finetune(str(folder), tmp_path / "none", RunOutput(folder=tmp_path))
    with pytest.raises(InputError, match="There is no quantization 'int4'; use int8"):
        Unison.from_pretrained(folder, quantize="int4")
    with pytest.raises(InputError, match="int8 runs on a CPU, and the device is meta"):
        require_quantization("int8", opened.variant, torch.device("meta"))


def test_the_memory_that_a_quantized_model_needs() -> None:
    variant = VARIANTS["d24-16k"]
    whole = needed_bytes(variant, torch.float32)["backbone"]
    small = needed_bytes(variant, torch.bfloat16, quantized=True)["backbone"]
    integers = int8_parameters(variant.backbone)
    assert whole == 4 * count_parameters(variant.backbone)
    assert small == whole // 2 - integers
    assert 24 * 14 * 1024**2 < integers < 24 * 18 * 1024**2


def test_layout_keeps_the_device() -> None:
    with torch.device("meta"):
        model = nn.ModuleDict({"blocks": nn.ModuleDict({"0": nn.Linear(4, 4)})})
    use_int8_layout(model, int8_layers(model))
    assert model["blocks"]["0"].weight.is_meta


def test_large_backbones_take_bfloat16_where_it_pays_and_nano_never(monkeypatch) -> None:
    for fast in (torch.bfloat16, torch.float32):
        monkeypatch.setattr("unison_audio.loading.preferred_dtype", lambda device, fast=fast: fast)
        assert computing_dtype(VARIANTS["d24-16k"], torch.device("cpu")) == fast
        assert computing_dtype(VARIANTS["nano"], torch.device("cpu")) == torch.float32
        assert computing_dtype(VARIANTS["nano"], torch.device("cuda")) == fast

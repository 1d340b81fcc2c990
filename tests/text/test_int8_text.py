"""A language model with int8 weights: arithmetic, files, states, refusals."""

import json
from pathlib import Path

import pytest
import torch
from qwen_files import LAYERS, write_qwen
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from unison_audio.cli import main as cli
from unison_audio.errors import InputError
from unison_audio.text.int8_linear import MappedInt8Linear
from unison_audio.text.quantize_qwen import quantize_language_model
from unison_audio.text.qwen import QwenEncoder
from unison_audio.text.states import TextSetup
from unison_audio.variants import VARIANTS

TEXTS = ['[Speech] A female voice saying "the red dog runs home"', "[Audio] rain"]
PICKS = VARIANTS["d24-16k"].layer_picks
LINEAR = 7


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    write_qwen(folder)
    return folder


@pytest.fixture(scope="module")
def int8(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8") / "new"
    assert quantize_language_model(str(files), folder) == LINEAR * LAYERS
    return folder


def make(files: Path, **changes: object) -> QwenEncoder:
    setup = {
        "picks": PICKS,
        "system_prompt": "You describe the sound that is to be heard.",
        "files": files,
        "dtype": torch.float32,
        "streamed": True,
        "window": 60,
    }
    return QwenEncoder(TextSetup(**setup | changes), "none")


def stored(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return {name: t for name, t in found.items() if name.startswith("thinker.model.")}


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_what_its_integers_say(bias: bool) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(40, 24, bias=bias), torch.randn(2, 7, 40)
    layer = MappedInt8Linear(linear)
    layer.weight.copy_(torch.randint(-127, 128, (24, 40)))
    layer.scale.copy_(torch.rand(24))
    # The same in float64, from the definition of the scales.
    step = x.double().abs().amax(-1, keepdim=True) / 127
    weight = layer.weight.double() * layer.scale.double()[:, None]
    expected = torch.round(x.double() / step) * step @ weight.T
    if bias:
        expected += linear.bias.double()
    found = layer(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected.detach(), rtol=1e-5, atol=1e-3)
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    alone = torch.cat([layer(row[None]) for row in x.flatten(0, 1)])
    assert torch.equal(found.flatten(0, 1), alone)  # a token depends on no other


def test_the_files_hold_rounded_weights_and_all_else_unchanged(files: Path, int8: Path) -> None:
    before, after = stored(files), stored(int8)
    integers = [name for name, tensor in after.items() if tensor.dtype == torch.int8]
    assert len(integers) == LINEAR * LAYERS
    for name in integers:
        scale = after[name.replace(".weight", ".scale")][:, None]
        assert scale.dtype == torch.float32
        assert after[name].abs().amax(dim=1).eq(127).all()
        error = (after[name] * scale - before[name].float()).abs()
        assert (error <= scale * 0.5001).all()
    for name, tensor in before.items():
        if name not in integers:
            assert torch.equal(after[name], tensor)
            assert after[name].dtype == tensor.dtype
    index = json.loads((int8 / "model.safetensors.index.json").read_text())["weight_map"]
    for name, file in index.items():
        with safe_open(int8 / file, framework="pt") as opened:
            assert name in opened.keys()  # noqa: SIM118
    assert {path.stat().st_mode & 0o777 for path in int8.glob("*.safetensors")} == {
        (int8 / "config.json").stat().st_mode & 0o777
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_streamed_and_resident_give_the_same_states(
    files: Path, int8: Path, dtype: torch.dtype
) -> None:
    one = make(int8, dtype=dtype).encode(TEXTS).hidden_states
    resident = make(int8, dtype=dtype, streamed=False)
    assert torch.equal(resident.encode(TEXTS).hidden_states, one)
    layers = resident.layers.modules
    assert all(type(each.mlp.down_proj) is MappedInt8Linear for each in layers)
    exact = make(files).encode(TEXTS).hidden_states
    # 28 layers of random weights, whose errors add up.
    assert 0.001 < (one - exact).norm() / exact.norm() < 0.2


def test_kept_prompt_and_caches_are_of_the_int8_weights(
    files: Path, int8: Path, tmp_path: Path
) -> None:
    expected = make(int8).encode(TEXTS).hidden_states
    make(files, cache=tmp_path).encode(TEXTS)
    for _ in range(2):
        assert torch.equal(make(int8, cache=tmp_path).encode(TEXTS).hidden_states, expected)


def test_layers_that_stay(files: Path, tmp_path: Path) -> None:
    kept = ("down_proj", "layers.3")
    count = quantize_language_model(str(files), tmp_path, kept=kept)
    assert count == (LINEAR - 1) * (LAYERS - 1)
    names = {n.removesuffix(".scale") for n in stored(tmp_path) if n.endswith(".scale")}
    assert len(names) == count
    assert not any("down_proj" in name or ".layers.3." in name for name in names)
    assert any(".layers.13." in name for name in names)
    mixed = make(tmp_path)
    other = make(tmp_path, streamed=False)
    assert torch.equal(mixed.encode(TEXTS).hidden_states, other.encode(TEXTS).hidden_states)


def test_the_command(files: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "int8"
    line = ["quantize", str(files), "-o", str(folder), "--keep-layer", "q_proj"]
    assert cli.main(line) == 0
    assert f"{6 * LAYERS} linear layers in int8" in capsys.readouterr().out
    assert make(folder).encode(TEXTS).mask.shape[0] == 2
    for words, message in (
        ([str(files), "-o", str(files)], "is the language model itself"),
        ([str(folder), "-o", str(tmp_path / "two")], "is int8 already"),
        ([str(files), "-o", str(tmp_path / "two"), "--dtype", "float32"], "is for checkpoints"),
        ([str(files), "-o", str(tmp_path / "two"), "--keep-layer", "gate"], "No linear layer has"),
        (["nano", "-o", str(tmp_path / "two"), "--keep-layer", "q_proj"], "for language models"),
    ):
        assert cli.main(["quantize", *words]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "two").exists()


def test_int8_is_refused_where_it_cannot_run(int8: Path, files: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="int8, which runs on a CPU, and the device is cuda"):
        make(int8, device="cuda")
    with pytest.raises(InputError, match="int8 and cannot be divided between processes"):
        make(int8).share(None)
    # Integers where the model has none, as other programs' quantized files have them.
    broken = tmp_path / "broken"
    quantize_language_model(str(files), broken)
    path = broken / f"model-00000-of-{LAYERS:05}.safetensors"
    tensors = load_file(path)
    tensors["thinker.model.norm.weight"] = tensors["thinker.model.norm.weight"].to(torch.int8)
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"norm\.weight in .* is torch\.int8"):
        make(broken)
    scales = broken / f"model-00001-of-{LAYERS:05}.safetensors"
    save_file({k: v for k, v in load_file(scales).items() if ".q_proj.scale" not in k}, scales)
    with pytest.raises(InputError, match=r"has no tensor .*q_proj\.scale"):
        make(broken)


def test_an_interrupted_run_leaves_no_model(files: Path, tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_language_model(str(files), tmp_path, on_progress=stop)
    with pytest.raises(InputError, match=r"index\.json cannot be read"):
        make(tmp_path)
    assert not list(tmp_path.glob(".incomplete*"))
    assert quantize_language_model(str(files), tmp_path) == LINEAR * LAYERS
    assert make(tmp_path).encode(TEXTS[:1]).mask.any()

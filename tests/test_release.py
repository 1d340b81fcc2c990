"""From the release's files to a checkpoint folder."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from full_disk import full_disk, left, one_sentence
from hub_server import Hub
from safetensors.torch import save_file
from test_checkpoint_release import golden_backbone, golden_state, tiny_config

from unison_audio import checkpoint, release_files, variants
from unison_audio.cli import main as cli
from unison_audio.errors import InputError
from unison_audio.release import ReleaseNote, import_release, release_order

pytestmark = pytest.mark.usefixtures("hub")  # an empty one: the real hub is never asked


@pytest.fixture(params=["O", "L"])
def fusion(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small variant of the release's kind, called small."""
    config = tiny_config(request.param)
    small = dataclasses.replace(variants.VARIANTS["d20-44k"], name="small", backbone=config)
    monkeypatch.setitem(variants.VARIANTS, "small", small)
    return request.param


def write(folder: Path, name: str, fusion: str) -> Path:
    """The small release's weights in one of the layouts in which weights are published."""
    path, state = folder / name, golden_state(fusion)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"ema": {"shadow": state, "decay": 0.999}, "step": 7}, path)
    return path


@pytest.mark.parametrize("name", ["model.safetensors", "ema.pt"])
def test_the_checkpoint_is_an_ordinary_one(name: str, fusion: str, tmp_path: Path) -> None:
    path, prompt = write(tmp_path, name, fusion), tmp_path / "prompt.txt"
    prompt.write_text("Listen well.\nThen speak.\n")
    command = ["import-release", str(path), "--variant", "small", "-o", str(tmp_path / "out")]
    assert cli.main([*command, "--system-prompt-file", str(prompt)]) == 0
    variant, backbone = checkpoint.load(tmp_path / "out")
    assert variant.system_prompt == "Listen well.\nThen speak."
    assert variant.edit_tag_spelling == "[Edit] [Audio]"
    assert variant.wording == "release"
    expected = golden_backbone(fusion).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in backbone.state_dict().items())


def test_a_full_disk_is_said(
    fusion: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write(tmp_path, "model.safetensors", fusion), tmp_path / "out"
    command = ["import-release", str(path), "--variant", "small", "-o", str(out)]
    with full_disk():
        code = cli.main(command)
    assert "File too large); make room" in one_sentence(code, capsys.readouterr().err)
    assert not left(out)
    assert cli.main(command) == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_half_the_size(dtype: str, fusion: str, tmp_path: Path) -> None:
    path = write(tmp_path, "model.safetensors", fusion)
    import_release(path, "small", tmp_path / "half", dtype=dtype)
    size = (tmp_path / "half" / "model.safetensors").stat().st_size
    assert size == pytest.approx(path.stat().st_size / 2, rel=0.2)
    expected = golden_backbone(fusion).state_dict()
    for key, value in checkpoint.load(tmp_path / "half")[1].state_dict().items():
        torch.testing.assert_close(value, expected[key], atol=4e-2, rtol=1e-2)


def test_from_a_folder(fusion: str, tmp_path: Path) -> None:
    write(tmp_path, "model.safetensors", fusion)
    found = import_release(tmp_path, "small", tmp_path / "a")
    assert found.system_prompt == ""
    assert (tmp_path / "a" / "config.json").is_file()


RELEASE = "someone/weights"


def publish(hub: Hub, folder: Path, fusion: str) -> None:
    """The release's layout: a folder a variant, and one that holds a training run."""
    content = write(folder, "model.safetensors", fusion).read_bytes()
    folder_of_variant = "unison_small"
    hub.repos[RELEASE] = {
        "README.md": b"a card",
        "unison_other/model.safetensors": b"of another variant",
        f"{folder_of_variant}/model.safetensors": content,
        "runs/step-7/model.safetensors": content,
    }


def test_from_the_hub(
    fusion: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, tmp_path, fusion)
    monkeypatch.setitem(release_files.RELEASE_FOLDERS, "small", "unison_small")
    expected = golden_backbone(fusion).state_dict()
    for name in (RELEASE, f"{RELEASE}/unison_small", f"{RELEASE}/runs/step-7"):
        import_release(name, "small", tmp_path / "out")
        state = checkpoint.load(tmp_path / "out")[1].state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in state.items())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    import_release(RELEASE, "small", tmp_path / "offline")  # downloaded before
    with pytest.raises(InputError, match="cannot be had from the hub"):
        import_release(f"{RELEASE}/elsewhere", "d20-44k", tmp_path / "none")


def test_what_the_hub_lacks_is_listed(fusion: str, hub: Hub, tmp_path: Path) -> None:
    publish(hub, tmp_path, fusion)
    message = r"None of .*model\.safetensors.* is in someone/weights; it holds README\.md, runs/"
    with pytest.raises(InputError, match=message):
        import_release(RELEASE, "small", tmp_path / "out")
    with pytest.raises(InputError, match="is in someone/weights/nowhere"):
        import_release(f"{RELEASE}/nowhere", "small", tmp_path / "out")


def test_the_order_of_the_release_s_parameters() -> None:
    stream = ["mod.linear", "attn_q", "attn_k", "attn_v", "attn_q_norm", "attn_k_norm"]
    block = [f"double_blocks.0.img_{part}" for part in stream]
    found = release_order(dataclasses.replace(tiny_config("O"), blocks=1))
    assert found[6:14] == ["deep_fusion_projs.0", "omni_last_proj", *block]
    assert found[17] == "double_blocks.0.txt_mod.linear"
    assert found[-4:-2] == ["single_blocks.0.k_norm", "single_blocks.0.modulation.linear"]
    assert found[-2:] == ["final_layer.linear", "final_layer.adaLN_modulation.1"]


def averages(fusion: str) -> list[torch.Tensor]:
    """The release's weights as diffusers' EMAModel keeps them: a list in the parameters' order."""
    state = golden_state(fusion)
    modules = release_order(tiny_config(fusion))
    names = [f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias")]
    return [state[name] for name in names if name in state]


def test_unnamed_averages_are_named_by_their_order(fusion: str, tmp_path: Path) -> None:
    values = averages(fusion)
    assert len(values) == len(golden_state(fusion))
    torch.save({"shadow_params": values, "decay": 0.999}, tmp_path / "ema_model.pt")
    import_release(tmp_path, "small", tmp_path / "alone")
    named = {name: value + 0.01 for name, value in golden_state(fusion).items()}
    torch.save(named, tmp_path / "pytorch_model.bin")
    import_release(tmp_path, "small", tmp_path / "checked")
    expected = golden_backbone(fusion).state_dict()
    for folder in ("alone", "checked"):
        state = checkpoint.load(tmp_path / folder)[1].state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in state.items())


def test_unnamed_averages_in_another_order_are_refused(fusion: str, tmp_path: Path) -> None:
    values = averages(fusion)
    torch.save({"shadow_params": values[:-1]}, tmp_path / "ema_model.pt")
    with pytest.raises(InputError, match=f"hold {len(values) - 1} weights .* has {len(values)}"):
        import_release(tmp_path, "small", tmp_path / "out")
    swapped = [values[1], values[0], *values[2:]]
    torch.save({"shadow_params": swapped}, tmp_path / "ema_model.pt")
    with pytest.raises(InputError, match=r"Number 1 of .* img_in\.proj\.0\.conv\.weight"):
        import_release(tmp_path, "small", tmp_path / "out")
    # Queries and keys have one shape: only the named weights beside them tell them apart.
    names = [
        f"{module}.{leaf}"
        for module in release_order(tiny_config(fusion))
        for leaf in ("weight", "bias")
        if f"{module}.{leaf}" in golden_state(fusion)
    ]
    q, k = (names.index(f"double_blocks.1.img_attn_{x}.weight") for x in "qk")
    values[q], values[k] = values[k], values[q]
    torch.save({"shadow_params": values}, tmp_path / "ema_model.pt")
    write(tmp_path, "model.safetensors", fusion)
    with pytest.raises(InputError, match=r"img_attn_q\.weight, .*img_attn_k\.weight differ"):
        import_release(tmp_path, "small", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("side", "window"), [(None, 126), ("left", 126), ("right", 0), ("middle", 126)]
)
def test_the_window_follows_the_tokenizer_s_side(
    side: str | None, window: int, fusion: str, tmp_path: Path
) -> None:
    settings = {} if side is None else {"padding_side": side}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    path = write(tmp_path, "model.safetensors", fusion)
    with pytest.warns(ReleaseNote) as notes:
        found = import_release(path, "small", tmp_path / "out", text_files=tmp_path)
    assert found.text_window == window
    assert checkpoint.load(tmp_path / "out")[0].text_window == window
    said = " ".join(str(note.message) for note in notes)
    assert f"text_window {window}" in said
    assert ("cannot be read" if side == "middle" else f"pad on the {side or 'left'}") in said


@pytest.mark.parametrize(("rate", "dither"), [(16_000, 1e-4), (44_100, 0.0)])
def test_what_the_weights_saw_of_recordings_is_stored(
    rate: int, dither: float, fusion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = dataclasses.replace(variants.VARIANTS["small"], sample_rate=rate)
    monkeypatch.setitem(variants.VARIANTS, "small", small)
    path = write(tmp_path, "model.safetensors", fusion)
    for seconds, expected in ((None, 10.0), (22.0, 22.0)):
        import_release(path, "small", tmp_path / "out", seconds=seconds)
        found = checkpoint.load(tmp_path / "out")[0]
        assert found.sample_seconds == found.max_seconds == expected
        assert (found.source_rms, found.dither) == (0.1, dither)
    with pytest.raises(InputError, match=r"length is 23\.0 s"):
        import_release(path, "small", tmp_path / "out", seconds=23.0)


def test_the_side_is_read_from_the_hub(fusion: str, hub: Hub, tmp_path: Path) -> None:
    path = write(tmp_path, "model.safetensors", fusion)
    with pytest.warns(ReleaseNote, match="cannot be read; the prompt is taken to be padded on"):
        assert import_release(path, "small", tmp_path / "a").text_window == 126
    hub.repos["Qwen/Qwen2.5-Omni-7B"] = {"tokenizer_config.json": b'{"padding_side": "right"}'}
    with pytest.warns(ReleaseNote, match="pad on the right: text_window 0"):
        assert import_release(path, "small", tmp_path / "b").text_window == 0


def test_another_system_prompt_is_said(
    fusion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, prompt = write(tmp_path, "model.safetensors", fusion), tmp_path / "prompt.txt"
    prompt.write_text("Listen well.\n")
    with pytest.warns(ReleaseNote, match=r"has 12 characters and the sha256 .* 616 characters and"):
        import_release(path, "small", tmp_path / "out", system_prompt_file=prompt)
    digest = hashlib.sha256(b"Listen well.").hexdigest()
    monkeypatch.setattr(release_files, "PROMPT_SHA256", digest[:12])
    with pytest.warns(ReleaseNote) as notes:
        import_release(path, "small", tmp_path / "out", system_prompt_file=prompt)
    assert not any("sha256" in str(note.message) for note in notes)


def test_without_a_system_prompt_there_is_a_note(
    fusion: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "model.safetensors", fusion)
    assert cli.main(["import-release", str(path), "--variant", "small", "-o", str(tmp_path)]) == 0
    assert "no system prompt was given" in capsys.readouterr().err


def test_what_cannot_be_imported_is_refused(fusion: str, tmp_path: Path) -> None:
    good, out = write(tmp_path, "model.safetensors", fusion), tmp_path / "out"
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"not a pickle")
    (tmp_path / "empty.txt").write_text("\n")
    harmful = tmp_path / "harmful.pt"
    torch.save({"weights": Path("x")}, harmful)
    other = golden_state(fusion)
    other["extra"] = other.pop("img_in.proj.0.conv.bias")
    save_file(other, tmp_path / "other.safetensors")
    for path, message in (
        (tmp_path / "nothing.pt", "no file or folder"),
        (broken, "broken.pt cannot be read"),
        (harmful, r"harmful\.pt cannot be .* or holds more than tensors(?!.*weights_only)"),
        (tmp_path / "empty.txt", "neither .safetensors nor"),
        (tmp_path / "other.safetensors", r"missing: img_in\.proj\.0\.conv\.bias; unknown: extra"),
    ):
        with pytest.raises(InputError, match=message):
            import_release(path, "small", out)
    with pytest.raises(InputError, match="no variant 'huge'"):
        import_release(good, "huge", out)
    with pytest.raises(InputError, match="type is 'int8'"):
        import_release(good, "small", out, dtype="int8")
    with pytest.raises(InputError, match=r"empty\.txt is empty"):
        import_release(good, "small", out, system_prompt_file=tmp_path / "empty.txt")
    assert not out.exists()

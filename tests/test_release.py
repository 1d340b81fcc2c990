"""From the release's files to a checkpoint folder."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_checkpoint_release import golden_backbone, golden_state, tiny_config

from unison_audio import checkpoint, checkpoint_files, variants
from unison_audio.cli import main as cli
from unison_audio.errors import InputError
from unison_audio.release import import_release


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
    expected = golden_backbone(fusion).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_half_the_size(dtype: str, fusion: str, tmp_path: Path) -> None:
    path = write(tmp_path, "model.safetensors", fusion)
    import_release(path, "small", tmp_path / "half", dtype=dtype)
    size = (tmp_path / "half" / "model.safetensors").stat().st_size
    assert size == pytest.approx(path.stat().st_size / 2, rel=0.2)
    expected = golden_backbone(fusion).state_dict()
    for key, value in checkpoint.load(tmp_path / "half")[1].state_dict().items():
        torch.testing.assert_close(value, expected[key], atol=4e-2, rtol=1e-2)


def test_from_a_folder_or_the_hub(
    fusion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "model.safetensors", fusion)
    import_release(tmp_path, "small", tmp_path / "a")
    monkeypatch.setattr(checkpoint_files, "resolve", lambda name: tmp_path)
    found = import_release("someone/weights", "small", tmp_path / "b")
    assert found.system_prompt == ""
    for out in ("a", "b"):
        assert (tmp_path / out / "config.json").is_file()


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
        (tmp_path / "nothing.pt", "no folder"),
        (broken, "broken.pt cannot be read"),
        (harmful, "harmful.pt cannot be read"),
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

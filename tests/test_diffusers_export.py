"""A checkpoint as diffusers loads it, and the model card beside every checkpoint."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hub_server import Hub
from safetensors import safe_open
from tiny_unison import random_backbone, tiny_variant

from unison_audio import checkpoint
from unison_audio.cli import main as cli
from unison_audio.errors import InputError
from unison_audio.model_card import CardInfo, card_text
from unison_audio.pipeline import Unison
from unison_audio.variants import VARIANTS

RAIN = "[Audio] rain"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "nano"
    assert cli.main(["export", "nano", "-o", str(folder), "--format", "diffusers"]) == 0
    return folder


@pytest.mark.parametrize("written", ["pipeline.py", ""])
def test_diffusers_gives_the_bits_of_generate(
    exported: Path, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import DiffusionPipeline

    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path))
    pipe = DiffusionPipeline.from_pretrained(
        exported, custom_pipeline=str(exported / written), trust_remote_code=True
    )
    assert type(pipe).__name__ == "UnisonPipeline"
    assert pipe.sample_rate == 16_000
    unison = Unison.from_pretrained("nano")
    expected = unison.generate(RAIN, duration=0.6, seed=3, steps=2, guidance_scale=2.0).waveform
    given = {"duration": 0.6, "num_inference_steps": 2, "guidance_scale": 2.0}
    (first,) = pipe(RAIN, seed=3, **given).audios
    assert np.array_equal(first, expected.numpy())
    drawn = pipe.to("cpu")([RAIN], generator=torch.Generator().manual_seed(3), **given)
    assert np.array_equal(drawn.audios[0], expected.numpy())


def test_the_hub_s_copy_loads_moves_and_casts(
    tiny_checkpoint: Path,
    stub_text: None,
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from diffusers import DiffusionPipeline

    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path))
    folder = tmp_path / "exported"
    assert cli.main(["export", str(tiny_checkpoint), "-o", str(folder)]) == 0
    files = [path for path in folder.rglob("*") if path.is_file()]
    hub.repos["me/tiny"] = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    how = {"custom_pipeline": "me/tiny", "trust_remote_code": True}
    pipe = DiffusionPipeline.from_pretrained("me/tiny", **how)
    asked = {path for method, path in hub.asked if method == "GET"}
    assert any("unison/checkpoint/codec.safetensors" in path for path in asked)
    unison = Unison.from_pretrained(tiny_checkpoint)
    given = {"duration": 0.6, "seed": 3}
    expected = unison.generate(RAIN, **given).waveform.numpy()
    assert np.array_equal(pipe(RAIN, **given).audios[0], expected)
    # Casting and moving give what a checkpoint opened that way gives.
    half = Unison.from_pretrained(tiny_checkpoint, dtype=torch.bfloat16)
    expected_half = half.generate(RAIN, **given).waveform.numpy()
    assert not np.array_equal(expected_half, expected)
    assert pipe.to(torch.bfloat16) is pipe
    assert (pipe.dtype, pipe.device) == (torch.bfloat16, torch.device("cpu"))
    assert np.array_equal(pipe(RAIN, **given).audios[0], expected_half)
    other = DiffusionPipeline.from_pretrained("me/tiny", torch_dtype=torch.bfloat16, **how)
    assert np.array_equal(other(RAIN, **given).audios[0], expected_half)
    pipe.to("meta")
    assert pipe.device.type == "meta"
    with pytest.raises(InputError, match=r"device meta, which holds no weights; move it"):
        pipe(RAIN, **given)
    pipe.to("cpu", torch.float32)
    assert np.array_equal(pipe(RAIN, **given).audios[0], expected)


def test_what_cannot_be_exported(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "nano", "-o", str(exported), "--format", "onnx"]) == 2
    assert "no format 'onnx'; use diffusers" in capsys.readouterr().err
    inner = str(exported / "unison" / "checkpoint")
    assert cli.main(["export", inner, "-o", inner]) == 2
    assert "is the checkpoint itself" in capsys.readouterr().err


def front_matter(text: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(text.split("---\n")[1])
    return found


def test_a_checkpoint_has_a_card_and_metadata(tmp_path: Path) -> None:
    variant = tiny_variant()
    checkpoint.save(tmp_path, variant, random_backbone(variant))
    card = (tmp_path / "README.md").read_text()
    meta = front_matter(card)
    assert meta["library_name"] == "unison-audio"
    assert meta["pipeline_tag"] == "text-to-audio"
    assert meta["base_model"] == ["sentence-transformers/all-MiniLM-L6-v2"]
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        stored = file.metadata()
    assert stored["format"] == "pt"
    assert (stored["library_name"], stored["variant"]) == ("unison-audio", variant.name)
    # A later save writes its own card anew, and leaves a hand-written one.
    checkpoint.save(
        tmp_path, variant, random_backbone(variant), card=CardInfo(license="mit", datasets=("own",))
    )
    meta = front_matter((tmp_path / "README.md").read_text())
    assert (meta["license"], meta["datasets"]) == ("mit", ["own"])
    (tmp_path / "README.md").write_text("By hand.\n")
    checkpoint.save(tmp_path, variant, random_backbone(variant))
    assert (tmp_path / "README.md").read_text() == "By hand.\n"


def test_the_card_of_released_weights_names_their_terms() -> None:
    released = dataclasses.replace(VARIANTS["d20-44k"], wording="release")
    text = card_text(released)
    meta = front_matter(text)
    assert meta["license"] == "other"
    assert meta["base_model"] == ["jac22/UNISON", "Qwen/Qwen2.5-Omni-7B"]
    assert "AudioSet" in meta["datasets"]  # type: ignore[operator]
    assert "exclude the European Union, the United Kingdom and South Korea" in text
    assert "license" not in front_matter(card_text(VARIANTS["d20-44k"]))


def test_nano_s_card_has_its_own_figures_and_no_other_weights_have(tmp_path: Path) -> None:
    unison = Unison.from_pretrained("nano")
    for name, dtype in (("whole", torch.float32), ("half", torch.float16)):
        unison.save_pretrained(tmp_path / name, dtype=dtype)
        card = (tmp_path / name / "README.md").read_text()
        table = card.partition("## Measured")[2]
        measured = [line for line in table.splitlines() if line.startswith("| ")]
        page = (Path(__file__).parents[1] / "docs" / "nano.md").read_text()
        results = page.partition("## Results")[2].partition("## Data")[0]
        documented = [line for line in results.splitlines() if line.startswith("| ")]
        assert len(measured) == len(documented) > 10
        for line, known in zip(measured, documented, strict=True):
            line, known = (" ".join(one.split()) for one in (line, known))
            assert known.startswith(line.rstrip().removesuffix("|").rstrip())
    with torch.no_grad():
        next(unison.backbone.parameters()).add_(0.01)
    unison.save_pretrained(tmp_path / "tuned")
    assert "## Measured" not in (tmp_path / "tuned" / "README.md").read_text()


def test_measured_figures_stand_in_the_card(tmp_path: Path) -> None:
    row = {"set": "timed", "task": "timed", "language": "", "part": ""}
    rows = [
        {**row, "system": "unison", "scores": {"clap": {"value": 0.31234}, "is": {"value": None}}},
        {**row, "system": "sdedit", "scores": {"clap": {"value": 0.9}}},
    ]
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"about": {}, "rows": rows}))
    text = card_text(VARIANTS["nano"], CardInfo(results=results))
    assert "| timed | timed | clap | 0.3123 |" in text
    assert "0.9" not in text
    assert "| is |" not in text
    results.write_text("{}")
    with pytest.raises(InputError, match=r"cannot be read as results"):
        card_text(VARIANTS["nano"], CardInfo(results=results))

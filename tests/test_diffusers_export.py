"""A checkpoint as diffusers loads it, and the model card beside every checkpoint."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
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


def test_what_cannot_be_exported(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "nano", "-o", str(exported), "--format", "onnx"]) == 2
    assert "no format 'onnx'; use diffusers" in capsys.readouterr().err
    inner = str(exported / "unison")
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

"""The example of fine-tuning, benchmarks/new_sound.py: what it prepares out of what it fetches."""

import importlib
import io
from pathlib import Path

import pytest
import soundfile
import torch

from unison_audio.nano.corpus import catalog
from unison_audio.training.clip_list import read_own_clips
from unison_audio.variants import VARIANTS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def new_sound(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("new_sound")


def stroke(number):
    generator = torch.Generator().manual_seed(number)
    noise = 0.3 * torch.randn(8000, generator=generator) * torch.exp(-torch.arange(8000) / 1000)
    file = io.BytesIO()
    soundfile.write(file, noise.numpy(), 16_000, format="FLAC")
    return file.getvalue()


def test_ten_recordings_are_learned_and_others_evaluate(new_sound, monkeypatch, tmp_path):
    monkeypatch.setattr(new_sound, "fetch", lambda package, folder: folder / package)
    monkeypatch.setattr(
        new_sound,
        "read_members",
        lambda deb, paths: [(path, stroke(k)) for k, path in enumerate(sorted(paths))],
    )
    learnt, held = new_sound.strokes(tmp_path)
    assert (len(learnt), len(held)) == (10, 14)
    assert not {c.record.source for c in learnt} & {c.record.source for c in held}
    own = read_own_clips(new_sound.write_examples(tmp_path, learnt), VARIANTS["nano"], 1024)
    assert [clip.record.label for clip in own.clips] == [new_sound.LABEL] * 10
    assert own.tasks() == {"t2a": 1.0}


def test_nano_does_not_know_the_new_sound_and_knows_the_others(new_sound):
    labels = {row["label"] for row in catalog("sounds")}
    assert new_sound.LABEL not in labels
    assert set(new_sound.KNOWN) <= labels
    rows = catalog("sounds")
    assert not any("tabla" in row["path"] for row in rows)
    packages = {row["package"] for row in rows}
    assert packages >= {new_sound.SOURCE, *new_sound.OTHERS}

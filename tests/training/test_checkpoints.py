"""What a run writes: checkpoints, logs, figures for trackers; and what a full disk does to it."""

import dataclasses
import errno
import json
import math
import sys
import types
from collections import Counter
from pathlib import Path

import pytest
import torch
from accelerate.utils import LoggerType
from training.conftest import RATE, HashedWords, make_variant
from training.test_trainer import RECIPE, losses, make_trainer

from unison_audio.errors import InputError
from unison_audio.training import objective
from unison_audio.training.batches import BatchStream, CorpusInMemory
from unison_audio.training.checkpoints import (
    full_disk_as_input_error,
    load_checkpoint,
    save_checkpoint,
)
from unison_audio.training.loop import train_backbone
from unison_audio.training.parallel import Parallel
from unison_audio.training.recipes import base_recipe
from unison_audio.training.trainer import BackboneTrainer
from unison_audio.variants import VARIANTS

SHORT = dataclasses.replace(RECIPE, steps=20, checkpoint_every=5)


@pytest.fixture(autouse=True)
def quick_samples(monkeypatch):
    monkeypatch.setattr(objective, "SAMPLE_STEPS", 1)


def checkpoints(folder):
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def test_only_the_newest_checkpoints_stay(tmp_path):
    (tmp_path / "checkpoint-00000002.partial").write_bytes(b"left behind by a kill")
    for step in (5, 10, 15, 20):
        save_checkpoint(tmp_path, step, {"value": torch.tensor(step)}, keep=3)
    assert checkpoints(tmp_path) == [f"checkpoint-{step:08d}.pt" for step in (10, 15, 20)]
    assert load_checkpoint(tmp_path) == {"step": 20, "value": torch.tensor(20)}


def test_a_full_disk_stops_the_run_and_leaves_its_checkpoints(clips, codec, tmp_path):
    """The system refuses the third checkpoint, whose file is a link to /dev/full."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    whole, full = tmp_path / "whole", tmp_path / "full"
    expected = train_backbone(make_trainer(clips, codec, SHORT), whole)
    trainer = make_trainer(clips, codec, SHORT)
    original = trainer.step

    def step_with_less_room(step, examples):
        if step == 12:
            (full / "checkpoint-00000015.partial").symlink_to("/dev/full")
        return original(step, examples)

    trainer.step = step_with_less_room
    with pytest.raises(InputError, match=r"disk with .* is full .*resumes from step 10"):
        train_backbone(trainer, full)
    assert checkpoints(full) == [f"checkpoint-{step:08d}.pt" for step in (5, 10)]
    found = train_backbone(make_trainer(clips, codec, SHORT), full)  # there is room now
    assert losses(full) == losses(whole)
    for name, value in expected.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name


def test_only_a_full_disk_is_called_one(tmp_path):
    with (
        pytest.raises(InputError, match=r"Disk quota exceeded.*from the beginning"),
        full_disk_as_input_error(tmp_path),
    ):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    with pytest.raises(PermissionError), full_disk_as_input_error(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def tracked_trainer(clips, codec, folder, tracker, skipped=None):
    source = CorpusInMemory(clips, RATE)
    if skipped:
        source.skipped = skipped
    stream = BatchStream(make_variant(), SHORT, source, codec, HashedWords())
    return BackboneTrainer(stream, Parallel(cpu=True, trackers=[tracker], folder=str(folder)))


def test_tensorboard_gets_the_figures(clips, codec, tmp_path, capsys):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    skipped = Counter({"broken sound": 3})
    train_backbone(tracked_trainer(clips, codec, tmp_path, "tensorboard", skipped), tmp_path)
    found = {}
    for path in tmp_path.glob("unison-audio/events.out.*"):
        content = path.read_bytes()
        while content:  # length (8 bytes), its checksum (4), the event, its checksum (4)
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    figures = {tag: value for (tag, step), value in found.items() if step == 20}
    by_task = {}
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        row = json.loads(line)
        by_task.setdefault(row["task"], []).append(row["loss"])
    assert len(by_task) > 3
    for task, each in by_task.items():
        assert figures[f"loss/{task}"] == pytest.approx(sum(each) / len(each), rel=1e-5)
    shares = {tag: value for tag, value in figures.items() if tag.startswith("share/")}
    assert set(shares) == {f"share/{part}" for part in ("synthesis", "codec", "text", "backbone")}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert min(shares.values()) > 0
    assert figures["skipped/broken_sound"] == 3  # tags have no spaces
    assert figures["learning_rate"] == pytest.approx(SHORT.lr(19))
    printed = capsys.readouterr().out
    assert "synthesis" in printed
    assert "skipped clips: 3 broken sound" in printed


def test_wandb_gets_the_figures(clips, codec, tmp_path, monkeypatch):
    """A stand-in of the few calls that accelerate's tracker makes."""
    logged, ended, settings = {}, [], {}

    class Run:
        def log(self, values, step=None):
            logged[step] = values

        def finish(self):
            ended.append(True)

    def init(project, **options):
        settings.update(options, project=project)
        return Run()

    stand_in = types.ModuleType("wandb")
    stand_in.init = init
    stand_in.config = types.SimpleNamespace(update=lambda values, **_: settings.update(values))
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.setattr("accelerate.tracking._available_trackers", [LoggerType.WANDB])
    train_backbone(tracked_trainer(clips, codec, tmp_path, "wandb"), tmp_path)
    assert settings["project"] == "unison-audio"
    assert settings["dir"] == str(tmp_path)
    assert settings["peak_lr"] == SHORT.peak_lr
    assert set(logged) == {20}
    assert {"share/codec", "gradient_norm", "learning_rate"} < set(logged[20])
    assert ended == [True]


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("accelerate.tracking._available_trackers", [])
    with pytest.raises(InputError, match="tensorboard is not installed; install tensorboardX"):
        Parallel(cpu=True, trackers=["tensorboard"], folder="run")


def test_the_base_recipe_is_the_papers():
    """Table 13."""
    recipe = base_recipe(VARIANTS["d24-16k"], lambda seconds: round(31.25 * seconds))
    assert (recipe.ema_decay, recipe.ema_every, recipe.clip_norm) == (0.999, 10, 1.0)
    assert (recipe.weight_decay, recipe.mixed_precision) == (0.01, "bf16")
    assert recipe.lr(0) == pytest.approx(1e-4 / 2000)
    assert recipe.lr(1999) == pytest.approx(1e-4)
    middle = 2000 + (recipe.steps - 2000) / 2
    assert recipe.lr(int(middle)) == pytest.approx(1e-4 * (0.02 + 0.98 / 2))
    quarter = 2000 + (recipe.steps - 2000) / 4
    cosine = 0.5 * (1 + math.cos(math.pi / 4))
    assert recipe.lr(int(quarter)) == pytest.approx(1e-4 * (0.02 + 0.98 * cosine))

"""Distilling: the student's aims against the sampler, and the checkpoint that comes out."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_unison import RATE, StubEncoder, random_backbone, random_codec, tiny_variant
from training.conftest import make_clips

from unison_audio import checkpoint
from unison_audio.data.prepare.shard_writer import write_shard
from unison_audio.errors import InputError
from unison_audio.model.sampling import ModelInputs, sample
from unison_audio.model.solvers import Solver
from unison_audio.nano.corpus import write_index
from unison_audio.pipeline import Unison
from unison_audio.sampling_params import resolve_sampling
from unison_audio.tasks.table import REFERENCE, TASKS
from unison_audio.training.batches import BatchStream, CorpusInMemory
from unison_audio.training.configs import DistillConfig
from unison_audio.training.distill import (
    Distillation,
    Teacher,
    distill,
    distillation_recipe,
    student_of,
)
from unison_audio.training.run import RunOutput
from unison_audio.training.trainer import BackboneTrainer


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    name = "train-00.tar"
    write_index(folder, {name: write_shard(folder / name, make_clips(), RATE)})
    return folder


def make_stream(updates: int = 40, steps: int = 4) -> BatchStream:
    variant, codec = tiny_variant(), random_codec()
    config = DistillConfig(updates=updates, learning_rate=2e-3)
    recipe = distillation_recipe(variant, codec.frames, config)
    recipe = dataclasses.replace(recipe, frames_per_batch=120)
    return BatchStream(
        student_of(variant, steps),
        recipe,
        CorpusInMemory(make_clips(), RATE),
        codec,
        StubEncoder(),
    )


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("task", ["tts", "zero_shot_tts", "edit_add", "edit_remove"])
def test_the_aim_is_where_the_guided_sampler_comes_to(task: str, hold: bool) -> None:
    stream = make_stream()
    backbone = random_backbone(tiny_variant())
    sampling = resolve_sampling(tiny_variant())
    example = stream.encode(stream.build(0, task))
    noise = torch.randn(example.z.shape, generator=torch.Generator().manual_seed(3))
    held = (example.condition.m == REFERENCE) & hold
    assert bool(held.any()) == (hold and task == "zero_shot_tts")
    teacher = Teacher(backbone, sampling, 6, hold_reference=hold)
    aim = teacher.mean_velocity(noise, example, 1.0, 0.0)
    found = sample(
        backbone,
        ModelInputs(
            z_s=example.condition.z_s,
            m=example.condition.m,
            hidden_states=example.text.hidden_states,
            text_mask=example.text.mask,
        ),
        noise=noise,
        steps=6,
        solver="euler-even",
        guidance=sampling.for_task(TASKS[task]).guidance,
        fixed=held,
    )
    torch.testing.assert_close(noise - aim, found, atol=2e-4, rtol=1e-3)


def test_a_student_begins_as_its_teacher_and_comes_nearer_to_its_aims() -> None:
    stream = make_stream()
    teacher = Teacher(random_backbone(tiny_variant()), resolve_sampling(tiny_variant()), 3)
    objective = Distillation(teacher, stream.variant)
    assert objective.times == [1.0, 0.75, 0.5, 0.25, 0.0]
    trainer = BackboneTrainer(stream, objective=objective)
    trainer.start_from(teacher.backbone)
    for name, value in teacher.backbone.state_dict().items():
        assert torch.equal(trainer.backbone.state_dict()[name], value)
    before = {name: value.clone() for name, value in teacher.backbone.state_dict().items()}
    examples = [stream.encode(stream.build(number, "tts")) for number in range(2)]

    def error() -> float:
        with torch.no_grad():
            draws = [torch.Generator().manual_seed(seed) for seed in range(8)]
            return sum(float(trainer.loss(each, d, 0)) for each in examples for d in draws)

    first = error()
    for step in range(40):
        trainer.step(step, [examples[step % 2]])
    assert error() < 0.85 * first
    for name, value in teacher.backbone.state_dict().items():
        assert torch.equal(value, before[name]), "the teacher has changed"


def test_a_student_sees_the_noise_that_sampling_starts_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variant = dataclasses.replace(tiny_variant(), speech_temperature=0.5, speech_candidates=4)
    student = student_of(variant, 1)
    assert (student.speech_temperature, student.speech_candidates) == (0.5, 1)
    stream = make_stream(steps=1)
    teacher = Teacher(random_backbone(variant), resolve_sampling(variant), 1)
    seen: list[torch.Tensor] = []

    def note(z: torch.Tensor, example: Any, start: float, end: float) -> torch.Tensor:
        seen.append(z)
        return z

    monkeypatch.setattr(teacher, "mean_velocity", note)
    trainer = BackboneTrainer(stream, objective=Distillation(teacher, stream.variant))
    for task, deviation in (("tts", 0.5), ("t2a", 1.0), ("edit_remove", 1.0)):
        example = stream.encode(stream.build(0, task))
        trainer.loss(example, torch.Generator().manual_seed(0), 0)
        noise = torch.randn(example.z.shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(seen[-1], deviation * noise)


def test_the_result_is_an_ordinary_checkpoint_of_few_steps(
    corpus: Path, tiny_checkpoint: Path, stub_text: None, tmp_path: Path
) -> None:
    run = RunOutput(folder=tmp_path / "run")
    config = DistillConfig(steps=2, substeps=2, updates=3)
    weights = distill(str(tiny_checkpoint), corpus, run, config=config)
    variant, student = checkpoint.load(weights)
    assert variant == student_of(tiny_variant(), 2)
    sampling = resolve_sampling(variant)
    for task in TASKS.values():
        assert sampling.for_task(task).steps == len(Solver(variant.solver, 2).times) == 2
        assert not sampling.for_task(task).guidance.at(0.5)
    before = random_backbone(tiny_variant()).state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in student.state_dict().items())
    sound = Unison.from_pretrained(weights).generate("[Audio] rain", duration=1.0)
    assert sound.seconds == 1.0
    # A finished run has nothing left to do.
    again = distill(str(tiny_checkpoint), corpus, run, config=config)
    for name, value in checkpoint.load(again)[1].state_dict().items():
        assert torch.equal(value, student.state_dict()[name])


@pytest.mark.parametrize("name", ["steps", "substeps", "updates"])
def test_none_of_something_is_refused(
    name: str, corpus: Path, tiny_checkpoint: Path, stub_text: None, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"{name} is 0; it must be at least 1"):
        distill(
            str(tiny_checkpoint),
            corpus,
            RunOutput(folder=tmp_path / "run"),
            config=DistillConfig(**{name: 0}),
        )

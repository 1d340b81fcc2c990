"""Several processes against one: the same losses, and states that any number can take up."""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from qwen_files import WIDTH, write_qwen
from training.conftest import RATE, HashedWords, make_clips, make_variant, tiny_codec_config

from unison_audio.codecs.nano import NanoCodec
from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.tasks.curriculum import default_stages
from unison_audio.text.offload import SharedLayers
from unison_audio.text.qwen import QwenEncoder
from unison_audio.text.states import TextEncoder, TextSetup
from unison_audio.training import objective
from unison_audio.training.batches import BatchStream, CorpusInMemory
from unison_audio.training.checkpoints import load_checkpoint
from unison_audio.training.loop import train_backbone
from unison_audio.training.parallel import Parallel, whole
from unison_audio.training.recipes import BackboneRecipe, Phase
from unison_audio.training.trainer import BackboneTrainer
from unison_audio.training.validation import Validation

STEPS = 20
PICKS = (2, 4)
TEXTS = (
    '[Speech] A female voice saying "the red dog runs home"',
    "[Audio] rain",
    "[Audio] a dog barking and a door closing while the rain falls",
)
RECIPE = BackboneRecipe(
    phases=(
        Phase(
            until_step=10,
            probabilities=default_stages()[0].probabilities,
            seconds={"": (1.28,)},
        ),
        Phase(
            until_step=None,
            probabilities=default_stages()[1].probabilities,
            seconds={"": (1.28, 2.56)},
        ),
    ),
    frames_per_batch=80,
    batches_per_step=2,
    steps=STEPS,
    peak_lr=2e-3,
    warmup=4,
    ema_every=2,
    checkpoint_every=10,
    sample_every=1000,
)


def make_trainer(
    strategy: str = "ddp", recipe: BackboneRecipe = RECIPE, qwen: Path | None = None
) -> BackboneTrainer:
    torch.manual_seed(0)
    codec = NanoCodec(tiny_codec_config()).eval().requires_grad_(False)
    parallel = Parallel(strategy, cpu=True, mixed_precision=recipe.mixed_precision)
    variant = make_variant()
    text_encoder: TextEncoder = HashedWords()
    if qwen is not None:
        small = dataclasses.replace(variant.backbone, text_dim=WIDTH)
        variant = dataclasses.replace(variant, backbone=small)
        text_encoder = parallel.share(make_qwen(qwen))
    stream = BatchStream(
        variant,
        recipe,
        CorpusInMemory(make_clips(), RATE),
        codec,
        text_encoder,
        rank=parallel.rank,
        world=parallel.world,
    )
    return BackboneTrainer(stream, parallel)


def make_qwen(files: Path) -> QwenEncoder:
    return QwenEncoder(TextSetup(picks=PICKS, files=files, dtype=torch.float32), "none")


def train(trainer: BackboneTrainer, folder: Path) -> None:
    held_out = Validation(trainer.stream, trainer.stream.source, batches=1, tasks=("tts", "t2as"))
    with mock.patch.object(objective, "SAMPLE_STEPS", 1):
        train_backbone(trainer, folder, validation=held_out)


def main(folder: Path, qwen: Path) -> None:
    """What each of two processes does; one start of them serves all the tests."""
    torch.set_num_threads(1)
    train(make_trainer("ddp", qwen=qwen), folder / "ddp")
    sharded = make_trainer("fsdp", qwen=qwen)
    train(sharded, folder / "fsdp")
    train(make_trainer("fsdp", qwen=qwen), folder / "resumed")
    encoder = sharded.stream.text_encoder
    rank = sharded.parallel.rank
    encoder.encode(TEXTS[:2])  # both have these from now on
    seen = encoder.encode(TEXTS if rank == 0 else TEXTS[:2])  # the other one has nothing new
    layers = encoder.encoder.layers
    assert isinstance(layers, SharedLayers)
    weights = [weight for module in layers.modules for weight in module.parameters()]
    held = sum(weight.to_local().nbytes for weight in weights)
    started = make_trainer("fsdp", qwen=qwen)
    weights = other_weights(started)
    started.start_from(weights)
    copies = {
        "weights": {name: whole(p) for name, p in started.backbone.named_parameters()},
        "average": dict(started.averaged().named_parameters()),
    }
    rotary = {"rotary": dict(encoder.encoder.rotary.named_buffers())}
    found = {"states": seen.hidden_states, "bytes": held, "copies": copies} | rotary
    torch.save(found, folder / f"{rank}.pt")


def other_weights(trainer: BackboneTrainer) -> UnisonBackbone:
    """Weights of the shape that a trainer trains."""
    torch.manual_seed(8)
    backbone = UnisonBackbone(trainer.stream.variant.backbone)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter)
    return backbone


def run_two(folder: Path, qwen: Path) -> None:
    """Two processes over gloo, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    tests = str(Path(__file__).parents[1])
    code = (
        f"import sys; sys.path.insert(0, {tests!r}); from pathlib import Path; "
        f"from training.test_parallel import main; main(*map(Path, sys.argv[1:]))"
    )
    processes = []
    for rank in range(2):
        environment = os.environ | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "true",
        }
        command = [sys.executable, "-c", code, str(folder), str(qwen)]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=-1)
        )
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()[-2000:]


def losses(folder: Path) -> list[float]:
    """All losses, ordered by step and, within a step, by batch."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    write_qwen(folder)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, qwen: Path) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    train(make_trainer(qwen=qwen), folder)
    return folder


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, qwen: Path, alone: Path) -> Path:
    folder = tmp_path_factory.mktemp("together")
    (folder / "resumed").mkdir()
    for name in ("checkpoint-00000010.pt", "log.jsonl"):
        shutil.copy(alone / name, folder / "resumed")
    run_two(folder, qwen)
    return folder


@pytest.mark.parametrize("run", ["ddp", "fsdp", "resumed"])
def test_two_processes_follow_one(run: str, alone: Path, together: Path) -> None:
    """From the beginning, and from the middle of one process' run."""
    found, expected = losses(together / run), losses(alone)
    assert len(found) == len(expected) == 2 * STEPS
    assert found == pytest.approx(expected, rel=1e-4)
    ours, theirs = load_checkpoint(together / run), load_checkpoint(alone)
    for part in ("backbone", "ema"):
        for name, value in theirs[part].items():
            torch.testing.assert_close(ours[part][name], value, atol=2e-4, rtol=1e-3)
    ours, theirs = (
        json.loads((at / "validation.jsonl").read_text()) for at in (together / run, alone)
    )
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert {path.name for path in (together / run / "samples").iterdir()} == {
        path.name for path in (alone / "samples").iterdir()
    }


@pytest.mark.parametrize("run", ["ddp", "fsdp"])
def test_one_process_resumes_a_run_of_two(
    run: str, alone: Path, together: Path, qwen: Path, tmp_path: Path
) -> None:
    for name in ("checkpoint-00000010.pt", "log.jsonl"):
        shutil.copy(together / run / name, tmp_path)
    train(make_trainer(qwen=qwen), tmp_path)
    assert losses(tmp_path) == pytest.approx(losses(alone), rel=1e-4)


def test_the_language_model_is_sharded_over_processes(together: Path, qwen: Path) -> None:
    parts = [torch.load(together / f"{rank}.pt") for rank in range(2)]
    whole = make_qwen(qwen)
    expected = whole.encode(TEXTS).hidden_states
    torch.testing.assert_close(parts[0]["states"], expected)
    longest = parts[1]["states"].shape[2]
    torch.testing.assert_close(parts[1]["states"], expected[:2, :, :longest])
    for part in parts:  # no path may cast the frequencies as it casts weights
        for name, expected in whole.rotary.named_buffers():
            assert part["rotary"][name].dtype == torch.float32
            assert torch.equal(part["rotary"][name], expected)
    everything = sum(p.nbytes for layer in whole.layers.modules for p in layer.parameters())
    assert [part["bytes"] for part in parts] == [everything // 2] * 2


def test_a_sharded_run_starts_from_whole_weights(together: Path, qwen: Path) -> None:
    expected = dict(other_weights(make_trainer(qwen=qwen)).named_parameters())
    for rank in range(2):
        for found in torch.load(together / f"{rank}.pt")["copies"].values():
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_accumulation_is_as_one_large_batch() -> None:
    trainer = make_trainer()
    examples = [trainer.stream.encode(trainer.stream.build(3, "tts", n)) for n in range(2)]
    trainer.step(3, examples)
    accumulated = {
        n: p.grad.clone() for n, p in trainer.backbone.named_parameters() if p.requires_grad
    }
    fresh = make_trainer()
    gradients: dict[str, torch.Tensor] = {}
    for number, example in enumerate(examples):
        generator = torch.Generator().manual_seed((1 * 1_000_003 + 6 + number) % (1 << 63))
        fresh.loss(example, generator, 3).backward()
    gradients = {n: p.grad / 2 for n, p in fresh.backbone.named_parameters() if p.requires_grad}
    norm = torch.sqrt(sum(g.square().sum() for g in gradients.values()))
    for name, value in gradients.items():
        clipped = value * min(1.0, RECIPE.clip_norm / float(norm))
        torch.testing.assert_close(accumulated[name], clipped, atol=1e-6, rtol=1e-3)


def test_recomputed_blocks_give_the_same_gradients() -> None:
    plain = make_trainer()
    again = make_trainer(recipe=dataclasses.replace(RECIPE, gradient_checkpointing=True))
    example = plain.stream.encode(plain.stream.build(3, "tts"))
    for trainer in (plain, again):
        torch.nn.init.normal_(trainer.backbone.head.linear.weight, generator=_seeded())
        trainer.loss(example, _seeded(), 3).backward()
    theirs = dict(again.backbone.named_parameters())
    for name, parameter in plain.backbone.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(theirs[name].grad, parameter.grad)


def test_bf16_products_leave_weights_in_float32() -> None:
    trainer = make_trainer(recipe=dataclasses.replace(RECIPE, mixed_precision="bf16"))
    exact = make_trainer()
    example = trainer.stream.encode(trainer.stream.build(3, "tts"))
    found = trainer.step(3, [example])[0]["loss"]
    assert found == pytest.approx(exact.step(3, [example])[0]["loss"], rel=0.03)
    assert all(p.dtype == torch.float32 for p in trainer.backbone.parameters())


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(InputError, match="strategy is 'magic'; use one of ddp, fsdp"):
        Parallel("magic", cpu=True)
    with pytest.raises(InputError, match="mixed_precision is 'fp8'; use 'no' or 'bf16'"):
        Parallel(cpu=True, mixed_precision="fp8")
    with pytest.raises(InputError, match="no tracker 'paper'"):
        Parallel(cpu=True, trackers=["paper"])
    with pytest.raises(InputError, match="2 batches a step cannot be shared by 3 processes"):
        BatchStream(
            make_variant(),
            RECIPE,
            CorpusInMemory([], RATE),
            NanoCodec(tiny_codec_config()),
            HashedWords(),
            world=3,
        )


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)

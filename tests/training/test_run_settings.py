"""Training commands compare all that decides their result with what a run was started with."""

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tiny_unison import RATE, TINY_CODEC
from training.conftest import make_clips
from training.test_finetune import own, tone  # noqa: F401

from unison_audio.checkpoint_files import open_checkpoint
from unison_audio.codecs.nano import NanoCodec
from unison_audio.data.prepare.shard_writer import write_shard
from unison_audio.errors import InputError
from unison_audio.nano import recipe as nano_recipe
from unison_audio.nano.corpus import write_index
from unison_audio.training import distill as distilling
from unison_audio.training import finetune as finetuning
from unison_audio.training import full_size
from unison_audio.training.configs import DistillConfig, FinetuneConfig, RecipeChanges
from unison_audio.training.parallel import Parallel
from unison_audio.training.run import RunConfig, RunData, RunOutput


def write_corpus(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    write_index(folder, {"train-00.tar": write_shard(folder / "train-00.tar", make_clips(), RATE)})
    return folder


def scale_weights(folder: Path, name: str) -> None:
    weights = load_file(folder / name)
    save_file(
        {key: (1.01 * value).to(value.dtype) for key, value in weights.items()}, folder / name
    )


def test_fine_tuning_is_resumed_with_its_own_settings(
    own: Path,  # noqa: F811
    tiny_checkpoint: Path,
    stub_text: None,
    tmp_path: Path,
) -> None:
    weights = shutil.copytree(tiny_checkpoint, tmp_path / "weights")
    run = RunOutput(folder=tmp_path / "run")
    config = FinetuneConfig(steps=2, items=1, rank=2)

    def train(**changes: Any) -> Path:
        changed = dataclasses.replace(config, **changes)
        return finetuning.finetune(str(weights), own, run, config=changed)

    assert train() == run.weights
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"rank": 4}, "--rank 2, not 4"),
        ({"method": "full"}, "--method lora, not full"),
        ({"learning_rate": 1e-4}, r"--learning-rate None, not 0\.0001"),
        ({"items": 2}, "--items 1, not 2"),
        ({"own_share": 0.7}, r"--own-share 0\.5, not 0\.7"),
        ({"corpus": write_corpus(tmp_path / "corpus")}, "--corpus"),
        ({"steps": 1}, "has done 2 steps, and 1 are asked for"),
    )
    for change, says in changes:
        with pytest.raises(InputError, match=says):
            train(**change)
    tone(own.parent, "a.wav", 441)  # replaced under its name
    with pytest.raises(InputError, match="other content of the examples"):
        train()
    tone(own.parent, "a.wav", 440)
    assert train() == run.weights
    own.write_text("".join(own.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(InputError, match="other content of the examples"):
        train()
    scale_weights(weights, "model.safetensors")
    with pytest.raises(InputError, match="other content of --variant and other content of the ex"):
        train()


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The settings of each run, none of which trains."""
    found: list[dict[str, Any]] = []

    def note(config: RunConfig) -> None:
        found.append(dict(config.settings))

    for module in (nano_recipe, distilling, full_size):
        monkeypatch.setattr(module, "run", note)
    return found


def change_index(corpus: Path) -> None:
    index = corpus / "index.json"
    index.write_text(index.read_text() + "\n")


def in_turn(
    train: Callable[..., Any],
    begun: list[dict[str, Any]],
    changes: Sequence[tuple[str, Callable[[], Any] | dict[str, Any]]],
) -> None:
    """Every change of a file or an option changes one setting, and no other."""
    for name, change in changes:
        train()
        if callable(change):
            change()
            train()
        else:
            train(**change)
        before, after = begun[-2:]
        assert before.keys() == after.keys()
        assert {key for key in before if before[key] != after[key]} == {name}


def test_nano_is_resumed_with_its_own_settings(
    begun: list[dict[str, Any]], tiny_checkpoint: Path, stub_text: None, tmp_path: Path
) -> None:
    codec = shutil.copytree(open_checkpoint("nano").folder, tmp_path / "codec")
    corpus, run = write_corpus(tmp_path / "corpus"), RunOutput(folder=tmp_path / "run")
    in_turn(
        lambda **options: nano_recipe.train_nano(corpus, run, codec=codec, **options),
        begun,
        [
            ("codec", lambda: scale_weights(codec, "codec.safetensors")),
            ("corpus", lambda: change_index(corpus)),
            ("init", {"init": tiny_checkpoint}),
        ],
    )


def test_distilling_is_resumed_with_its_own_settings(
    begun: list[dict[str, Any]], tiny_checkpoint: Path, stub_text: None, tmp_path: Path
) -> None:
    weights = shutil.copytree(tiny_checkpoint, tmp_path / "weights")
    corpus, run = write_corpus(tmp_path / "corpus"), RunOutput(folder=tmp_path / "run")
    in_turn(
        lambda **options: distilling.distill(
            str(weights), corpus, run, config=DistillConfig(**options)
        ),
        begun,
        [
            ("teacher", lambda: scale_weights(weights, "model.safetensors")),
            ("corpus", lambda: change_index(corpus)),
            ("steps", {"steps": 2}),
            ("substeps", {"substeps": 2}),
            ("learning_rate", {"learning_rate": 1e-5}),
        ],
    )


def test_a_full_model_is_resumed_with_its_own_settings(
    begun: list[dict[str, Any]],
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codec = NanoCodec(dataclasses.replace(TINY_CODEC, latent_channels=20))
    monkeypatch.setattr(full_size, "open_frozen", lambda variant, how: (codec, None))
    weights = shutil.copytree(tiny_checkpoint, tmp_path / "weights")
    corpus, run = write_corpus(tmp_path / "corpus"), RunOutput(folder=tmp_path / "run")

    def train(name: str = "d24-16k", **options: Any) -> None:
        given: dict[str, Any] = {"init": str(weights), **options}
        full_size.train_variant(name, RunData(corpora=[corpus]), run, Parallel(cpu=True), **given)

    in_turn(
        train,
        begun,
        [
            ("init", lambda: scale_weights(weights, "model.safetensors")),
            ("corpora", lambda: change_index(corpus)),
            ("variant", {"name": "d24-16k-l"}),
            ("recipe", {"changes": RecipeChanges(recipe="long-speech")}),
            ("items", {"changes": RecipeChanges(items=2)}),
            ("accumulate", {"changes": RecipeChanges(accumulate=2)}),
            ("system_prompt_file", {"system_prompt": "You are told: {instruction}"}),
        ],
    )

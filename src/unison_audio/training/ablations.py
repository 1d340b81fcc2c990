"""Training the paper's ablations (section 4.4, Table 8) and their nano counterparts.

Data, seeds, steps and recipe are equal for all variants of a family. A folder of runs refuses
other settings than those that it was started with.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from unison_audio.checkpoint_files import content_hash
from unison_audio.codecs.nano import NanoCodec
from unison_audio.codecs.table import load_nano_codec
from unison_audio.data.records import Clip
from unison_audio.data.shards import read_corpus
from unison_audio.errors import InputError
from unison_audio.files import write_whole
from unison_audio.nano.recipe import NANO
from unison_audio.tasks.curriculum import default_stages
from unison_audio.text.states import TextSetup
from unison_audio.text.table import TEXT_ENCODERS
from unison_audio.training.ablation_report import ResultRow, held_out_rows
from unison_audio.training.ablation_table import FULL, NANO_FAMILY, Ablation, choose
from unison_audio.training.batches import CorpusInMemory
from unison_audio.training.configs import ModelFiles, RecipeChanges
from unison_audio.training.full_size import train_variant
from unison_audio.training.parallel import Parallel
from unison_audio.training.recipes import BackboneRecipe, Phase
from unison_audio.training.run import (
    ModelInit,
    RunConfig,
    RunData,
    RunOutput,
    make_stream,
    require_fitting,
    run,
)
from unison_audio.training.run_settings import corpus_hash
from unison_audio.training.validation import Validation
from unison_audio.variants import find_variant

PAPER_STEPS = 80_000
"""Steps of each variant in the paper's Table 8: within its first stage, of generation alone."""

# "judged.json" is a file name of existing folders, whose runs must stay resumable.
SETTINGS, HELD_OUT, EVALUATED = "ablations.json", "held-out.json", "judged.json"

CONTENT = "content.json"
"""Hashes of what is trained on. In a file of its own: folders of version 0.1.0 lack it, and those
must stay resumable."""


class Evaluator(Protocol):
    """Evaluates what a trained variant generates."""

    def __call__(self, name: str, weights: Path, out: Path) -> list[ResultRow]:
        """Evaluates a checkpoint.

        Args:
            name: Name of the ablation.
            weights: Folder of the checkpoint.
            out: Folder for outputs; an interrupted evaluation resumes there.

        Returns:
            Rows with at least the keys "set", "task", "language" and "scores".
        """
        ...


def nano_recipe(steps: int, frames_per_batch: int = NANO.frames_per_batch) -> BackboneRecipe:
    """The recipe of nano's ablations: the tasks of the first stage from the first step on.

    The paper's 80,000 steps end within the first stage too. Nano's initial phase of single words
    is left out: the paper has none.

    Args:
        steps: Steps of each variant.
        frames_per_batch: Latent frames in a batch.
    """
    stage1 = default_stages()[0].probabilities
    return dataclasses.replace(
        NANO,
        phases=(Phase(until_step=None, probabilities=stage1, seconds=NANO.phases[-1].seconds),),
        frames_per_batch=frames_per_batch,
        steps=steps,
        warmup=min(NANO.warmup, max(1, steps // 10)),
        cooldown=max(1, steps // 5),
        checkpoint_every=min(200, max(1, steps // 4)),
        keep_checkpoints=1,
        sample_every=max(1000, steps),
        edit_speech_probability=0.0,  # no task of the first stage is an edit
        absent_target_probability=0.0,
    )


def train_nano_ablations(
    corpus: Path,
    codec: Path,
    out: Path,
    *,
    recipe: BackboneRecipe,
    names: Sequence[str] | None = None,
    batches: int = 4,
    workers: int = 0,
    evaluate: Evaluator | None = None,
) -> list[ResultRow]:
    """Trains nano's ablations one after another and measures each, or resumes.

    Args:
        corpus: A prepared corpus; its clips are kept in memory.
        codec: Folder of the codec.
        out: Folder with one folder for each variant: its run and its results.
        recipe: Recipe of all variants.
        names: Keys of `NANO_FAMILY`; None for all.
        batches: Held-out batches of each task.
        workers: Processes that make batches ahead.
        evaluate: Evaluates what the variants generate; None for the held-out error alone.

    Returns:
        Rows of results.

    Raises:
        InputError: If a name is unknown, something is missing, or the folder was started with
            other settings.
    """
    chosen = choose(NANO_FAMILY, names)
    rate = find_variant("nano").sample_rate
    loaded = load_nano_codec(codec)
    for ablation in chosen:
        require_fitting(loaded, ablation.variant)
    listing = {"corpus": _listing(corpus), "codec": _listing(codec), "batches": batches}
    keep_settings(out, {"recipe": _recipe_settings(recipe), **listing})
    keep_settings(out, {"content of the codec": content_hash(codec)}, CONTENT)
    return train_family(
        chosen,
        lambda split: read_corpus(corpus, rate, split=split),
        loaded,
        out,
        recipe=recipe,
        batches=batches,
        workers=workers,
        evaluate=evaluate,
    )


def train_family(
    ablations: Sequence[Ablation],
    read: Callable[[str], Sequence[Clip]],
    codec: NanoCodec,
    out: Path,
    *,
    recipe: BackboneRecipe,
    batches: int = 4,
    workers: int = 0,
    evaluate: Evaluator | None = None,
) -> list[ResultRow]:
    """Trains variants with one codec from clips in memory, and measures each.

    Args:
        ablations: The variants.
        read: Returns the clips of a split, "train" or "heldout". It is called only if work is
            left to do.
        codec: The codec of all variants.
        out: Folder with one folder for each variant.
        recipe: Recipe of all variants.
        batches: Held-out batches of each task.
        workers: Processes that make batches ahead.
        evaluate: Evaluates what the variants generate; None for the held-out error alone.

    Returns:
        Rows of results.
    """
    splits: dict[str, Sequence[Clip]] = {}

    def clips(split: str) -> Sequence[Clip]:
        if split not in splits:
            splits[split] = read(split)
        return splits[split]

    rows: list[ResultRow] = []
    for ablation in ablations:
        folder = out / ablation.name
        if not (folder / HELD_OUT).is_file():
            print(f"{ablation.name}, {ablation.parameters}", flush=True)
            config = RunConfig(
                model=_model_init(ablation, codec),
                data=RunData(clips=clips("train"), workers=workers),
                recipe=recipe,
                output=RunOutput(folder=folder),
            )
            backbone = run(config)
            held_out = CorpusInMemory(clips("heldout"), codec.sample_rate)
            validation = Validation(make_stream(config, held_out), held_out, batches=batches)
            _write(folder / HELD_OUT, validation.losses_by_batch(backbone))
        errors = json.loads((folder / HELD_OUT).read_text("utf-8"))
        rows += held_out_rows(ablation, errors)
        rows += _evaluated(ablation, folder, evaluate)
    return rows


def _recipe_settings(recipe: BackboneRecipe) -> dict[str, Any]:
    """The recipe under the keys of existing folders, so that their runs can be resumed."""
    settings = dataclasses.asdict(recipe)
    for name in ("edit_speech_probability", "absent_target_probability", "sample_seconds"):
        if not settings[name]:  # as in all folders from before these options
            del settings[name]
    return settings | {"floor_dbfs": settings.pop("noise_floor_dbfs")}


def _model_init(ablation: Ablation, codec: NanoCodec) -> ModelInit:
    variant = ablation.variant
    setup = TextSetup(
        picks=variant.read_layers, penultimate=variant.reads_penultimate, letters=variant.letters
    )
    text_encoder = TEXT_ENCODERS[variant.text_encoder](setup)
    return ModelInit(variant=variant, codec=codec, text_encoder=text_encoder)


def train_full_ablations(
    data: RunData,
    out: Path,
    parallel: Parallel,
    *,
    changes: RecipeChanges | None = None,
    files: ModelFiles | None = None,
    names: Sequence[str] | None = None,
    evaluate: Evaluator | None = None,
) -> list[ResultRow]:
    """Trains the paper's ablations one after another, or resumes.

    Args:
        data: The corpora of all variants.
        out: Folder with one folder for each variant.
        parallel: The processes of the run.
        changes: Recipe of all variants; its default number of steps is the paper's.
        files: Where the frozen models are; None for the cache, filled by download.
        names: Keys of `FULL`; None for all.
        evaluate: Evaluates what the variants generate, on the first process alone.

    Returns:
        The evaluator's rows; none without one, and none on other processes than the first.

    Raises:
        InputError: If a name is unknown, or the folder was started with other settings.
    """
    changes = changes or RecipeChanges()
    if changes.steps is None:
        changes = dataclasses.replace(changes, steps=PAPER_STEPS)
    chosen = choose(FULL, names)
    if parallel.main:
        settings = {
            "corpora": sorted(map(str, data.corpora)),
            "recipe": changes.recipe,
            "steps": changes.steps,
            "items": changes.items,
            "accumulate": changes.accumulate,
            "processes": parallel.world,
        }
        content = sorted(map(corpus_hash, data.corpora))  # before anything is written
        keep_settings(out, settings)
        keep_settings(out, {"content of the corpora": content}, CONTENT)
    parallel.wait()
    rows: list[ResultRow] = []
    for ablation in chosen:
        output = RunOutput(folder=out / ablation.name)
        trained = output.folder / "trained"
        if not trained.is_file():
            train_variant(
                ablation.variant.name, data, output, parallel, changes=changes, files=files
            )
            if parallel.main:
                trained.touch()
            parallel.wait()
        if parallel.main and output.weights.is_dir():
            rows += _evaluated(ablation, output.folder, evaluate)
        parallel.wait()
    return rows


def keep_settings(out: Path, settings: Mapping[str, Any], name: str = SETTINGS) -> None:
    """Stores the settings of a folder of runs, or compares them with the stored ones.

    Args:
        out: The folder; it is made if missing.
        settings: JSON values.
        name: File in the folder.

    Raises:
        InputError: If the stored settings differ.
    """
    now = json.loads(json.dumps(settings))  # tuples become lists, as in the file
    path = out / name
    if not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        _write(path, now)
        return
    before = json.loads(path.read_text("utf-8"))
    other = [key for key in (now | before) if now.get(key) != before.get(key)]
    if other:
        raise InputError(
            f"{out} holds ablations of another {' and '.join(other)}; all variants must be trained "
            "alike, so choose another folder, or delete it."
        )


def _evaluated(ablation: Ablation, folder: Path, evaluate: Evaluator | None) -> list[ResultRow]:
    """The evaluator's rows of a variant, stored in its folder."""
    path = folder / EVALUATED
    if evaluate is not None and not path.is_file():
        _write(path, evaluate(ablation.name, folder / "weights", folder / "evaluation"))
    if not path.is_file():
        return []
    rows = json.loads(path.read_text("utf-8"))
    return [{**row, "system": ablation.name, "about": ablation.about} for row in rows]


def _listing(folder: Path) -> str:
    """A hash of a folder's JSON files, which describe its content."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.json")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _write(path: Path, value: Any) -> None:
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")

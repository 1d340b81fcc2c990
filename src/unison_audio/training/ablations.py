"""The paper's ablations (section 4.4, Table 8) and their nano counterparts, trained alike.

What differs between the variants of a family is stated in one table; data, seeds, steps and all
else are the same, and a folder of runs takes no other settings than those it was begun with.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from unison_audio.codecs.nano import NanoCodec
from unison_audio.codecs.table import load_nano_codec
from unison_audio.data.records import Clip
from unison_audio.data.whole_corpus import read_corpus
from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.nano.recipe import NANO
from unison_audio.tasks.curriculum import default_stages
from unison_audio.text.cache import CachingTextEncoder
from unison_audio.text.states import TextSetup
from unison_audio.text.table import TEXT_ENCODERS
from unison_audio.training.batches import CorpusInMemory, ExampleStream, velocity_error
from unison_audio.training.checkpoints import step_generator
from unison_audio.training.parallel import Parallel
from unison_audio.training.recipes import BackboneRecipe, Phase
from unison_audio.training.run import save_weights, train_variant
from unison_audio.training.trainer import BackboneTrainer, train_backbone
from unison_audio.training.validation import Validation
from unison_audio.variants import Variant, find_variant


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One variant of a family."""

    name: str
    """As tables show it, and the name of its run's folder."""
    variant: Variant
    """What is trained."""
    conditioning: str
    """How text enters, as Table 8 says it."""
    architecture: str
    """Streams and blocks, as Table 8 says it."""

    @property
    def parameters(self) -> str:
        """Of the backbone, in millions."""
        with torch.device("meta"):
            count = sum(p.numel() for p in UnisonBackbone(self.variant.backbone).parameters())
        millions = count / 1e6
        return f"{millions:,.0f}M" if millions >= 100 else f"{millions:.1f}M"

    @property
    def about(self) -> dict[str, str]:
        """What the rows of Table 8 say of it."""
        return {
            "conditioning": self.conditioning,
            "architecture": self.architecture,
            "parameters": self.parameters,
        }


def _nano(name: str, fusion: str, conditioning: str, text_layers: int = 6) -> Ablation:
    """Nano with something else; width, depth and all other sizes are nano's."""
    nano = find_variant("nano")
    variant = dataclasses.replace(
        nano,
        name=name.lower(),
        backbone=dataclasses.replace(nano.backbone, fusion=fusion),
        text_layers=text_layers,
    )
    kind = "S" if fusion == "S" else "D"
    return Ablation(
        name=name,
        variant=variant,
        conditioning=conditioning,
        architecture=f"{kind}{nano.backbone.blocks}",
    )


def _full(name: str, variant: str, conditioning: str) -> Ablation:
    return Ablation(
        name=name,
        variant=find_variant(variant),
        conditioning=conditioning,
        architecture=name.split("-")[0],
    )


def _family(*ablations: Ablation) -> dict[str, Ablation]:
    return {ablation.name: ablation for ablation in ablations}


FULL: Mapping[str, Ablation] = _family(
    _full("D24-O", "d24-16k", "O (deep fusion, 7B)"),
    _full("D24-L", "d24-16k-l", "L (penultimate-layer, 7B)"),
    _full("D24-OL", "d24-16k-ol", "OL (deep + penultimate, 7B)"),
    _full("S32-O", "s32-16k", "O (deep fusion, 7B)"),
    _full("D24-O-3B", "d24-16k-3b", "O (deep fusion, 3B)"),
)
"""The paper's."""

NANO_FAMILY: Mapping[str, Ablation] = _family(
    _nano("nano-O", "O", "O (deep fusion, MiniLM)"),
    _nano("nano-L", "L", "L (penultimate-layer, MiniLM)"),
    _nano("nano-OL", "OL", "OL (deep + penultimate, MiniLM)"),
    _nano("nano-S", "S", "O (deep fusion, MiniLM)"),
    # A model's lower layers are what the model without its upper ones would give.
    _nano("nano-O-3of6", "O", "O (deep fusion, MiniLM's lower 3 of 6 layers)", text_layers=3),
)
"""Nano's: equal width and depth, so that the single stream has fewer parameters, and half of the
text encoder in place of a smaller one."""


def choose(family: Mapping[str, Ablation], names: Sequence[str] | None) -> list[Ablation]:
    """Look ablations up.

    Args:
        family: `FULL` or `NANO_FAMILY`.
        names: Some of its keys; all if None.

    Raises:
        InputError: There is none of a name.
    """
    for name in names or ():
        if name not in family:
            raise InputError(f"There is no ablation {name!r}; use {', '.join(family)}.")
    return list(family.values()) if names is None else [family[n] for n in dict.fromkeys(names)]


PAPER_STEPS = 80_000
"""Steps of each variant in the paper's Table 8: within its first stage, of generation alone."""

SETTINGS, HELD_OUT, JUDGED = "ablations.json", "held-out.json", "judged.json"

Row = dict[str, Any]
"""A row of results, as the evaluation's tables take them."""


class Judge(Protocol):
    """Gives figures of a trained variant by generating with it."""

    def __call__(self, name: str, weights: Path, out: Path) -> list[Row]:
        """Evaluate weights.

        Args:
            name: The ablation's.
            weights: Folder of the checkpoint.
            out: Where outputs may go; a run that was killed goes on there.

        Returns:
            Rows with the keys "set", "task", "language" and "scores" at least.
        """
        ...


def nano_recipe(steps: int, frames_per_batch: int = NANO.frames_per_batch) -> BackboneRecipe:
    """How nano's ablations are trained: the tasks of the first stage, from the first step on.

    As in the paper's, where 80,000 steps end within the first stage. Without nano's beginning with
    single words, which takes 1,500 steps by itself.

    Args:
        steps: Of each variant.
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
    judge: Judge | None = None,
) -> list[Row]:
    """Train nano's ablations one after another and measure each; goes on after a kill.

    Args:
        corpus: What ``unison-audio data`` wrote; the judge needs nano's own corpus.
        codec: Folder of the codec's weights.
        out: A folder a variant: its run, and what was measured.
        recipe: For all of them.
        names: Keys of `NANO_FAMILY`; all if None.
        batches: Held-out batches of each task.
        workers: Processes that make batches ahead.
        judge: Measures what the variants generate, if that is wanted.

    Returns:
        Rows of results: the held-out error by task, and what the judge says.

    Raises:
        InputError: A name is unknown, something is missing, or the folder was begun with other
            settings.
    """
    chosen = choose(NANO_FAMILY, names)
    rate = find_variant("nano").sample_rate
    listing = {"corpus": _listing(corpus), "codec": _listing(codec), "batches": batches}
    keep_settings(out, {"recipe": dataclasses.asdict(recipe), **listing})
    return train_family(
        chosen,
        lambda split: read_corpus(corpus, rate, split=split),
        load_nano_codec(codec),
        out,
        recipe=recipe,
        batches=batches,
        workers=workers,
        judge=judge,
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
    judge: Judge | None = None,
) -> list[Row]:
    """Train variants of one codec from clips in memory, and measure each.

    Args:
        ablations: Which.
        read: Gives the clips of a split, "train" or "heldout"; asked only where work is left.
        codec: Theirs.
        out: A folder a variant.
        recipe: For all of them.
        batches: Held-out batches of each task.
        workers: Processes that make batches ahead.
        judge: Measures what the variants generate, if that is wanted.

    Returns:
        Rows of results.
    """
    sources: dict[str, CorpusInMemory] = {}

    def source(split: str) -> CorpusInMemory:
        if split not in sources:
            sources[split] = CorpusInMemory(read(split), codec.sample_rate)
        return sources[split]

    rows: list[Row] = []
    for ablation in ablations:
        folder = out / ablation.name
        if not (folder / HELD_OUT).is_file():
            print(f"{ablation.name}, {ablation.parameters}", flush=True)
            variant = ablation.variant
            setup = TextSetup(picks=variant.read_layers, penultimate=variant.reads_penultimate)
            encoder = CachingTextEncoder(TEXT_ENCODERS[variant.text_encoder](setup))
            stream = ExampleStream(variant, recipe, source("train"), codec, encoder)
            backbone = train_backbone(BackboneTrainer(stream), folder, workers)
            save_weights(folder / "weights", variant, backbone, codec, "float32")
            held_out = Validation(stream, source("heldout"), batches=batches)
            _write(folder / HELD_OUT, held_out_errors(held_out, backbone))
        rows += _held_out_rows(ablation, json.loads((folder / HELD_OUT).read_text("utf-8")))
        rows += _judged(ablation, folder, judge)
    return rows


def train_full_ablations(
    corpora: Sequence[str | Path],
    out: Path,
    parallel: Parallel,
    *,
    recipe: str = "base",
    steps: int = PAPER_STEPS,
    names: Sequence[str] | None = None,
    judge: Judge | None = None,
    **options: Any,
) -> list[Row]:
    """Train the paper's ablations one after another; goes on after a kill.

    Args:
        corpora: Folders or URLs of what ``unison-audio data`` wrote.
        out: A folder a variant.
        parallel: The processes of the run.
        recipe: A key of `recipes.FULL_RECIPES`, for all of them.
        steps: Of each variant.
        names: Keys of `FULL`; all if None.
        judge: Measures what the variants generate; asked on the first process alone.
        **options: As `full.train_variant` takes them, for all of them.

    Returns:
        What the judge says; nothing without one, and on other processes than the first.

    Raises:
        InputError: A name is unknown, or the folder was begun with other settings.
    """
    chosen = choose(FULL, names)
    if parallel.main:
        given = {"corpora": sorted(map(str, corpora)), "recipe": recipe, "steps": steps}
        same = {"items": options.get("items"), "accumulate": options.get("accumulate", 1)}
        keep_settings(out, {**given, **same, "processes": parallel.world})
    parallel.wait()
    rows: list[Row] = []
    for ablation in chosen:
        folder, name = out / ablation.name, ablation.variant.name
        weights = folder / "weights"
        if not (folder / "trained").is_file():
            train_variant(name, corpora, folder, parallel, recipe=recipe, steps=steps, **options)
            if parallel.main:
                (folder / "trained").touch()
            parallel.wait()
        if parallel.main and weights.is_dir():
            rows += _judged(ablation, folder, judge)
        parallel.wait()
    return rows


def keep_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """Note what a folder of runs is trained with, or make sure that it is what was noted.

    Args:
        out: The folder; made if missing.
        settings: JSON values.

    Raises:
        InputError: It was begun with others.
    """
    now = json.loads(json.dumps(settings))
    path = out / SETTINGS
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


@torch.no_grad()
def held_out_errors(validation: Validation, backbone: UnisonBackbone) -> dict[str, list[float]]:
    """The error of each held-out batch, by task; batches, noise and times never change."""
    found = {}
    for name, examples in validation.examples.items():
        found[name] = [
            float(
                velocity_error(
                    backbone, example, step_generator(validation.recipe.seed + 3, number), 0.0
                )
            )
            for number, example in enumerate(examples)
        ]
    return found


def error_table(rows: Sequence[Row]) -> str:
    """The held-out errors as a Markdown table; the last column compares with the first variant.

    Args:
        rows: As `train_family` gives them.
    """
    held = [row for row in rows if "error" in row["scores"]]
    systems = list(dict.fromkeys(row["system"] for row in held))
    tasks = list(dict.fromkeys(row["task"] for row in held))
    if not systems:
        return ""
    by = {(row["system"], row["task"]): row for row in held}
    head = ["variant", "conditioning", "architecture", "parameters", *tasks, "mean"]
    lines = [[*head, f"less {systems[0]}, paired"], ["---"] * (len(head) + 1)]
    batches = {
        system: [value for task in tasks for value in by[system, task]["scores"]["error"]["items"]]
        for system in systems
    }
    for system in systems:
        about = by[system, tasks[0]]["about"]
        values = [by[system, task]["scores"]["error"]["value"] for task in tasks]
        away = [a - b for a, b in zip(batches[system], batches[systems[0]], strict=True)]
        mean, error = _mean_and_error(away)
        lines.append(
            [
                system,
                *(about[key] for key in ("conditioning", "architecture", "parameters")),
                *(f"{value:.4f}" for value in values),
                f"{sum(values) / len(values):.4f}",
                "" if system == systems[0] else f"{mean:+.4f} ± {error:.4f}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _held_out_rows(ablation: Ablation, errors: Mapping[str, Sequence[float]]) -> list[Row]:
    rows = []
    for task, values in errors.items():
        mean, error = _mean_and_error(values)
        score = {
            "metric": "error",
            "value": mean,
            "low": mean - error,
            "high": mean + error,
            "count": len(values),
            "failed": [],
            "model": "velocity error of held-out batches with fixed noise",
            "items": list(values),
        }
        where = {"set": "held-out", "task": task, "language": ""}
        rows.append(
            {
                "system": ablation.name,
                **where,
                "about": ablation.about,
                "scores": {"error": score},
            }
        )
    return rows


def _judged(ablation: Ablation, folder: Path, judge: Judge | None) -> list[Row]:
    """What the judge says of a variant, kept on disk."""
    path = folder / JUDGED
    if judge is not None and not path.is_file():
        _write(path, judge(ablation.name, folder / "weights", folder / "evaluation"))
    if not path.is_file():
        return []
    rows = json.loads(path.read_text("utf-8"))
    return [{**row, "system": ablation.name, "about": ablation.about} for row in rows]


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval (normal, over batches); NaN of one batch."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, 1.96 * math.sqrt(variance / len(values))


def _listing(folder: Path) -> str:
    """A hash of what a folder says of itself in its JSON files."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.json")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _write(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
    partial.replace(path)

"""Fine-tuning a checkpoint on a user's own clips, all weights or LoRA adapters."""

import dataclasses
from pathlib import Path

from unison_audio.checkpoint_files import content_hash
from unison_audio.data.records import Clip, label_of
from unison_audio.data.shards import read_corpus
from unison_audio.domain import extend_domain
from unison_audio.loading import VariantModels
from unison_audio.tasks.table import TASKS
from unison_audio.training.batches import buildable_shares
from unison_audio.training.clip_list import OwnClips, read_own_clips
from unison_audio.training.configs import FinetuneConfig
from unison_audio.training.parallel import Parallel
from unison_audio.training.recipes import BackboneRecipe, Phase
from unison_audio.training.run import (
    ModelInit,
    RunConfig,
    RunData,
    RunOutput,
    open_for_training,
    run,
)
from unison_audio.training.run_settings import corpus_hash, examples_hash

RATES = {"lora": 1e-3, "full": 1e-4}
"""Method -> default peak learning rate."""


def finetune(
    name_or_path: str,
    examples: Path,
    output: RunOutput,
    *,
    config: FinetuneConfig | None = None,
    parallel: Parallel | None = None,
) -> Path:
    """Fine-tunes a checkpoint, or resumes the run; the result is an ordinary checkpoint.

    Args:
        name_or_path: What to start from: a variant's name, a checkpoint's folder, or `owner/name`
            on the hub.
        examples: The list of own clips, see `read_own_clips`.
        output: Where the run goes.
        config: How to fine-tune; None for the defaults.
        parallel: The processes of the run; None for one process on the CPU.

    Returns:
        Folder of the resulting checkpoint.

    Raises:
        InputError: If something cannot be used.
    """
    config = config or FinetuneConfig()
    config.check()
    parallel = parallel or Parallel(cpu=True)
    opened, parts = open_for_training(name_or_path, parallel)
    own = read_own_clips(examples, parts.variant, parts.codec.get().hop)
    data, shares = _data(own, examples, config, parts.variant.sample_rate)
    domain = extend_domain(
        parts.variant.domain,
        [clip.record for clip in own.clips],
        [pair.instruction for pair in own.pairs],
    )
    settings = {
        "variant": content_hash(opened.folder),
        "examples": examples_hash(examples, own.files),
        "method": config.method,
        "rank": config.rank if config.method == "lora" else None,
        "learning_rate": config.learning_rate,
        "items": config.items,
        "corpus": None if config.corpus is None else corpus_hash(config.corpus),
        "own_share": config.own_share,
    }
    run(
        RunConfig(
            model=ModelInit(
                variant=dataclasses.replace(parts.variant, domain=domain),
                codec=parts.codec.get(),
                text_encoder=parts.text_encoder.get(),
                start=parts.backbone.get,
                lora_rank=config.rank if config.method == "lora" else None,
            ),
            data=data,
            recipe=_recipe(config, own, shares, parts, parallel.world),
            output=output,
            parallel=parallel,
            settings=settings,
        )
    )
    return output.weights


def _data(
    own: OwnClips, examples: Path, config: FinetuneConfig, sample_rate: int
) -> tuple[RunData, dict[str, float]]:
    """The clips, and the share of each task that they allow."""
    if config.corpus is None:
        return RunData(clips=own.clips, pairs=own.pairs), own.tasks()
    others = read_corpus(config.corpus, sample_rate, split="train")
    clips = own.clips + others
    known = {name: task.stage2_probability for name, task in TASKS.items()}
    shares = buildable_shares(known, clips, f"{examples} with {config.corpus}")
    weights = _label_weights(own.clips, others, config.own_share)
    return RunData(clips=clips, label_weights=weights, pairs=own.pairs), shares


def _recipe(
    config: FinetuneConfig,
    own: OwnClips,
    shares: dict[str, float],
    parts: VariantModels,
    processes: int,
) -> BackboneRecipe:
    """A short run: a brief warm-up, and a linear decay over the last third."""
    variant, rate = parts.variant, config.learning_rate
    longest = _longest(own, variant.default_seconds, variant.sample_rate)
    seconds = variant.sample_seconds or longest
    return BackboneRecipe(
        phases=(Phase(until_step=None, probabilities=shares, seconds={"": (seconds,)}),),
        frames_per_batch=config.items * parts.codec.get().frames(seconds),
        batches_per_step=processes,
        steps=config.steps,
        peak_lr=RATES[config.method] if rate is None else rate,
        warmup=max(1, config.steps // 20),
        cooldown=max(1, config.steps // 3),
        # A decay of 0.999 would average over more steps than such a run has.
        ema_decay=0.98,
        ema_every=1,
        first_template_probability=0.7,
        checkpoint_every=100,
        # No samples on the way: the run is short.
        sample_every=config.steps + 1,
    )


def _longest(own: OwnClips, least: float, sample_rate: int) -> float:
    """Seconds of the longest own clip, and at least the variant's default duration."""
    lengths = [len(clip.waveform) for clip in own.clips] + [len(one.target) for one in own.pairs]
    return max(least, max(lengths) / sample_rate)


def _label_weights(own: list[Clip], others: list[Clip], share: float) -> dict[str, float]:
    """Weights of the sound labels: the own ones together have the given share of the draws."""
    mine = {label_of(clip.record) for clip in own if clip.record.kind == "sound"}
    # A label in both keeps the weight of the own clips.
    rest = {label_of(clip.record) for clip in others if clip.record.kind == "sound"} - mine
    weights = {label: share / len(mine) for label in mine}
    return weights | {label: (1 - share if mine else 1.0) / len(rest) for label in rest}

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
from unison_audio.training.clip_lengths import ItemLengths, TaskPlan, plan_tasks
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
from unison_audio.variants import Variant

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
    lengths = item_lengths(own, parts.variant, parts.codec.get().hop)
    data, plan = prepare_data(own, examples, config, lengths)
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
            recipe=_recipe(config, plan, parts, parallel.world),
            output=output,
            parallel=parallel,
            settings=settings,
        )
    )
    return output.weights


def item_lengths(own: OwnClips, variant: Variant, hop: int) -> ItemLengths:
    """Lengths of the items: the longest own clip, and at least the variant's default duration.

    Args:
        own: The clips.
        variant: The variant to fine-tune.
        hop: Samples in a latent frame.
    """
    rate, fixed = variant.sample_rate, variant.sample_seconds
    longest = max(len(wave) for wave in own.waveforms()) / rate
    least = fixed or max(variant.default_seconds, longest)
    # Resampling may make a clip of the longest duration a sample longer.
    most = fixed or max(variant.max_seconds, least)
    return ItemLengths(least=least, most=most, sample_rate=rate, hop=hop)


def prepare_data(
    own: OwnClips, examples: Path, config: FinetuneConfig, lengths: ItemLengths
) -> tuple[RunData, TaskPlan]:
    """The clips, and the tasks that they allow with their shares and lengths.

    Args:
        own: The user's clips.
        examples: Their list.
        config: How to fine-tune.
        lengths: Lengths that items can have.

    Raises:
        InputError: If the clips allow no task.
    """
    given = {pair.task for pair in own.pairs}
    if config.corpus is None:
        plan = plan_tasks(own.tasks(), own.clips, [], lengths, examples, given)
        return RunData(clips=own.clips, pairs=own.pairs), plan
    others = read_corpus(config.corpus, lengths.sample_rate, split="train")
    clips, name = own.clips + others, f"{examples} with {config.corpus}"
    known = {name: task.stage2_probability for name, task in TASKS.items()}
    shares = buildable_shares(known, clips, name)
    plan = plan_tasks(shares, own.clips, others, lengths, name, given)
    weights = _label_weights(own.clips, others, config.own_share)
    return RunData(clips=clips, label_weights=weights, pairs=own.pairs), plan


def _recipe(
    config: FinetuneConfig, plan: TaskPlan, parts: VariantModels, processes: int
) -> BackboneRecipe:
    """A short run: a brief warm-up, and a linear decay over the last third."""
    rate = config.learning_rate
    (usual,) = plan.seconds[""]
    return BackboneRecipe(
        phases=(Phase(until_step=None, probabilities=plan.shares, seconds=plan.seconds),),
        # Batches of longer items have fewer of them, and so the same memory and time.
        frames_per_batch=config.items * parts.codec.get().frames(usual),
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
        sample_seconds={task: max(choices) for task, choices in plan.seconds.items()},
    )


def _label_weights(own: list[Clip], others: list[Clip], share: float) -> dict[str, float]:
    """Weights of the sound labels: the own ones together have the given share of the draws."""
    mine = {label_of(clip.record) for clip in own if clip.record.kind == "sound"}
    # A label in both keeps the weight of the own clips.
    rest = {label_of(clip.record) for clip in others if clip.record.kind == "sound"} - mine
    weights = {label: share / len(mine) for label in mine}
    return weights | {label: (1 - share if mine else 1.0) / len(rest) for label in rest}

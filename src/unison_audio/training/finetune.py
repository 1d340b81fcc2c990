"""Fine-tuning a checkpoint on a user's own clips, whole or through adapters."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unison_audio.data.pools import label_of
from unison_audio.data.records import Clip
from unison_audio.data.whole_corpus import read_corpus
from unison_audio.errors import InputError
from unison_audio.loading import LoadOptions, open_models
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.tasks.table import TASKS
from unison_audio.training.batches import CorpusInMemory, buildable_shares
from unison_audio.training.clip_list import OwnClips, OwnClipStream, read_own_clips
from unison_audio.training.parallel import Parallel
from unison_audio.training.recipes import BackboneRecipe, Phase
from unison_audio.training.run import disk_type, save_weights
from unison_audio.training.trainer import BackboneTrainer, train_backbone

TARGETS = (
    "query_key_value",
    "query",
    "key_value",
    "output.attention",
    "mlp_in",
    "mlp_out",
    "out",
)
"""Ends of the names of the products inside blocks that are adapted."""


def add_adapters(backbone: UnisonBackbone, rank: int = 16, alpha: int | None = None) -> None:
    """Puts adapters beside the products of attention and MLP, in place; all else is frozen.

    Args:
        backbone: What is to be fine-tuned.
        rank: Of the adapters.
        alpha: Their scale is `alpha / rank`; twice the rank if None.

    Raises:
        InputError: If the rank is below 1, or peft is not installed.
    """
    if rank < 1:
        raise InputError(f"rank is {rank}; it must be at least 1")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise InputError("Adapters need peft; install it with: pip install peft") from error
    used = {name for name, p in backbone.named_parameters() if p.requires_grad}
    names = [
        name
        for name, module in backbone.blocks.named_modules()
        if isinstance(module, nn.Linear)
        and any(name.endswith(f".{target}") for target in TARGETS)
        and f"blocks.{name}.weight" in used
    ]
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        target_modules=[f"blocks.{name}" for name in names],
        bias="none",
    )
    backbone.requires_grad_(False)
    inject_adapter_in_model(config, backbone)


def merge_adapters(backbone: UnisonBackbone) -> None:
    """Adds the adapters into the weights they stand beside and takes them away, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [
        (name, module)
        for name, module in backbone.named_modules()
        if isinstance(module, BaseTunerLayer)
    ]
    for name, module in adapted:
        module.merge()
        _put(backbone, name, module.get_base_layer())


def _put(root: nn.Module, name: str, module: Any) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, module)


METHODS = ("lora", "full")

RATES = {"lora": 1e-3, "full": 1e-4}


def finetune(
    name_or_path: str,
    examples: Path,
    run: Path,
    *,
    method: str = "lora",
    rank: int = 16,
    steps: int = 200,
    learning_rate: float | None = None,
    items: int = 8,
    corpus: Path | None = None,
    own_share: float = 0.5,
    parallel: Parallel | None = None,
    dtype: str = "float32",
) -> Path:
    """Fine-tunes; the result, an ordinary checkpoint, is ``run/weights``.

    Args:
        name_or_path: What to begin with: a variant's name, a checkpoint's folder, or the hub's.
        examples: The list of own clips, see `read_own_clips`.
        run: Folder of the run; one that was cut off is gone on with.
        method: "lora", whose adapters are merged at the end, or "full".
        rank: Of the adapters.
        steps: In all.
        learning_rate: The highest; by default what suits the method.
        items: Clips in a batch, of the longest own clip's length.
        corpus: What ``unison-audio data`` wrote: its clips join the own ones, so that what was
            known is not forgotten and new sounds meet others.
        own_share: With a corpus, the share of the sounds that are own ones.
        parallel: The processes of the run; one if None.
        dtype: Type of the stored weights.

    Raises:
        InputError: If something cannot be used.
    """
    disk_type(dtype)
    if method not in METHODS:
        raise InputError(f"The method is {method!r}; use one of {', '.join(METHODS)}.")
    parallel = parallel or Parallel(cpu=True)
    parts = open_models(name_or_path, LoadOptions(device=parallel.device, low_memory=False))
    variant, codec = parts.variant, parts.codec.get()
    own = read_own_clips(examples, variant, codec.hop)
    clips, shares, weights = own.clips, own.tasks(), None
    if corpus is not None:
        others = read_corpus(corpus, variant.sample_rate, split="train")
        weights = _label_weights(own.clips, others, own_share)
        clips = own.clips + others
        known = {name: task.stage2_probability for name, task in TASKS.items()}
        shares = buildable_shares(known, clips, f"{examples} with {corpus}")
    seconds = (_longest(own, variant.default_seconds, variant.sample_rate),)
    recipe = BackboneRecipe(
        phases=(Phase(until_step=None, probabilities=shares, seconds={"": seconds}),),
        frames_per_batch=items * codec.frames(max(seconds)),
        batches_per_step=parallel.world,
        steps=steps,
        peak_lr=RATES[method] if learning_rate is None else learning_rate,
        warmup=max(1, steps // 20),
        cooldown=max(1, steps // 3),
        ema_decay=0.98,
        ema_every=1,
        first_template_probability=0.7,
        checkpoint_every=100,
        sample_every=steps + 1,
    )
    stream = OwnClipStream(
        own.pairs,
        variant,
        recipe,
        CorpusInMemory(clips, variant.sample_rate, weights),
        codec,
        parallel.share(parts.text_encoder.get()),
        device=parallel.device,
        rank=parallel.rank,
        world=parallel.world,
    )

    def make() -> UnisonBackbone:
        backbone = copy.deepcopy(parts.backbone.get()).float().train()
        if method == "lora":
            torch.manual_seed(recipe.seed)
            add_adapters(backbone, rank)
        return backbone

    tuned = train_backbone(BackboneTrainer(stream, parallel, make), run)
    if method == "lora":
        merge_adapters(tuned)
    if parallel.main:
        save_weights(run / "weights", variant, tuned, codec, dtype)
    parallel.wait()
    return run / "weights"


def _longest(own: OwnClips, least: float, sample_rate: int) -> float:
    """Seconds of the longest own clip, and at least what the variant makes by default."""
    lengths = [len(clip.waveform) for clip in own.clips] + [len(one.target) for one in own.pairs]
    return max(least, max(lengths) / sample_rate)


def _label_weights(own: list[Clip], others: list[Clip], share: float) -> dict[str, float]:
    """Weights of the labels that give own sounds together their share of the draws."""
    if not 0 < share < 1:
        raise InputError(f"The share of own sounds is {share}; give a number between 0 and 1.")
    mine = {label_of(clip.record) for clip in own if clip.record.kind == "sound"}
    rest = {label_of(clip.record) for clip in others if clip.record.kind == "sound"} - mine
    weights = {label: share / len(mine) for label in mine}
    return weights | {label: (1 - share if mine else 1.0) / len(rest) for label in rest}

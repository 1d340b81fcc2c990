"""Training a full-size variant from streamed corpora, as the paper does (section 4.1, Table 13)."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from unison_audio import checkpoint, checkpoint_files
from unison_audio.codecs.nano import NanoCodec
from unison_audio.codecs.table import AudioCodec, save_nano_codec
from unison_audio.data.stream_pools import open_pools
from unison_audio.errors import InputError
from unison_audio.loading import LoadOptions, open_frozen
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.training.batches import ExampleStream
from unison_audio.training.parallel import Parallel
from unison_audio.training.recipes import FULL_RECIPES, PAPER_ITEMS, BackboneRecipe
from unison_audio.training.trainer import BackboneTrainer, train_backbone
from unison_audio.training.validation import Validation
from unison_audio.variants import Variant, find_variant

PAIR_SHARE = 0.3
"""Zero-shot takes utterances of at least this share of the longest clip: 3 s of the paper's 10."""


def train_variant(
    name: str,
    corpora: Sequence[str | Path],
    run: Path,
    parallel: Parallel,
    *,
    recipe: str = "base",
    steps: int | None = None,
    items: int | None = None,
    accumulate: int = 1,
    gradient_checkpointing: bool = False,
    init: str | None = None,
    held_out: Sequence[str | Path] = (),
    system_prompt: str = "",
    codec_files: Path | None = None,
    text_files: Path | None = None,
    workers: int = 2,
    dtype: str = "float32",
) -> Path:
    """Trains a variant; the result is ``run/weights``. A run that was cut off is gone on with.

    Args:
        name: Of the variant.
        corpora: Folders or URLs of what ``unison-audio data`` wrote.
        run: The run's folder.
        parallel: The processes of the run.
        recipe: A key of `FULL_RECIPES`.
        steps: In all, if not the recipe's.
        items: Clips in a batch of one process, if not the paper's 56.
        accumulate: Batches of a process in a step.
        gradient_checkpointing: Whether blocks are computed again in the backward pass.
        init: Checkpoint that a fresh run starts from, such as the base model for long speech.
        held_out: Corpora whose loss is followed.
        system_prompt: Around every instruction, kept in the checkpoint.
        codec_files: Folder of the codec's own files; None for the cache, filled by download.
        text_files: Folder of the language model, likewise.
        workers: Processes that decode for each process.
        dtype: Type of the stored weights.

    Raises:
        InputError: If something cannot be used.
    """
    if recipe not in FULL_RECIPES:
        raise InputError(f"There is no recipe {recipe!r}; use one of {', '.join(FULL_RECIPES)}.")
    disk_type(dtype)
    variant = dataclasses.replace(find_variant(name), system_prompt=system_prompt)
    how = LoadOptions(
        device=parallel.device,
        low_memory=False,
        codec_files=codec_files,
        text_files=text_files,
    )
    codec, text_encoder = open_frozen(variant, how)
    plan = FULL_RECIPES[recipe](variant, codec.frames)
    plan = _changed(plan, steps, items, accumulate * parallel.world, gradient_checkpointing)
    longest = max(max(lengths) for lengths in plan.phases[-1].seconds.values())
    pools = open_pools(
        corpora,
        sample_rate=variant.sample_rate,
        max_seconds=longest,
        pair_seconds=PAIR_SHARE * longest,
        rank=parallel.rank,
        world=parallel.world,
        workers=workers,
        seed=plan.seed,
    )
    stream = ExampleStream(
        variant,
        plan,
        pools,
        codec,
        parallel.share(text_encoder),
        device=parallel.device,
        rank=parallel.rank,
        world=parallel.world,
    )
    trainer = BackboneTrainer(stream, parallel)
    if init is not None:
        trainer.start_from(checkpoint.load(checkpoint_files.resolve(init))[1])
    validation = None
    if held_out:
        others = open_pools(
            held_out,
            sample_rate=variant.sample_rate,
            max_seconds=longest,
            pair_seconds=PAIR_SHARE * longest,
            split="heldout",
        )
        validation = Validation(stream, others)
        others.close()
    try:
        backbone = train_backbone(trainer, run, validation=validation)
    finally:
        pools.close()
    if parallel.main:
        save_weights(run / "weights", variant, backbone, codec, dtype)
    parallel.wait()
    return run / "weights"


def _changed(
    recipe: BackboneRecipe,
    steps: int | None,
    items: int | None,
    batches: int,
    gradient_checkpointing: bool,
) -> BackboneRecipe:
    """The recipe with what the user wants otherwise."""
    frames = recipe.frames_per_batch
    return dataclasses.replace(
        recipe,
        steps=recipe.steps if steps is None else steps,
        frames_per_batch=frames if items is None else items * (frames // PAPER_ITEMS),
        batches_per_step=batches,
        gradient_checkpointing=gradient_checkpointing,
    )


def disk_type(name: str) -> torch.dtype:
    """The type of stored weights by its name.

    Raises:
        InputError: If weights are not stored so.
    """
    types = {str(each).removeprefix("torch."): each for each in checkpoint.DISK_TYPES}
    if name not in types:
        raise InputError(f"The weights' type is {name!r}; use one of {', '.join(types)}.")
    return types[name]


def save_weights(
    folder: Path, variant: Variant, backbone: UnisonBackbone, codec: AudioCodec, dtype: str
) -> None:
    """Writes an ordinary checkpoint, the codec included where it belongs to one.

    Raises:
        InputError: If the type is unknown or a weight is not finite in it.
    """
    checkpoint.save(folder, variant, backbone, dtype=disk_type(dtype))
    if isinstance(codec, NanoCodec):
        save_nano_codec(folder, codec)

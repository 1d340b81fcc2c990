"""Training a full-size variant from streamed corpora, as the paper does (section 4.1, Table 13)."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from unison_audio import checkpoint, checkpoint_files
from unison_audio.errors import InputError
from unison_audio.loading import LoadOptions, open_frozen
from unison_audio.training.configs import ModelFiles, RecipeChanges
from unison_audio.training.parallel import Parallel
from unison_audio.training.recipes import FULL_RECIPES, PAPER_ITEMS, BackboneRecipe
from unison_audio.training.run import ModelInit, RunConfig, RunData, RunOutput, run
from unison_audio.training.run_settings import corpus_hash
from unison_audio.variants import Variant, find_variant


def train_variant(
    name: str,
    data: RunData,
    output: RunOutput,
    parallel: Parallel,
    *,
    changes: RecipeChanges | None = None,
    files: ModelFiles | None = None,
    init: str | None = None,
    system_prompt: str = "",
) -> Path:
    """Trains a variant, or resumes its run.

    Args:
        name: Name of the variant.
        data: The corpora.
        output: Where the run goes.
        parallel: The processes of the run.
        changes: The recipe and what differs from it; None for the base recipe.
        files: Where the frozen models are; None for the cache, filled by download.
        init: Checkpoint that a fresh run starts from, such as the base model for long speech.
        system_prompt: Text around every instruction; the checkpoint stores it.

    Returns:
        Folder of the resulting checkpoint.

    Raises:
        InputError: If something cannot be used.
    """
    changes, files = changes or RecipeChanges(), files or ModelFiles()
    changes.check()
    if changes.recipe not in FULL_RECIPES:
        raise InputError(
            f"There is no recipe {changes.recipe!r}; use one of {', '.join(FULL_RECIPES)}."
        )
    variant = dataclasses.replace(find_variant(name), system_prompt=system_prompt)
    # Found now, so that a wrong name is refused before the language model is loaded.
    start = None if init is None else checkpoint_files.resolve(init)
    if start is not None:
        config = checkpoint_files.read_config(start / checkpoint_files.CONFIG_FILE)
        checkpoint.require_unquantized(config, str(start))
    how = LoadOptions(
        device=parallel.device,
        low_memory=False,
        codec_files=files.codec_files,
        text_files=files.text_files,
    )
    codec, text_encoder = open_frozen(variant, how)
    run(
        RunConfig(
            model=ModelInit(
                variant=variant,
                codec=codec,
                text_encoder=text_encoder,
                start=None if start is None else lambda: checkpoint.load(start)[1],
            ),
            data=data,
            recipe=_changed_recipe(changes, variant, codec.frames, parallel.world),
            output=output,
            parallel=parallel,
            settings={
                "variant": name,
                "corpora": [corpus_hash(each) for each in data.corpora],
                "init": None if start is None else checkpoint_files.content_hash(start),
                "recipe": changes.recipe,
                "items": changes.items,
                "accumulate": changes.accumulate,
                "system_prompt_file": system_prompt,
            },
        )
    )
    return output.weights


def _changed_recipe(
    changes: RecipeChanges, variant: Variant, frames: Callable[[float], int], processes: int
) -> BackboneRecipe:
    """A recipe with the user's changes.

    Args:
        changes: The recipe and the changes.
        variant: The variant to train.
        frames: Seconds -> latent frames.
        processes: Number of processes; each makes `changes.accumulate` batches of a step.
    """
    recipe = FULL_RECIPES[changes.recipe](variant, frames)
    # The recipe's batch is a number of latent frames that fits the paper's 56 clips of 10 s.
    per_item = recipe.frames_per_batch // PAPER_ITEMS
    return dataclasses.replace(
        recipe,
        steps=recipe.steps if changes.steps is None else changes.steps,
        frames_per_batch=(
            recipe.frames_per_batch if changes.items is None else changes.items * per_item
        ),
        batches_per_step=changes.accumulate * processes,
        gradient_checkpointing=changes.gradient_checkpointing,
    )

"""The commands that train, and the one that estimates what training needs."""

import dataclasses
from pathlib import Path

from cyclopts import App

from unison_audio.cli.options import Weights
from unison_audio.cli.train_ablations import train_ablations
from unison_audio.cli.train_flags import (
    Changes,
    CorporaFlags,
    DeviceFlags,
    Distilling,
    Estimating,
    Finetuning,
    FullSizeDeviceFlags,
    ModelFlags,
    Names,
    check_corpora,
)
from unison_audio.training.configs import (
    EstimateConfig,
    FinetuneConfig,
    ModelFiles,
    Precision,
    WeightsType,
    at_least_one,
    check_workers,
)
from unison_audio.variants import find_variant

train = App(name="train", help="Train a part of the model. Rerun the same command to resume.")
train.command(name="ablations")(train_ablations)


@train.command(name="nano-codec")
def train_nano_codec(
    *, corpus: Path, run: Path, init: Path | None = None, steps: int | None = None
) -> None:
    """Train the nano codec; the result is RUN/weights.

    Args:
        corpus: A prepared corpus; it is read into memory.
        run: The run's folder.
        init: A codec's folder that a fresh run starts from. The latents stay near those of that
            codec, so a backbone trained on them needs little more training.
        steps: Training steps; by default those of the recipe. The encoder is frozen for the same
            share of them.
    """
    # Here and in the commands below, bad input is refused first: importing torch takes seconds.
    from unison_audio.checkpoint_files import require_codec
    from unison_audio.data.shards import find_corpora
    from unison_audio.files import check_folder

    at_least_one(steps=steps)
    check_folder(run)
    find_corpora([corpus], split="train")
    if init is not None:
        require_codec(init)
    from unison_audio.nano import recipe as nano_recipe

    recipe = nano_recipe.NANO_CODEC
    if steps is not None:
        share = recipe.encoder_until / recipe.steps
        recipe = dataclasses.replace(recipe, steps=steps, encoder_until=round(share * steps))
    weights = nano_recipe.train_nano_codec(corpus, run, init=init, recipe=recipe)
    print(f"The weights are in {weights}.")


@train.command(name="nano")
def train_nano(
    *,
    corpus: Path,
    run: Path,
    codec: Path,
    init: Path | None = None,
    steps: int | None = None,
    workers: int = 1,
    mixed_precision: Precision | None = None,
    dtype: WeightsType = "float16",
) -> None:
    """Train the nano backbone; the result, with the codec, is RUN/weights.

    Args:
        corpus: A prepared corpus; it is read into memory.
        run: The run's folder.
        codec: The codec's folder: the weights of 'unison-audio train nano-codec'.
        init: A checkpoint's folder whose weights a fresh run starts from.
        steps: Training steps; by default those of the recipe.
        workers: Processes that make batches ahead; 0 makes them in between.
        mixed_precision: Type of the matrix products; by default bf16 if the processor has
            instructions for it.
        dtype: Type of the stored weights: float16, bfloat16 or float32.
    """
    from unison_audio.checkpoint_files import open_checkpoint, require_codec
    from unison_audio.data.shards import find_corpora
    from unison_audio.files import check_folder

    at_least_one(steps=steps)
    check_workers(workers)
    check_folder(run)
    find_corpora([corpus], split="train")
    require_codec(codec)
    if init is not None:
        open_checkpoint(init)
    from unison_audio.nano import recipe as nano_recipe
    from unison_audio.training.run import RunOutput

    recipe = nano_recipe.NANO
    if steps is not None:
        recipe = dataclasses.replace(recipe, steps=steps)
    weights = nano_recipe.train_nano(
        corpus,
        RunOutput(folder=run, dtype=dtype),
        codec=codec,
        init=init,
        recipe=recipe,
        workers=workers,
        mixed_precision=mixed_precision,
    )
    print(f"The weights are in {weights}.")


@train.command(name="backbone")
def train_backbone(
    *,
    variant: str,
    data: CorporaFlags,
    run: Path,
    changes: Changes = None,
    model: ModelFlags | None = None,
    devices: FullSizeDeviceFlags | None = None,
    trackers: Names = None,
    dtype: WeightsType = "float32",
) -> None:
    """Train a full-size variant as in the paper; the result is RUN/weights.

    For several devices or machines, put 'accelerate launch --no_python' before the command. Rerun
    the same command to resume, also with another number of processes.

    Args:
        variant: A full-size variant, as listed by 'unison-audio variants'.
        data: What to train on; each option has its own flag.
        run: The run's folder.
        changes: The recipe and what differs from it; each option has its own flag.
        model: What to start from, and the frozen models; each option has its own flag.
        devices: Where to train; each option has its own flag.
        trackers: tensorboard, wandb.
        dtype: Type of the stored weights: float32, bfloat16 or float16.
    """
    from unison_audio.checkpoint_files import resolve
    from unison_audio.files import check_folder, require_folders
    from unison_audio.release_files import read_prompt
    from unison_audio.variants import find_variant

    devices, model = devices or FullSizeDeviceFlags(), model or ModelFlags()
    find_variant(variant)
    if changes is not None:
        changes.check()
    check_workers(data.workers)
    check_folder(run)
    check_corpora(data.corpora, "train")
    check_corpora(data.held_out or (), "heldout")
    require_folders(model.codec_files, model.text_files)
    prompt_file = model.system_prompt_file
    prompt = "" if prompt_file is None else read_prompt(prompt_file)
    if model.init is not None:
        resolve(model.init)
    from unison_audio.training.full_size import train_variant
    from unison_audio.training.parallel import Parallel
    from unison_audio.training.run import RunData, RunOutput

    parallel = Parallel(
        devices.strategy,
        mixed_precision=devices.mixed_precision,
        cpu=devices.cpu,
        trackers=trackers or (),
        folder=str(run),
    )
    weights = train_variant(
        variant,
        RunData(corpora=data.corpora, held_out=data.held_out or (), workers=data.workers),
        RunOutput(folder=run, dtype=dtype),
        parallel,
        changes=changes,
        files=ModelFiles(codec_files=model.codec_files, text_files=model.text_files),
        init=model.init,
        system_prompt=prompt,
    )
    if parallel.main:
        print(f"The weights are in {weights}.")


@train.command(name="distill")
def train_distill(
    variant: str = "nano",
    /,
    *,
    corpus: Path,
    run: Path,
    config: Distilling = None,
    devices: DeviceFlags | None = None,
    mixed_precision: Precision = "no",
    workers: int = 1,
    dtype: WeightsType = "float32",
) -> None:
    """Distill a copy that needs only a few steps and no guidance; the result is RUN/weights.

    Args:
        variant: The teacher: a variant's name, a checkpoint's folder, or owner/name on the hub.
        corpus: A prepared corpus; it is read into memory.
        run: The run's folder; rerun the same command to resume.
        config: How to distill; each option has its own flag.
        devices: Where to train; each option has its own flag.
        mixed_precision: Type of the matrix products; weights stay in float32.
        workers: Processes that make batches ahead; 0 makes them in between.
        dtype: Type of the stored weights: float32, bfloat16 or float16.
    """
    from unison_audio.checkpoint_files import open_checkpoint
    from unison_audio.data.shards import find_corpora
    from unison_audio.files import check_folder

    if config is not None:
        config.check()
    check_workers(workers)
    check_folder(run)
    open_checkpoint(variant)
    find_corpora([corpus], split="train")
    from unison_audio.training.distill import distill
    from unison_audio.training.parallel import Parallel
    from unison_audio.training.run import RunOutput

    devices = devices or DeviceFlags()
    parallel = Parallel(
        devices.strategy, mixed_precision=mixed_precision, cpu=devices.cpu, folder=str(run)
    )
    weights = distill(
        variant,
        corpus,
        RunOutput(folder=run, dtype=dtype),
        config=config,
        parallel=parallel,
        workers=workers,
    )
    if parallel.main:
        print(f"The weights are in {weights}.")


def finetune(
    examples: Path,
    /,
    *,
    run: Path,
    variant: Weights = "nano",
    config: Finetuning = None,
    devices: DeviceFlags | None = None,
    dtype: WeightsType = "float32",
) -> None:
    """Fine-tune a checkpoint on your own clips; the result is RUN/weights.

    Each line of EXAMPLES is a JSON object with "audio" and one of these: "caption" or "label" (a
    sound), "text" with "gender" (speech), or "instruction" and, for edits, "source" (a result that
    is used as it is).

    Args:
        examples: The list, EXAMPLES.jsonl; paths in it are relative to its folder.
        run: The run's folder; rerun the same command to resume.
        variant: What to start from: a variant's name, a checkpoint's folder, or owner/name on the
            hub.
        config: How to fine-tune; each option has its own flag.
        devices: Where to train; each option has its own flag.
        dtype: Type of the stored weights: float32, bfloat16 or float16.
    """
    from unison_audio.checkpoint_files import open_checkpoint
    from unison_audio.data.shards import find_corpora
    from unison_audio.files import check_folder
    from unison_audio.training.clip_rows import check_list

    config = config or FinetuneConfig()
    config.check()
    check_folder(run)
    check_list(examples, open_checkpoint(variant).variant)
    if config.corpus is not None:
        find_corpora([config.corpus], split="train")
    from unison_audio.training.finetune import finetune as run_finetune
    from unison_audio.training.parallel import Parallel
    from unison_audio.training.run import RunOutput

    devices = devices or DeviceFlags()
    parallel = Parallel(devices.strategy, cpu=devices.cpu)
    weights = run_finetune(
        variant,
        examples,
        RunOutput(folder=run, dtype=dtype),
        config=config,
        parallel=parallel,
    )
    if parallel.main:
        print(f"The weights are in {weights}.")


def plan(*, variant: str, measure: bool = False, config: Estimating = None) -> None:
    """Estimate what a training run needs: parameters, memory by part, work, days.

    Args:
        variant: A variant, as listed by 'unison-audio variants'.
        measure: Measure the throughput of this machine instead.
        config: The run; each option has its own flag.
    """
    found, config = find_variant(variant), config or EstimateConfig()
    config.check()  # before torch is imported

    import torch

    from unison_audio.cli.listings import estimate_table
    from unison_audio.training.estimate import estimate_training, measure_tflops

    if measure:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        throughput = measure_tflops(found, device, seconds=config.seconds)
        config = dataclasses.replace(config, throughput=throughput)
    made = estimate_training(found, config)
    print(estimate_table(made, config.throughput, config.steps))

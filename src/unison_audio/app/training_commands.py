"""The commands that train, and the one that estimates what training takes."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from unison_audio.app.ablation_command import train_ablations
from unison_audio.errors import InputError

train = App(name="train", help="Train a part of the model; a run that was cut off is gone on with.")
train.command(name="ablations")(train_ablations)
Weights = Annotated[str, Parameter(name=["--variant"])]


@train.command(name="nano-codec")
def train_nano_codec(
    *, corpus: Path, run: Path, init: Path | None = None, steps: int | None = None
) -> None:
    """Train the nano codec; the result is RUN/weights.

    Args:
        corpus: What 'unison-audio data' wrote; it is read into memory.
        run: The run's folder.
        init: A codec's folder that a fresh run begins with. Latents stay near those of that codec,
            so that a backbone trained on them needs little more training for the new one.
        steps: Steps in all, if not the recipe's; the encoder stands still in as great a part of
            them.
    """
    import dataclasses

    from unison_audio.training import recipes

    recipe = recipes.NANO_CODEC
    if steps is not None:
        share = recipe.encoder_until / recipe.steps
        recipe = dataclasses.replace(
            recipe, steps=_at_least_one("steps", steps), encoder_until=round(share * steps)
        )
    weights = recipes.train_nano_codec(corpus, run, init=init, recipe=recipe)
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
    mixed_precision: Literal["bf16", "no"] | None = None,
    dtype: str = "float16",
) -> None:
    """Train the nano backbone; the result, codec included, is RUN/weights.

    Args:
        corpus: What 'unison-audio data' wrote; it is read into memory.
        run: The run's folder.
        codec: The codec's folder, the weights of 'unison-audio train nano-codec'.
        init: A checkpoint's folder whose weights a fresh run starts from.
        steps: Steps in all, if not the recipe's.
        workers: Processes that make batches ahead; 0 makes them in between.
        mixed_precision: Type of the products; by default bf16 where the processor has instructions
            for it.
        dtype: Type of the stored weights, float16 or float32.
    """
    import dataclasses

    from unison_audio.training import recipes

    recipe = recipes.NANO
    if steps is not None:
        recipe = dataclasses.replace(recipe, steps=_at_least_one("steps", steps))
    weights = recipes.train_nano(
        corpus,
        run,
        codec=codec,
        init=init,
        recipe=recipe,
        workers=workers,
        mixed_precision=mixed_precision,
        dtype=dtype,
    )
    print(f"The weights are in {weights}.")


@train.command(name="backbone")
def train_backbone(
    *,
    variant: str,
    corpora: Annotated[list[str], Parameter(consume_multiple=True)],
    run: Path,
    recipe: str = "base",
    steps: int | None = None,
    items: int | None = None,
    accumulate: int = 1,
    strategy: Literal["ddp", "fsdp"] = "ddp",
    mixed_precision: Literal["bf16", "no"] = "bf16",
    gradient_checkpointing: bool = False,
    init: str | None = None,
    held_out: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    system_prompt_file: Path | None = None,
    codec_files: Path | None = None,
    text_files: Path | None = None,
    trackers: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    workers: int = 2,
    cpu: bool = False,
    dtype: str = "float32",
) -> None:
    """Train a full-size variant as the paper does; the result is RUN/weights.

    On several devices or machines put 'accelerate launch --no_python' before the command. A run
    that was cut off is gone on with, also by another number of processes.

    Args:
        variant: One of those that 'unison-audio variants' lists.
        corpora: Folders or addresses of what 'unison-audio data' wrote.
        run: The run's folder.
        recipe: base, clips of 10 s; or long-speech, which goes on from a base model (--init) to 22
            s.
        steps: Steps in all, if not the recipe's.
        items: Clips of 10 s in a batch of one device, if not the paper's 56.
        accumulate: Batches of a device in a step.
        strategy: ddp copies the backbone to every device, fsdp cuts it in pieces.
        mixed_precision: Type of the products; weights stay in float32.
        gradient_checkpointing: Compute blocks again in the backward pass instead of remembering
            them.
        init: A checkpoint's folder, or owner/name on the hub, that a fresh run starts from.
        held_out: Corpora whose loss is followed.
        system_prompt_file: A text file with a system prompt for the language model.
        codec_files: Folder of the codec's own files, if they are not to be downloaded.
        text_files: Folder of the language model, if it is not to be downloaded.
        trackers: tensorboard, wandb.
        workers: Processes that decode, for each device.
        cpu: Stay on the CPU where there is a GPU.
        dtype: Type of the stored weights: float32, bfloat16 or float16.
    """
    from unison_audio.release import read_prompt
    from unison_audio.training.full import train_variant
    from unison_audio.training.parallel import Parallel

    parallel = Parallel(
        strategy,
        mixed_precision=mixed_precision,
        cpu=cpu,
        trackers=trackers or (),
        folder=str(run),
    )
    weights = train_variant(
        variant,
        corpora,
        run,
        parallel,
        recipe=recipe,
        steps=None if steps is None else _at_least_one("steps", steps),
        items=None if items is None else _at_least_one("items", items),
        accumulate=_at_least_one("accumulate", accumulate),
        gradient_checkpointing=gradient_checkpointing,
        init=init,
        held_out=held_out or (),
        system_prompt="" if system_prompt_file is None else read_prompt(system_prompt_file),
        codec_files=codec_files,
        text_files=text_files,
        workers=workers,
        dtype=dtype,
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
    steps: int = 4,
    substeps: int = 4,
    updates: int = 2000,
    learning_rate: float = 2e-4,
    strategy: Literal["ddp", "fsdp"] = "ddp",
    mixed_precision: Literal["bf16", "no"] = "no",
    workers: int = 1,
    cpu: bool = False,
    dtype: str = "float32",
) -> None:
    """Teach a copy to need only a few steps and no guidance; the result is RUN/weights.

    Args:
        variant: The teacher: a variant's name, a checkpoint's folder, or owner/name on the hub.
        corpus: What 'unison-audio data' wrote.
        run: The run's folder; one that was cut off is gone on with.
        steps: Steps that the copy takes from noise to sound.
        substeps: Steps of the teacher for each of these.
        updates: Steps of training.
        learning_rate: The highest.
        strategy: With several processes: ddp copies the backbone, fsdp cuts it in pieces.
        mixed_precision: Type of the products; weights stay in float32.
        workers: Processes that make batches ahead; 0 makes them in between.
        cpu: Stay on the CPU where there is a GPU.
        dtype: Type of the stored weights: float32, bfloat16 or float16.
    """
    from unison_audio.training.distillation import distill
    from unison_audio.training.parallel import Parallel

    parallel = Parallel(strategy, mixed_precision=mixed_precision, cpu=cpu, folder=str(run))
    weights = distill(
        variant,
        corpus,
        run,
        steps=steps,
        substeps=substeps,
        updates=updates,
        learning_rate=learning_rate,
        parallel=parallel,
        workers=workers,
        dtype=dtype,
    )
    if parallel.main:
        print(f"The weights are in {weights}.")


def finetune(
    examples: Path,
    /,
    *,
    run: Path,
    variant: Weights = "nano",
    method: Literal["lora", "full"] = "lora",
    rank: int = 16,
    steps: int = 200,
    learning_rate: float | None = None,
    items: int = 8,
    corpus: Path | None = None,
    own_share: float = 0.5,
    strategy: Literal["ddp", "fsdp"] = "ddp",
    cpu: bool = False,
    dtype: str = "float32",
) -> None:
    """Fine-tune a checkpoint on your own clips; the result is RUN/weights.

    Each line of EXAMPLES is a JSON object with "audio" and one of: "caption" or "label" (a sound),
    "text" with "gender" (speech), "instruction" with, for edits, "source" (a result as it is to
    be).

    Args:
        examples: The list, EXAMPLES.jsonl; paths in it are relative to its folder.
        run: The run's folder; one that was cut off is gone on with.
        variant: What to begin with: a variant's name, a checkpoint's folder, or owner/name on the
            hub.
        method: lora trains small matrices beside the others and adds them in at the end; full
            trains all.
        rank: Of lora's matrices.
        steps: Steps in all.
        learning_rate: The highest; by default what suits the method.
        items: Clips in a batch.
        corpus: What 'unison-audio data' wrote, to learn the new beside the known.
        own_share: With a corpus, the share of the sounds that are your own.
        strategy: With several processes: ddp copies the backbone, fsdp cuts it in pieces.
        cpu: Stay on the CPU where there is a GPU.
        dtype: Type of the stored weights: float32, bfloat16 or float16.
    """
    from unison_audio.training.finetune import finetune as run_finetune
    from unison_audio.training.parallel import Parallel

    weights = run_finetune(
        variant,
        examples,
        run,
        method=method,
        rank=rank,
        steps=_at_least_one("steps", steps),
        learning_rate=learning_rate,
        items=_at_least_one("items", items),
        corpus=corpus,
        own_share=own_share,
        parallel=Parallel(strategy, cpu=cpu),
        dtype=dtype,
    )
    print(f"The weights are in {weights}.")


def plan(
    *,
    variant: str,
    gpus: int = 8,
    batch: int = 56,
    seconds: float = 10.0,
    steps: int = 300_000,
    throughput: float = 150.0,
    measure: bool = False,
    strategy: Literal["ddp", "fsdp"] = "ddp",
    mixed_precision: Literal["bf16", "no"] = "bf16",
    gradient_checkpointing: bool = False,
    accumulate: int = 1,
) -> None:
    """Say what a training run takes: parameters, memory by part, work, days.

    Args:
        variant: One of those that 'unison-audio variants' lists.
        gpus: Devices.
        batch: Items on a device at a time.
        seconds: Length of the clips.
        steps: Of the run. The paper gives 150,000 for its first stage, and no number in all.
        throughput: What a device reaches, in 10^12 operations a second.
        measure: Measure that on this machine instead.
        strategy: ddp copies the backbone to every device, fsdp cuts it in pieces.
        mixed_precision: Type of the products.
        gradient_checkpointing: Compute blocks again in the backward pass instead of remembering
            them.
        accumulate: Batches of a device in a step.
    """
    from unison_audio.variants import find_variant

    found = find_variant(variant)  # before torch is imported

    import torch

    from unison_audio.app.tables import plan_table
    from unison_audio.training.plan import measure_tflops, plan_training

    if measure:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        throughput = measure_tflops(found, device, seconds=seconds)
    made = plan_training(
        found,
        devices=gpus,
        batch=batch,
        seconds=seconds,
        steps=steps,
        tflops=throughput,
        strategy=strategy,
        mixed_precision=mixed_precision,
        gradient_checkpointing=gradient_checkpointing,
        accumulate=accumulate,
    )
    print(plan_table(made, throughput, steps))


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise InputError(f"{name} is {value}; it must be at least 1.")
    return value

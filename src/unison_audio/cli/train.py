"""The commands that train, and the one that estimates what training takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from unison_audio.errors import InputError

if TYPE_CHECKING:
    from unison_audio.evaluation.systems import ModelChoice
    from unison_audio.training.ablations import Judge

SETS, METRICS = ("audiocaps", "seed-tts"), ("fd", "clap", "wer")
"""What Table 8 is made of."""


def train_ablations(
    *,
    out: Path,
    recipe: Literal["nano", "base"] = "nano",
    steps: int | None = None,
    variants: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    corpus: Path | None = None,
    codec: Path | None = None,
    frames: int | None = None,
    batches: int = 4,
    judged: bool = False,
    corpora: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    data: Path | None = None,
    items: int | None = None,
    accumulate: int = 1,
    strategy: Literal["ddp", "fsdp"] = "ddp",
    mixed_precision: Literal["bf16", "no"] = "bf16",
    gradient_checkpointing: bool = False,
    codec_files: Path | None = None,
    text_files: Path | None = None,
    workers: int = 0,
    cpu: bool = False,
) -> None:
    """Train the ablations of the paper's Table 8 for equal steps and print the table.

    With the recipe nano they are nano's counterparts, compared by the error on held-out clips; with
    base the paper's. A run that was cut off is gone on with.

    Args:
        out: A folder with one run for each variant, and the table.
        recipe: nano, or base: the paper's full size.
        steps: Of each variant; by default 2,000 of nano's, the paper's 80,000 of the full size.
        variants: Which; by default all: nano-O, nano-L, nano-OL, nano-S, nano-O-3of6, or D24-O,
            D24-L, D24-OL, S32-O, D24-O-3B.
        corpus: nano: what 'unison-audio data' wrote; --judged needs nano's own corpus.
        codec: nano: the codec's folder.
        frames: nano: latent frames in a batch, if not nano's 960.
        batches: nano: held-out batches of each task.
        judged: nano: generate as well, and let the offline judges fill Table 8.
        corpora: base: folders or addresses of what 'unison-audio data' wrote.
        data: base: AudioCaps test and Seed-TTS as published, to fill Table 8.
        items: base: clips of 10 s in a batch of one device, if not the paper's 56.
        accumulate: base: batches of a device in a step.
        strategy: base: ddp copies the backbone to every device, fsdp cuts it in pieces.
        mixed_precision: base: type of the products.
        gradient_checkpointing: base: compute blocks again in the backward pass instead of
            remembering them.
        codec_files: base: folder of the codec's own files, if they are not to be downloaded.
        text_files: base: folder with a language model's files for all chosen variants, if they are
            not to be downloaded; the 3B variant has another one than the rest.
        workers: Processes that make or decode batches ahead.
        cpu: base: stay on the CPU where there is a GPU.
    """
    from unison_audio.training import ablations

    if steps is not None:
        _at_least("steps", steps, 1)
    if recipe == "nano":
        if corpus is None or codec is None:
            raise InputError("Nano's ablations need a corpus and a codec; give --corpus, --codec.")
        _at_least("batches", batches, 2)  # of one there is no interval
        plan = ablations.nano_recipe(
            2000 if steps is None else steps,
            *(() if frames is None else (_at_least("frames", frames, 1),)),
        )
        rows = ablations.train_nano_ablations(
            corpus,
            codec,
            out,
            recipe=plan,
            names=variants,
            batches=batches,
            workers=workers,
            judge=_nano_judge(corpus) if judged else None,
        )
        _report(out, rows, paper=False)
        return
    if not corpora:
        raise InputError("The paper's ablations need corpora; give --corpora.")
    from unison_audio.training.parallel import Parallel

    parallel = Parallel(strategy, mixed_precision=mixed_precision, cpu=cpu, folder=str(out))
    how: dict[str, Any] = {"codec_files": codec_files, "text_files": text_files}
    rows = ablations.train_full_ablations(
        corpora,
        out,
        parallel,
        recipe=recipe,
        steps=ablations.PAPER_STEPS if steps is None else steps,
        names=variants,
        judge=None if data is None else _paper_judge(data, str(parallel.device), how),
        items=None if items is None else _at_least("items", items, 1),
        accumulate=_at_least("accumulate", accumulate, 1),
        gradient_checkpointing=gradient_checkpointing,
        workers=workers,
        **how,
    )
    if parallel.main:
        _report(out, rows, paper=True)


def _nano_judge(corpus: Path) -> "Judge":
    """Nano's test sets and the judges that come with packages."""

    def judge(name: str, weights: Path, out: Path) -> list[dict[str, Any]]:
        from unison_audio.evaluation.suite import EvaluationConfig
        from unison_audio.nano.evaluation import evaluate_nano

        config = EvaluationConfig(choice=_choice(weights), out=out, **_wanted())
        return _of_table(evaluate_nano(config, corpus, tables="sets")["rows"])

    return judge


def _paper_judge(data: Path, device: str, how: Mapping[str, Path | None]) -> "Judge":
    """The paper's test sets, of Seed-TTS the English part, and its judges."""
    files = {name: None if path is None else str(path) for name, path in how.items()}

    def judge(name: str, weights: Path, out: Path) -> list[dict[str, Any]]:
        from unison_audio.evaluation.suite import EvaluationConfig, MetricOptions, evaluate_paper

        config = EvaluationConfig(
            choice=_choice(weights, device=device, **files),
            out=out,
            counts={"seed-tts-zh": 0},
            metric_options=MetricOptions(device=device),
            **_wanted(),
        )
        rows = evaluate_paper(config, data)
        return _of_table(rows)

    return judge


def _choice(weights: Path, **how: Any) -> "ModelChoice":
    from unison_audio.evaluation.systems import ModelChoice

    return ModelChoice(model=str(weights), **how)


def _wanted() -> dict[str, Any]:
    return {"sets": SETS, "systems": ("unison",), "metrics": METRICS}


def _of_table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures that Table 8 has: of sound, and of plain speech in English."""
    return [
        row
        for row in rows
        if row["task"] == "t2a" or (row["task"] == "tts" and row["language"] == "en")
    ]


def _report(out: Path, rows: Sequence[dict[str, Any]], *, paper: bool) -> None:
    """Print the tables and write them, with the rows they are made of."""
    import json

    from unison_audio.evaluation.report.layouts import ABLATIONS
    from unison_audio.evaluation.report.render import table_markdown
    from unison_audio.evaluation.report.tables import fill_tables
    from unison_audio.training.ablations import error_table

    judged = [row for row in rows if row["set"] in SETS]
    texts = [error_table(rows)] if any(row["set"] not in SETS for row in rows) else []
    if judged:
        tables = fill_tables([], ablations=judged, paper=paper)
        texts += [table_markdown(table) for table in tables if table.number == ABLATIONS]
    text = "\n".join(texts)
    (out / "ablations.md").write_text(text, "utf-8")
    results = json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n"
    (out / "results.json").write_text(results, "utf-8")
    print(text or f"The weights are in {out}.")


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise InputError(f"{name} is {value}; it must be at least {least}.")
    return value


train = App(name="train", help="Train a part of the model; a run that was cut off is gone on with.")

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

    from unison_audio.nano import recipe as nano_recipe

    recipe = nano_recipe.NANO_CODEC
    if steps is not None:
        share = recipe.encoder_until / recipe.steps
        recipe = dataclasses.replace(
            recipe, steps=_at_least_one("steps", steps), encoder_until=round(share * steps)
        )
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

    from unison_audio.nano import recipe as nano_recipe

    recipe = nano_recipe.NANO
    if steps is not None:
        recipe = dataclasses.replace(recipe, steps=_at_least_one("steps", steps))
    weights = nano_recipe.train_nano(
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
    from unison_audio.training.parallel import Parallel
    from unison_audio.training.run import train_variant

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
    from unison_audio.training.distill import distill
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

    from unison_audio.cli.listings import plan_table
    from unison_audio.training.estimate import measure_tflops, plan_training

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


train.command(name="ablations")(train_ablations)

"""The command line: thin commands over the library, loaded when they are run.

Mistakes that the caller can mend end with one sentence on stderr and exit code 2.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from unison_audio.app.options import MachineFlags, SamplingFlags
from unison_audio.errors import InputError

MENDABLE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
"""Exit codes."""


def _version() -> str:
    from unison_audio import __version__

    return __version__


app = App(
    name="unison-audio",
    help="Generate and edit speech and sound from plain instructions.",
    version=_version,
)
train = App(name="train", help="Train a part of the model; a run that was cut off is gone on with.")
data = App(name="data", help="Build a training corpus.")
evaluate = App(name="evaluate", help="Measure a model on held-out items.")
for group in (train, data, evaluate):
    app.command(group)

Output = Annotated[Path, Parameter(name=["--output", "-o"])]
Weights = Annotated[str, Parameter(name=["--variant"])]


@app.command
def generate(
    instruction: str,
    /,
    *,
    output: Output,
    source: Path | None = None,
    reference: Path | None = None,
    reference_text: str | None = None,
    duration: float | None = None,
    seed: int = 0,
    variant: Weights = "nano",
    sampling: SamplingFlags | None = None,
    machine: MachineFlags | None = None,
) -> None:
    """Do what an instruction says and write a sound file.

    Parameters
    ----------
    instruction
        What is to be heard, with the tags that 'unison-audio tasks' lists.
    output
        The file to write: wav, flac, ogg or mp3.
    source
        The recording to edit.
    reference
        The recording whose voice is to speak.
    reference_text
        The words of the reference.
    duration
        Seconds of the result; by default as the source, or what the variant is at its best with.
    seed
        The same seed gives the same sound.
    variant
        A variant's name, a checkpoint's folder, or owner/name on the hub.
    """
    from unison_audio.app.files import check_sound_file
    from unison_audio.app.progress import progress

    check_sound_file(output)
    unison = (machine or MachineFlags()).open(variant)
    with progress() as show:
        sound = unison.generate(
            instruction,
            source=source,
            reference=reference,
            reference_text=reference_text,
            duration=duration,
            seed=seed,
            on_step=partial(show, "Sampling"),
            **(sampling or SamplingFlags()).options(),
        )
    sound.save(output)


@app.command
def batch(
    jobs: Path,
    /,
    *,
    output: Output,
    variant: Weights = "nano",
    machine: MachineFlags | None = None,
) -> int:
    """Run many jobs, one JSON object a line.

    Keys: instruction, source, reference, reference_text, duration, preset, steps, solver, guidance,
    guidance_interval, guidance_rescale, seed, output.
    Only the instruction is required. Paths are relative to the jobs file. All lines are checked
    before the first is run. What is complete is not run again.

    Parameters
    ----------
    jobs
        The file, JOBS.jsonl.
    output
        The folder to write to; results.jsonl in it lists what was done.
    variant
        A variant's name, a checkpoint's folder, or owner/name on the hub.
    """
    from unison_audio.app.files import make_folder
    from unison_audio.app.jobs import read_jobs, run_jobs
    from unison_audio.app.progress import progress

    if not jobs.is_file():
        raise InputError(f"There is no file {jobs}; check the path.")
    unison = (machine or MachineFlags()).open(variant)
    checked = read_jobs(jobs, unison)
    make_folder(output)
    with progress() as show:
        failed = run_jobs(unison, checked, output, variant, partial(show, "Jobs"))
    if failed:
        raise InputError(f"{failed} of {len(checked)} jobs failed; see {output / 'results.jsonl'}.")
    return 0


@app.command
def tasks() -> None:
    """List the tasks: how to ask for them, what they take, how often they are trained."""
    from unison_audio.app.tables import tasks_table

    print(tasks_table())


@app.command
def variants() -> None:
    """List the variants: size, codec, text encoder, rates."""
    from unison_audio.app.tables import variants_table

    print(variants_table())


@app.command
def demo(
    *,
    output: Output = Path("demo"),
    variant: Weights = "nano",
    sampling: SamplingFlags | None = None,
    machine: MachineFlags | None = None,
) -> None:
    """Make one example of every task, with pictures and a page that plays them all.

    Parameters
    ----------
    output
        The folder to write to.
    variant
        A variant's name, a checkpoint's folder, or owner/name on the hub.
    """
    from unison_audio.app.demo import make_demo
    from unison_audio.app.progress import progress

    print("Loading the model", file=sys.stderr, flush=True)
    unison = (machine or MachineFlags()).open(variant)
    with progress(always=True) as show:
        page = make_demo(
            unison,
            output,
            on_step=partial(show, "Sampling"),
            on_picture=partial(show, "Pictures"),
            **(sampling or SamplingFlags()).options(),
        )
    print(f"The page is {page.resolve()}: open it in a browser.")


@app.command(name="import-release")
def import_release(
    weights: str,
    /,
    *,
    variant: Annotated[str, Parameter(name=["--variant"])],
    output: Output,
    system_prompt_file: Path | None = None,
    dtype: str = "float32",
) -> None:
    """Make a checkpoint of weights in the UNISON release's layout.

    Parameters
    ----------
    weights
        A .safetensors file, a .pt or .pth file (also one with moving averages inside), or
        owner/name on the hub, such as jac22/UNISON.
    variant
        What the weights are of: one of those that 'unison-audio variants' lists.
    output
        The checkpoint's folder.
    system_prompt_file
        A text file with the system prompt that the weights were trained with.
    dtype
        Type of the stored weights: float32, bfloat16 or float16.
    """
    from unison_audio.release import import_release

    found = import_release(
        weights, variant, output, system_prompt_file=system_prompt_file, dtype=dtype
    )
    if not found.system_prompt:
        print(
            "unison-audio: note: no system prompt was given; the released weights were trained "
            "with one, see docs/full-size.md.",
            file=sys.stderr,
        )
    print(f"The checkpoint is in {output}.")


@train.command(name="nano-codec")
def train_nano_codec(*, corpus: Path, run: Path, steps: int | None = None) -> None:
    """Train the nano codec; the result is RUN/weights.

    Parameters
    ----------
    corpus
        What 'unison-audio data nano' wrote.
    run
        The run's folder.
    steps
        Steps in all, if not the recipe's.
    """
    import dataclasses

    from unison_audio.training import recipes

    recipe = recipes.NANO_CODEC
    if steps is not None:
        recipe = dataclasses.replace(recipe, steps=_at_least_one("steps", steps))
    print(f"The weights are in {recipes.train_nano_codec(corpus, run, recipe=recipe)}.")


@train.command(name="nano")
def train_nano(
    *,
    corpus: Path,
    run: Path,
    codec: Path,
    init: Path | None = None,
    steps: int | None = None,
    workers: int = 1,
    dtype: str = "float16",
) -> None:
    """Train the nano backbone; the result, codec included, is RUN/weights.

    Parameters
    ----------
    corpus
        What 'unison-audio data nano' wrote.
    run
        The run's folder.
    codec
        The codec's folder, the weights of 'unison-audio train nano-codec'.
    init
        A checkpoint's folder whose weights a fresh run starts from.
    steps
        Steps in all, if not the recipe's.
    workers
        Processes that make batches ahead; 0 makes them in between.
    dtype
        Type of the stored weights, float16 or float32.
    """
    import dataclasses

    from unison_audio.training import recipes

    recipe = recipes.NANO
    if steps is not None:
        recipe = dataclasses.replace(recipe, steps=_at_least_one("steps", steps))
    weights = recipes.train_nano(
        corpus, run, codec=codec, init=init, recipe=recipe, workers=workers, dtype=dtype
    )
    print(f"The weights are in {weights}.")


@app.command
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

    Parameters
    ----------

    Examples:
        The list, EXAMPLES.jsonl; paths in it are relative to its folder.
    run
        The run's folder; one that was cut off is gone on with.
    variant
        What to begin with: a variant's name, a checkpoint's folder, or owner/name on the hub.
    method
        lora trains small matrices beside the others and adds them in at the end; full trains all.
    rank
        Of lora's matrices.
    steps
        Steps in all.
    learning_rate
        The highest; by default what suits the method.
    items
        Clips in a batch.
    corpus
        What 'unison-audio data' wrote, to learn the new beside the known.
    own_share
        With a corpus, the share of the sounds that are your own.
    strategy
        With several processes: ddp copies the backbone, fsdp cuts it in pieces.
    cpu
        Stay on the CPU where there is a GPU.
    dtype
        Type of the stored weights: float32, bfloat16 or float16.
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


@app.command
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

    Parameters
    ----------
    variant
        One of those that 'unison-audio variants' lists.
    gpus
        Devices.
    batch
        Items on a device at a time.
    seconds
        Length of the clips.
    steps
        Of the run. The paper gives 150,000 for its first stage, and no number in all.
    throughput
        What a device reaches, in 10^12 operations a second.
    measure
        Measure that on this machine instead.
    strategy
        ddp copies the backbone to every device, fsdp cuts it in pieces.
    mixed_precision
        Type of the products.
    gradient_checkpointing
        Compute blocks again in the backward pass instead of remembering them.
    accumulate
        Batches of a device in a step.
    """
    import torch

    from unison_audio.app.tables import plan_table
    from unison_audio.training.plan import measure_tflops, plan_training
    from unison_audio.variants import find_variant

    found = find_variant(variant)
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


@data.command(name="nano")
def data_nano(
    *, out: Path, packages: Path | None = None, workers: int = 2, scale: float = 1.0
) -> None:
    """Build nano's corpus from free recordings and synthetic voices, or go on with it.

    Parameters
    ----------
    out
        The folder to write to.
    packages
        A folder with Debian packages already fetched.
    workers
        Processes.
    scale
        Factor on the number of utterances, for a small corpus.
    """
    from unison_audio.app.files import make_folder
    from unison_audio.data.nano_corpus import build

    if not scale > 0:
        raise InputError(f"scale is {scale}; it must be above 0.")
    _at_least_one("workers", workers)
    manifest = build(make_folder(out), packages=packages, workers=workers, scale=scale)
    print(f"The corpus is listed in {manifest}.")


@evaluate.command(name="nano")
def evaluate_nano(
    *,
    corpus: Path,
    out: Path,
    variant: Weights = "nano",
    items: int = 100,
    tasks: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    classifier: Path | None = None,
) -> None:
    """Measure nano against its bars on held-out items; what was cut off is gone on with.

    Parameters
    ----------
    corpus
        What 'unison-audio data nano' wrote.
    out
        The folder for the table, the sounds and what the judges heard.
    variant
        A variant's name, a checkpoint's folder, or owner/name on the hub.
    items
        Items of a task that has a bar; the others have a quarter of them.
    tasks
        Which tasks, or codec; by default all.
    steps
        Steps of sampling.
    guidance
        How closely the instruction is followed.
    seed
        Of the items and of the noise.
    classifier
        Folder of the event classifier that judges sounds; trained there where it is missing.
    """
    from unison_audio.app.files import make_folder
    from unison_audio.evaluation import nano
    from unison_audio.pipeline import Unison

    _at_least_one("items", items)
    nano.evaluate_nano(
        Unison.from_pretrained(variant),
        corpus,
        make_folder(out),
        items=items,
        steps=steps,
        guidance_scale=guidance,
        seed=seed,
        tasks=tasks,
        classifier=classifier,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command line without the program's name; by default that of the process.

    Returns:
        The exit code.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            result = app(
                arguments, exit_on_error=False, print_error=False, result_action="return_value"
            )
            sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (InputError, CycloptsError) as error:
        message = " ".join(str(error).split())
        print(f"unison-audio: {message}", file=sys.stderr)
        return MENDABLE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _show_warning(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
    """One line for the user, without the place in the source."""
    print(f"unison-audio: note: {message}", file=sys.stderr)


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise InputError(f"{name} is {value}; it must be at least 1.")
    return value


if __name__ == "__main__":
    sys.exit(main())

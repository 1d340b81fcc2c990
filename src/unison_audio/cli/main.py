"""The command line: thin commands over the library, loaded when they are run.

Mistakes that the caller can mend end with one sentence on stderr and exit code 2.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from unison_audio.cli.any_length import LengthFlags, plan_any_length
from unison_audio.cli.corpora import data
from unison_audio.cli.evaluate import evaluate
from unison_audio.cli.options import MachineFlags, SamplingFlags
from unison_audio.cli.train import finetune, plan, train
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

Output = Annotated[Path, Parameter(name=["--output", "-o"])]

OutputOrStream = Annotated[Path, Parameter(name=["--output", "-o"], allow_leading_hyphen=True)]
"""Also takes -, for standard output."""

Weights = Annotated[str, Parameter(name=["--variant"])]


@app.command
def generate(
    instruction: str,
    /,
    *,
    output: OutputOrStream,
    source: Path | None = None,
    reference: Path | None = None,
    reference_text: str | None = None,
    duration: float | None = None,
    seed: int = 0,
    variant: Weights = "nano",
    length: LengthFlags | None = None,
    sampling: SamplingFlags | None = None,
    machine: MachineFlags | None = None,
) -> None:
    """Do what an instruction says and write a sound file.

    Args:
        instruction: What is to be heard, with the tags that 'unison-audio tasks' lists.
        output: The file to write: wav, flac, ogg or mp3; - writes a WAV stream to standard output
            while it is made.
        source: The recording to edit, of any length.
        reference: The recording whose voice is to speak.
        reference_text: The words of the reference.
        duration: Seconds of the result; by default as the source, or what the variant is at its
            best with.
        seed: The same seed gives the same sound.
        variant: A variant's name, a checkpoint's folder, or owner/name on the hub.
        length: Long texts and recordings, regions, subtitles; each option has its own flag.
        sampling: How to sample; each option has its own flag.
        machine: Where to compute; each option has its own flag.
    """
    from unison_audio.checks import check_files, check_variant
    from unison_audio.cli.progress import progress
    from unison_audio.files import check_sound_file

    options = (sampling or SamplingFlags()).options()
    inputs: dict[str, Any] = {
        "source": source,
        "reference": reference,
        "reference_text": reference_text,
        "duration": duration,
        "seed": seed,
    }
    # Importing torch alone takes longer than all of this, so mistakes are told before it.
    known = check_variant(variant, options)
    run = plan_any_length(known, instruction, output, inputs, length)
    if run is not None:
        unison = (machine or MachineFlags()).open(variant)
        with progress() as show:
            run(unison, options, partial(show, "Sampling"))
        return
    check_sound_file(output)
    check_files(known, instruction, **inputs)
    unison = (machine or MachineFlags()).open(variant)
    with progress() as show:
        sound = unison.generate(instruction, on_step=partial(show, "Sampling"), **inputs, **options)
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
    guidance_interval, guidance_rescale, temperature,
    candidates, keep_source, seed, output.
    Only the instruction is required. Paths are relative to the jobs file. All lines are checked
    before the first is run. What is complete is not run again.

    Args:
        jobs: The file, JOBS.jsonl.
        output: The folder to write to; results.jsonl in it lists what was done.
        variant: A variant's name, a checkpoint's folder, or owner/name on the hub.
        machine: Where to compute; each option has its own flag.
    """
    from unison_audio.checks import check_variant
    from unison_audio.cli.jobs import check_recordings, read_jobs, run_jobs
    from unison_audio.cli.progress import progress
    from unison_audio.files import make_folder

    if not jobs.is_file():
        raise InputError(f"There is no file {jobs}; check the path.")
    checked = read_jobs(jobs, check_variant(variant, {}))
    unison = (machine or MachineFlags()).open(variant)
    check_recordings(jobs, checked, unison)
    make_folder(output)
    with progress() as show:
        failed = run_jobs(unison, checked, output, variant, partial(show, "Jobs"))
    if failed:
        raise InputError(f"{failed} of {len(checked)} jobs failed; see {output / 'results.jsonl'}.")
    return 0


@app.command
def tasks() -> None:
    """List the tasks: how to ask for them, what they take, how often they are trained."""
    from unison_audio.cli.listings import tasks_table

    print(tasks_table())


@app.command
def variants() -> None:
    """List the variants: size, codec, text encoder, rates."""
    from unison_audio.cli.listings import variants_table

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

    Args:
        output: The folder to write to.
        variant: A variant's name, a checkpoint's folder, or owner/name on the hub.
        sampling: How to sample; each option has its own flag.
        machine: Where to compute; each option has its own flag.
    """
    from unison_audio.checks import check_variant

    options = (sampling or SamplingFlags()).options()
    check_variant(variant, options)  # before torch is imported

    from unison_audio.cli.progress import progress
    from unison_audio.demo.demo import make_demo

    print("Loading the model", file=sys.stderr, flush=True)
    unison = (machine or MachineFlags()).open(variant)
    with progress(always=True) as show:
        page = make_demo(
            unison,
            output,
            on_step=partial(show, "Sampling"),
            on_picture=partial(show, "Pictures"),
            **options,
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

    Args:
        weights: A .safetensors file, a .pt or .pth file (also one with moving averages inside), or
            owner/name on the hub, such as jac22/UNISON.
        variant: What the weights are of: one of those that 'unison-audio variants' lists.
        output: The checkpoint's folder.
        system_prompt_file: A text file with the system prompt that the weights were trained with.
        dtype: Type of the stored weights: float32, bfloat16 or float16.
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


for commands in (train, data, evaluate, finetune, plan):
    app.command(commands)

if __name__ == "__main__":
    sys.exit(main())

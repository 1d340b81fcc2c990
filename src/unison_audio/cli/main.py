"""The command line: thin commands over the library, which is loaded when a command runs.

A mistake that the user can correct ends with one sentence on stderr and exit code 2.
"""

import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from signal import SIGTERM
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from unison_audio.cli.any_length import STDOUT, LengthFlags, Output, plan_any_length
from unison_audio.cli.arguments import convert, message_of
from unison_audio.cli.corpora import data
from unison_audio.cli.endings import (
    BAD_INPUT,
    BROKEN_PIPE,
    INTERRUPTED,
    TERMINATED,
    TerminatedError,
    describe,
    say,
    silence_stdout,
    terminated_as_error,
)
from unison_audio.cli.evaluate import evaluate
from unison_audio.cli.jobs import KEYS
from unison_audio.cli.mcp_server import mcp
from unison_audio.cli.options import (
    FormatFlags,
    InputFlags,
    MachineFlags,
    SamplingFlags,
    rename_flags,
)
from unison_audio.cli.serve import serve
from unison_audio.cli.train import finetune, plan, train
from unison_audio.errors import InputError, StoppedError
from unison_audio.training.configs import WeightsType


def _version() -> str:
    from unison_audio import __version__

    return __version__


app = App(
    name="unison-audio",
    help="Generate and edit speech and sound from plain instructions.",
    version=_version,
    default_parameter=Parameter(converter=convert),
)

OutputPath = Annotated[Path, Parameter(name=["--output", "-o"])]

OutputOrStream = Annotated[Path, Parameter(name=["--output", "-o"], allow_leading_hyphen=True)]
"""Also takes -, for standard output."""

Weights = Annotated[str, Parameter(name=["--variant"])]


@app.command
def generate(
    instruction: str,
    /,
    *,
    output: OutputOrStream,
    inputs: InputFlags = None,
    variant: Weights = "nano",
    form: FormatFlags = None,
    length: LengthFlags | None = None,
    sampling: SamplingFlags = None,
    machine: MachineFlags | None = None,
) -> None:
    """Generate or edit audio from an instruction.

    Args:
        instruction: The instruction, with the tags that 'unison-audio tasks' lists.
        output: The file to write: wav, flac, ogg, mp3, opus, m4a, aac or pcm; - writes a stream to
            standard output during generation, by default as WAV.
        inputs: The other inputs; each has its own flag.
        variant: A variant's name, a checkpoint's folder, or owner/name on the hub.
        form: Format of the output; each option has its own flag.
        length: Long texts and recordings, regions, subtitles; each has its own flag.
        sampling: Sampling options; each has its own flag.
        machine: Where to compute; each option has its own flag.
    """
    from unison_audio.checkpoint_files import open_checkpoint
    from unison_audio.checks import FileInputs, check_files, clean_request
    from unison_audio.cli.progress import progress
    from unison_audio.files import check_sound_file, require_other_file
    from unison_audio.output_format import OutputFormat
    from unison_audio.sampling_params import cleans_text

    inputs, form = inputs or FileInputs(), form or OutputFormat()
    if output != STDOUT:
        check_sound_file(output, form)
        require_other_file(output, (inputs.source, inputs.reference))
    # Importing torch takes longer than all of these checks, so bad input is refused before it.
    strict = sampling is not None and bool(sampling.strict)
    opened = open_checkpoint(variant)
    clean = cleans_text(opened.variant, sampling)
    if clean:
        instruction, inputs = clean_request(instruction, inputs)
    run = plan_any_length(
        opened.variant, instruction, Output(path=output, form=form), inputs, length, clean
    )
    if run is not None:
        unison = (machine or MachineFlags()).open(opened)
        with progress() as show:
            task, seconds = run(unison, {"sampling": sampling}, partial(show, "Sampling"))
        if output != STDOUT:
            print(f"{output}: {task}, {seconds:.2f} s, seed {inputs.seed}")
        return
    check_files(opened.variant, instruction, inputs, strict=strict)
    unison = (machine or MachineFlags()).open(opened)
    with progress() as show:
        sound = unison.generate(
            instruction, **vars(inputs), sampling=sampling, on_step=partial(show, "Sampling")
        )
    sound.save(output, form)
    print(f"{output}: {sound.task}, {sound.seconds:.2f} s, seed {inputs.seed}")


def batch(
    jobs: Path,
    /,
    *,
    output: OutputPath,
    variant: Weights = "nano",
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    form: FormatFlags = None,
    machine: MachineFlags | None = None,
) -> int:
    """Run many jobs from a file.

    Args:
        jobs: The file, JOBS.jsonl.
        output: The folder to write to; results.jsonl in it lists the results.
        variant: A variant's name, a checkpoint's folder, or owner/name on the hub.
        overwrite: Replace files under the outputs' names that this batch did not write.
        form: Format and marks of the outputs where a job does not set them; each has its own flag.
        machine: Where to compute; each option has its own flag.
    """
    from unison_audio.checkpoint_files import content_hash, open_checkpoint
    from unison_audio.cli.job_results import RESULTS, ResultLog
    from unison_audio.cli.jobs import (
        BatchRun,
        check_outputs,
        check_recordings,
        check_results,
        read_jobs,
        run_jobs,
    )
    from unison_audio.cli.progress import progress
    from unison_audio.files import make_folder
    from unison_audio.locks import only_writer

    machine = machine or MachineFlags()
    opened = open_checkpoint(variant)
    checked = read_jobs(jobs, opened.variant, form)
    check_outputs(jobs, checked, output)
    run = BatchRun(
        variant=variant,
        weights=content_hash(opened.folder),
        settings=machine.identity() | ({} if form is None else form.chosen()),
    )
    check_results(jobs, checked, ResultLog(output), run, overwrite=overwrite)
    unison = machine.open(opened)
    check_recordings(jobs, checked, unison)
    make_folder(output)
    with only_writer(output, "batch"):
        # Read again: another batch may have ended since, and this one holds the folder only now.
        log = ResultLog(output)
        check_results(jobs, checked, log, run, overwrite=overwrite)
        with progress() as show:
            failed = run_jobs(unison, checked, log, run, partial(show, "Jobs"))
    if failed:
        raise InputError(f"{failed} of {len(checked)} jobs failed; see {output / RESULTS}.")
    return 0


app.command(
    batch,
    help=f"""Run many jobs from a file with one JSON object per line.

Keys: {", ".join(KEYS)}.
Only the instruction is required. Paths of inputs are relative to the jobs file, those of outputs to
the folder given by -o. All lines are checked before the first job runs. Rerun the same command to
resume: jobs whose inputs, weights and settings have not changed are skipped.""",
)


@app.command
def tasks(*, variant: Annotated[str | None, Parameter(name=["--variant"])] = None) -> None:
    """List the tasks with their instruction, inputs and share of the training batches.

    Args:
        variant: A variant's name, a checkpoint's folder, or owner/name on the hub: shows the
            wording that its weights were trained with; by default the paper's.
    """
    from unison_audio.cli.listings import tasks_table

    print(tasks_table(variant))


@app.command
def variants(name: str | None = None, /) -> None:
    """List the variants with their size, codec, text encoder and rates.

    Args:
        name: A variant's name, a checkpoint's folder, or owner/name on the hub: lists the words
            and sounds that it knows.
    """
    from unison_audio.cli.listings import domain_listing, variants_table

    print(variants_table() if name is None else domain_listing(name))


@app.command
def inspect(
    *files: Path,
    trust: Path | None = None,
    json: bool = False,
) -> None:
    """Report what sound files say of their origin: tags, signed manifest, watermark.

    The network is not used. No layer proves that a sound was made by a human.

    Args:
        files: Sound files.
        trust: A PEM file with the root certificates to trust.
        json: Print one JSON object for each file instead of a table.
    """
    from json import dumps

    from unison_audio.audio_files import require_file
    from unison_audio.cli.listings import inspection_table

    if not files:
        raise InputError("No file was given; give one sound file or more.")
    for file in files:
        require_file(file)
    anchors = None
    if trust is not None:
        if not trust.is_file():
            raise InputError(f"There is no file {trust}; give a PEM file of certificates.")
        anchors = trust.read_bytes()

    from unison_audio.provenance.inspection import inspect_file

    found = [inspect_file(file, anchors=anchors) for file in files]
    if json:
        for one in found:
            print(dumps(one.as_json()))
    else:
        print(inspection_table(found))


@app.command
def demo(
    *,
    output: OutputPath = Path("demo"),
    variant: Weights = "nano",
    sampling: SamplingFlags = None,
    machine: MachineFlags | None = None,
) -> None:
    """Generate one example of every task, and a page that plays them all.

    Args:
        output: The folder to write to.
        variant: A variant's name, a checkpoint's folder, or owner/name on the hub.
        sampling: Sampling options; each has its own flag.
        machine: Where to compute; each option has its own flag.
    """
    from unison_audio.checkpoint_files import open_checkpoint

    opened = open_checkpoint(variant)  # before torch is imported

    from unison_audio.cli.progress import progress
    from unison_audio.demo.demo import make_demo

    print("Loading the model", file=sys.stderr, flush=True)
    unison = (machine or MachineFlags()).open(opened)
    with progress(always=True) as show:
        page = make_demo(
            unison,
            output,
            on_step=partial(show, "Sampling"),
            on_picture=partial(show, "Pictures"),
            sampling=sampling,
        )
    print(f"The page is {page.resolve()}: open it in a browser.")


@app.command
def download(
    *,
    variant: Weights,
    only_text: Annotated[bool, Parameter(negative="")] = False,
    only_codec: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Download all that a full-size variant needs, so that later runs need no network.

    Rerun the same command to resume. Files in the cache are not downloaded again.

    Args:
        variant: A variant's name, or a checkpoint's folder.
        only_text: Only the language model.
        only_codec: Only the codec.
    """
    from unison_audio.checkpoint_files import open_checkpoint
    from unison_audio.downloads import PARTS, download_all, needed_downloads
    from unison_audio.variants import VARIANTS

    chosen = [part for part, only in (("text", only_text), ("codec", only_codec)) if only]
    found = VARIANTS.get(variant) or open_checkpoint(variant).variant
    downloads = needed_downloads(found, tuple(chosen) or PARTS)
    for one in downloads:
        amount = f"{one.missing / 1e9:.2f} GB to download" if one.missing else "complete"
        print(f"{one.part}: {one.source}: {amount}", flush=True)
    total = sum(one.missing for one in downloads)
    print(f"{total / 1e9:.2f} GB to download for {found.name}.", flush=True)
    download_all(downloads)
    print(f"All that {found.name} needs from the network is here.")


@app.command
def export(
    checkpoint: str,
    /,
    *,
    output: OutputPath,
    form: Annotated[str, Parameter(name=["--format"])] = "diffusers",
) -> None:
    """Write a checkpoint as a folder that another library loads.

    Args:
        checkpoint: A variant's name, a checkpoint's folder, or owner/name on the hub.
        output: The folder to write to.
        form: diffusers, for DiffusionPipeline.from_pretrained.
    """
    from unison_audio.diffusers_export import export

    export(checkpoint, output, form)
    print(f"The folder is {output}.")


@app.command
def quantize(
    checkpoint: str,
    /,
    *,
    output: OutputPath,
    dtype: WeightsType | None = None,
    keep_layer: Annotated[list[str], Parameter(negative_iterable=())] | None = None,
) -> None:
    """Write a checkpoint, or a language model, with int8 weights: less memory and less time.

    Args:
        checkpoint: A variant's name, a checkpoint's folder, or owner/name on the hub; or a language
            model: qwen2.5-omni-7b, qwen2.5-omni-3b, or a folder with its files.
        output: The folder to write to. That of a language model goes into --text-files.
        dtype: Type of a checkpoint's weights that stay in floating point: bfloat16 (default),
            float16 or float32. Those of a language model stay as they are.
        keep_layer: Linear layers of a language model that stay as they are, by a part of their
            names: down_proj, layers.3.
    """
    from unison_audio.text.hub_names import is_language_model

    if is_language_model(checkpoint):
        if dtype is not None:
            raise InputError(
                f"--dtype {dtype} is for checkpoints, and {checkpoint} is a language model, whose "
                "other weights stay as they are; leave it out."
            )
        from unison_audio.text.quantize_qwen import quantize_language_model

        count = quantize_language_model(checkpoint, output, kept=keep_layer or ())
        print(f"The language model is in {output}: {count} linear layers in int8.")
        return
    if keep_layer:
        raise InputError(
            f"--keep-layer {keep_layer[0]} is for language models, and {checkpoint} is none; "
            "leave it out."
        )
    from unison_audio.checkpoint_files import open_checkpoint

    opened = open_checkpoint(checkpoint)
    from unison_audio.checkpoint import disk_type, quantize_checkpoint

    quantize_checkpoint(opened, output, dtype=disk_type(dtype or "bfloat16"))
    print(f"The checkpoint is in {output}.")


@app.command(name="import-release")
def import_release(
    weights: str,
    /,
    *,
    variant: Annotated[str, Parameter(name=["--variant"])],
    output: OutputPath,
    system_prompt_file: Path | None = None,
    dtype: WeightsType = "float32",
    text_files: Path | None = None,
    seconds: float | None = None,
) -> None:
    """Convert weights of the UNISON release into a checkpoint.

    Args:
        weights: A .safetensors, .pt, .pth or .bin file (also one with moving averages inside), a
            folder with one, or owner/name on the hub, such as jac22/UNISON.
        variant: The variant of the weights, one that 'unison-audio variants' lists.
        output: The checkpoint's folder.
        system_prompt_file: A text file with the system prompt that the weights were trained with.
        dtype: Type of the stored weights: float32, bfloat16 or float16.
        text_files: Folder of the language model; without it the hub is asked for a small file.
        seconds: The length that the weights were trained with: by default 10; 22 for the paper's
            fine-tune to long speech. Everything is sampled at it and cropped.
    """
    from unison_audio.files import require_folders
    from unison_audio.release_files import check_length, find_weights, is_on_hub, read_prompt
    from unison_audio.variants import find_variant

    found = find_variant(variant)
    if seconds is not None:
        check_length(seconds, found)
    if system_prompt_file is not None:
        read_prompt(system_prompt_file)
    require_folders(text_files)
    if not is_on_hub(weights):
        find_weights(weights, variant)
    from unison_audio.release import import_release

    import_release(
        weights,
        variant,
        output,
        system_prompt_file=system_prompt_file,
        dtype=dtype,
        text_files=text_files,
        seconds=seconds,
    )
    print(f"The checkpoint is in {output}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Command line without the program's name; by default that of the process.

    Returns:
        The exit code.
    """
    try:
        with warnings.catch_warnings(), terminated_as_error():
            warnings.showwarning = _show_warning
            result = app(
                rename_flags(sys.argv[1:] if arguments is None else arguments),
                exit_on_error=False,
                print_error=False,
                result_action="return_value",
            )
            # Here, and not at exit, so that a closed pipe is noticed inside the try.
            if sys.stdout is not None:
                sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except InputError as error:
        say(str(error))
        return BAD_INPUT
    except CycloptsError as error:
        say(message_of(error))
        return BAD_INPUT
    except StoppedError as error:
        say(str(error))
        return TERMINATED if error.signal_number == SIGTERM else INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except TerminatedError:
        say("Stopped by SIGTERM; what was finished is kept, and the same command resumes.")
        return TERMINATED
    except BrokenPipeError:
        # The reader, such as `head` or a player, has closed the pipe. The exit code is that of a
        # program that SIGPIPE ends.
        silence_stdout()
        return BROKEN_PIPE
    except (OSError, UnicodeError, MemoryError) as error:  # such as a full disk
        say(describe(error))
        silence_stdout()  # it may be what is full
        return BAD_INPUT


def _show_warning(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
    """Print a warning as one line, without its place in the source."""
    say(f"note: {message}")


for commands in (train, data, evaluate, finetune, plan, serve, mcp):
    app.command(commands)

if __name__ == "__main__":
    sys.exit(main())

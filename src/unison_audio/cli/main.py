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

from unison_audio.checks import FileInputs
from unison_audio.cli.any_length import SoundRequest, plan_sound
from unison_audio.cli.arguments import convert, message_of
from unison_audio.cli.checkpoint_commands import download, export, import_release, quantize
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
from unison_audio.cli.job_file import KEYS
from unison_audio.cli.mcp_server import mcp
from unison_audio.cli.options import (
    ClusterFlags,
    FormatFlags,
    InputFlags,
    LengthFlags,
    MachineFlags,
    OutputPath,
    SamplingFlags,
    Weights,
    rename_flags,
)
from unison_audio.cli.serve import serve
from unison_audio.cli.streams import STDOUT, check_stdout
from unison_audio.cli.train import finetune, plan, train
from unison_audio.errors import InputError, StoppedError
from unison_audio.output_format import OutputFormat
from unison_audio.training.configs import MOST_COUNT


def _version() -> str:
    from unison_audio import __version__

    return __version__


app = App(
    name="unison-audio",
    help="Generate and edit speech and sound from plain instructions.",
    version=_version,
    default_parameter=Parameter(converter=convert),
)

OutputOrStream = Annotated[Path, Parameter(name=["--output", "-o"], allow_leading_hyphen=True)]
"""Also takes -, for standard output."""


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
    from unison_audio.cli.progress import progress
    from unison_audio.files import (
        check_folder,
        check_sound_file,
        folder_of,
        remove_unfinished,
        require_other_file,
    )

    asked = SoundRequest(
        instruction=instruction,
        output=output,
        form=form or OutputFormat(),
        inputs=inputs or FileInputs(),
        length=length or LengthFlags(),
        sampling=sampling,
    )
    if output == STDOUT:
        check_stdout()
    else:
        check_sound_file(output, asked.form)
    read = (asked.inputs.source, asked.inputs.reference, asked.length.text_file)
    for written in (output, asked.length.subtitles):
        if written not in (None, STDOUT):
            check_folder(written.parent)
            require_other_file(written, read)
    # Importing torch takes longer than all of these checks, so bad input is refused before it.
    opened = open_checkpoint(variant)
    planned = plan_sound(opened.variant, asked)
    unison = (machine or MachineFlags()).open(opened)
    remove_unfinished(() if output == STDOUT else (output,))
    with folder_of(output), progress() as show:
        made = planned.run(unison, partial(show, "Sampling"))
    if output != STDOUT:
        print(f"{output}: {made.task}, {made.seconds:.2f} s, seed {asked.inputs.seed}")


def batch(
    jobs: Path,
    /,
    *,
    output: OutputPath,
    variant: Weights = "nano",
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    form: FormatFlags = None,
    machine: MachineFlags | None = None,
    cluster: ClusterFlags | None = None,
) -> int:
    """Run many jobs from a file.

    Args:
        jobs: The file, JOBS.jsonl.
        output: The folder to write to; results.jsonl in it lists the results.
        variant: A variant's name, a checkpoint's folder, or owner/name on the hub.
        overwrite: Replace files under the outputs' names that this batch did not write.
        form: Format and marks of the outputs where a job does not set them; each has its own flag.
        machine: Where to compute; each option has its own flag.
        cluster: A cluster that shares the work; each option has its own flag.
    """
    from unison_audio.checkpoint_files import content_hash, open_checkpoint
    from unison_audio.cli.job_file import read_jobs
    from unison_audio.cli.job_machines import job_machine
    from unison_audio.cli.job_results import RESULTS, ResultLog
    from unison_audio.cli.jobs import BatchRun, check_outputs, check_results, run_jobs
    from unison_audio.cli.progress import progress
    from unison_audio.files import check_folder, make_folder, remove_unfinished
    from unison_audio.locks import only_writer

    machine = machine or MachineFlags()
    check_folder(output)
    opened = open_checkpoint(variant)
    checked = read_jobs(jobs, opened.variant, form)
    check_outputs(jobs, checked, output)
    run = BatchRun(
        variant=variant,
        weights=content_hash(opened.folder),
        settings=machine.identity() | ({} if form is None else form.chosen()),
    )
    check_results(jobs, checked, ResultLog(output), run, overwrite=overwrite)
    with job_machine(opened, run, machine, cluster or ClusterFlags()) as place:
        place.check(jobs, checked)
        make_folder(output)
        with only_writer(output, "batch"):
            # Read again: another batch may have ended since; this one holds the folder only now.
            log = ResultLog(output)
            check_results(jobs, checked, log, run, overwrite=overwrite)
            written = (name for job in checked for name in job.files)
            remove_unfinished((output / name for name in (RESULTS, *written)), seconds=0)
            with progress() as show:
                failed = run_jobs(place.make, checked, log, run, partial(show, "Jobs"))
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
def tasks(*, variant: Weights | None = None) -> None:
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
    """Report what sound files say of their origin: tags, signed manifest, watermark, payload.

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
    from unison_audio.files import check_folder

    check_folder(output)
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


app.command(import_release, name="import-release")
for commands in (download, export, quantize, train, data, evaluate, finetune, serve, mcp):
    app.command(commands)
app.command(plan, default_parameter=Parameter(converter=partial(convert, most=MOST_COUNT)))

if __name__ == "__main__":
    sys.exit(main())

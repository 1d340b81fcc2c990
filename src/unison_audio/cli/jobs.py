"""Runs many jobs from a file: checks all lines before the first job, and resumes on a rerun."""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unison_audio.checks import FileInputs
from unison_audio.cli.any_length import SoundPlan, SoundRequest, plan_sound
from unison_audio.cli.job_results import RESULTS, Identity, ResultLog, refuse_foreign
from unison_audio.cli.options import LengthFlags
from unison_audio.errors import InputError
from unison_audio.files import (
    check_part_name,
    check_sound_file,
    file_hash,
    read_rows,
    require_other_file,
    resolved,
)
from unison_audio.output_format import OUTPUT_OPTIONS, OutputFormat, merge_output
from unison_audio.sampling_params import OPTIONS, RENAMED, SamplingParams, merge_options
from unison_audio.values import require_path, require_text, shown

if TYPE_CHECKING:
    from unison_audio.pipeline import Unison
    from unison_audio.variants import Variant

INPUTS: tuple[str, ...] = tuple(field.name for field in fields(FileInputs))

LENGTHS = (
    "region",
    "inpaint",
    "extend_after",
    "extend_before",
    "extract",
    "text_file",
    "subtitles",
)

KEYS = ("instruction", *INPUTS, *LENGTHS, *OPTIONS, "output", *OUTPUT_OPTIONS)
"""Keys of a job."""

_PATHS = ("source", "reference", "text_file")

_TEXTS = ("instruction", *_PATHS, "reference_text", "task", "asr", "subtitles", "output")


@dataclass(frozen=True, kw_only=True)
class GenerationJob:
    """One line of a jobs file, checked."""

    line: int
    """Line number, from 1."""
    output: str
    """Name of the file to write."""
    asked: dict[str, Any]
    """The line's values with absolute paths; equal values give equal sounds."""
    inputs: FileInputs
    """Inputs besides the instruction."""
    length: LengthFlags
    """Regions, a long text, subtitles."""
    sampling: SamplingParams
    """Sampling options."""
    form: OutputFormat
    """Format of the output."""

    @property
    def instruction(self) -> str:
        """The instruction."""
        return str(self.asked["instruction"])

    @property
    def files(self) -> list[str]:
        """Names of the files that it writes."""
        subtitles = self.length.subtitles
        return [self.output, *([] if subtitles is None else [str(subtitles)])]


@dataclass(frozen=True, kw_only=True)
class BatchRun:
    """What all jobs of a batch share."""

    variant: str
    """Name or folder of the weights, for the log."""
    weights: str
    """Hash of the weights, see `checkpoint_files.content_hash`."""
    settings: dict[str, Any]
    """Settings of the command that change the sound."""

    def identity(self, job: GenerationJob) -> Identity:
        """What a job's result depends on; files are hashed once until they change."""
        paths = {key: Path(job.asked[key]) for key in _PATHS if key in job.asked}
        return Identity(
            job=job.asked,
            inputs={key: file_hash(file) for key, file in paths.items() if file.is_file()},
            weights=self.weights,
            settings=self.settings,
        )


MakeJobs = Callable[
    [Sequence[GenerationJob], Path, Callable[[GenerationJob], None]],
    Iterator[tuple[GenerationJob, dict[str, Any]]],
]
"""Makes jobs in any order: called with the jobs, the folder of their outputs, and what to call with
each before it begins. Gives each job with its entry for the log."""


def read_jobs(
    path: Path, variant: "Variant", form: OutputFormat | None = None
) -> list[GenerationJob]:
    """Read and check a jobs file: one JSON object a line, empty lines aside.

    Recordings are checked by their headers only; `check_recordings` does the rest.

    Args:
        path: The file; paths in it are relative to its folder.
        variant: The variant that will run the jobs.
        form: Options of the outputs where a job does not set them.

    Returns:
        The jobs in order.

    Raises:
        InputError: If a line cannot be run; the message begins with the line's number.
    """
    names: dict[str, int] = {}

    def read(number: int, values: dict[str, Any]) -> GenerationJob:
        job = _read_job(number, values, path.parent.resolve(), form)
        if job.output in names:
            raise InputError(
                f"The output {job.output!r} is also that of line {names[job.output]}; "
                "give each its own."
            )
        _plan(job, variant, Path(job.output))
        names[job.output] = number
        return job

    return read_rows(path, KEYS, "jobs", read, hidden=tuple(RENAMED))


def check_outputs(path: Path, jobs: list[GenerationJob], folder: Path) -> None:
    """Check the names of all outputs: possible, inside the folder, and no file that is read.

    Args:
        path: The file that the jobs are from.
        jobs: Result of `read_jobs`.
        folder: Folder of the outputs; it may not exist yet.

    Raises:
        InputError: If one would; the message begins with the file and the line.
    """
    read = [path, folder / RESULTS]
    read += [Path(job.asked[key]) for job in jobs for key in _PATHS if key in job.asked]
    places: dict[Path, int] = {}
    for job in jobs:
        with at_line(path, job):
            for name in job.files:
                output = require_path(folder / name, "The output")
                check_part_name(output)
                require_other_file(output, read)
                place = _place_inside(output, folder)
                if places.setdefault(place, job.line) != job.line:
                    raise InputError(
                        f"The output {name!r} is also that of line {places[place]}; give each its "
                        "own."
                    )


def check_results(
    path: Path, jobs: list[GenerationJob], log: ResultLog, run: BatchRun, *, overwrite: bool
) -> None:
    """Check that no output replaces a file that the batch did not write.

    Args:
        path: The file that the jobs are from.
        jobs: Result of `read_jobs`.
        log: The results so far.
        run: What all jobs share.
        overwrite: Whether such files may be replaced.

    Raises:
        InputError: If one would; the message begins with the file and the line.
    """
    for job in jobs:
        if not overwrite and log.state(job.output, run.identity(job), job.files) == "foreign":
            with at_line(path, job):
                raise refuse_foreign(log.folder / job.output)


def check_job(unison: "Unison", job: GenerationJob) -> None:
    """Check the recordings of a job by decoding them.

    Args:
        unison: The model that will run it.
        job: The job.

    Raises:
        InputError: If one cannot be used.
    """
    # A long one is checked by its header: hours of sound are not decoded twice.
    if not _plan(job, unison.variant, Path(job.output)).windows:
        unison.check(job.instruction, **vars(job.inputs))


def run_jobs(
    make: MakeJobs,
    jobs: list[GenerationJob],
    log: ResultLog,
    run: BatchRun,
    on_job: Callable[[int, int], None] | None = None,
) -> int:
    """Run jobs and log each; complete jobs are skipped.

    Args:
        make: Makes the sounds, here or elsewhere.
        jobs: Result of `read_jobs`.
        log: The results so far; its folder exists.
        run: What all jobs share.
        on_job: Called after each job with the jobs done and the jobs in all.

    Returns:
        Number of failed jobs; each is named on stderr.
    """
    log.rewrite()
    todo = []
    for job in jobs:
        if log.state(job.output, run.identity(job), job.files) == "done":
            log.keep(job.output)
        else:
            todo.append(job)
    identities: dict[str, Identity] = {}

    def begin(job: GenerationJob) -> None:
        # Inputs are hashed before they are read: one that changes meanwhile is noticed next time.
        identities[job.output] = run.identity(job)
        log.begin(job.output)

    failed, done = 0, len(jobs) - len(todo)
    if on_job is not None:
        on_job(done, len(jobs))
    for job, made in make(todo, log.folder, begin):
        result = {"variant": run.variant, **identities[job.output].as_json(), **made}
        for note in made.get("warnings", ()):
            print(f"Line {job.line} ({job.output}): note: {note}", file=sys.stderr)
        if "error" in result:
            failed += 1
            print(f"Line {job.line} ({job.output}): {result['error']}", file=sys.stderr)
        else:
            print(f"{log.folder / job.output}: {result['task']}, {result['seconds']:.2f} s")
        log.add(job.output, result, job.files)
        done += 1
        if on_job is not None:
            on_job(done, len(jobs))
    log.rewrite([job.output for job in jobs])
    return failed


def _read_job(
    number: int, values: dict[str, Any], folder: Path, base: OutputFormat | None
) -> GenerationJob:
    if "instruction" not in values:
        raise InputError("There is no instruction; add one.")
    for key in _TEXTS:
        if key in values:
            require_text(values[key], key)
    form = merge_output(base, {key: values[key] for key in OUTPUT_OPTIONS if key in values})
    output = values.pop("output", f"{number:04d}.{form.format or 'wav'}")
    for name in filter(None, (output, values.get("subtitles", ""))):
        require_path(name, "The output")
        # A jobs file may come from someone else; it must not overwrite files elsewhere.
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"The output {name!r} leads out of the folder; give a file's name.")
    for key in _PATHS:
        if key in values:
            values[key] = str(require_path(folder / values[key], key))
    options = {key: value for key, value in values.items() if key in (*OPTIONS, *RENAMED)}
    inputs = {key: value for key, value in values.items() if key in INPUTS}
    for key in ("source", "reference"):
        if key in inputs:
            inputs[key] = Path(inputs[key])
    return GenerationJob(
        line=number,
        output=str(Path(output)),
        asked=values,
        inputs=FileInputs(**inputs),
        length=_read_length(values),
        sampling=merge_options(None, options),
        form=form,
    )


def _read_length(values: dict[str, Any]) -> LengthFlags:
    """The keys of `LENGTHS`; a single region may stand without a list."""
    spans: dict[str, Any] = {}
    for key in ("region", "inpaint"):
        given = values.get(key)
        spans[key] = [given] if isinstance(given, str) else given
        if spans[key] is not None and not (
            isinstance(spans[key], list) and all(isinstance(text, str) for text in spans[key])
        ):
            raise InputError(
                f"{key} is {shown(given)}; give a text such as 3.2-7.5, or a list of them."
            )
    for key in ("extend_after", "extend_before"):
        given = values.get(key)
        if given is not None:
            if isinstance(given, bool) or not isinstance(given, str | int | float):
                raise InputError(f"{key} is {shown(given)}; give seconds, such as 3 or 0:03.")
            spans[key] = str(given)
    paths: dict[str, Any] = {
        key: Path(values[key]) for key in ("text_file", "subtitles") if key in values
    }
    extract = values.get("extract", False)
    if not isinstance(extract, bool):
        raise InputError(f"extract is {shown(extract)}; give true or false.")
    return LengthFlags(extract=extract, **spans, **paths)


def _plan(job: GenerationJob, variant: "Variant", output: Path) -> SoundPlan:
    """Check all that needs no model."""
    asked = SoundRequest(
        instruction=job.instruction,
        output=output,
        form=job.form,
        inputs=job.inputs,
        length=job.length,
        sampling=job.sampling,
    )
    return plan_sound(variant, asked)


def make_job(unison: "Unison", job: GenerationJob, folder: Path) -> dict[str, Any]:
    """Run one job and return its entry for the log, with its warnings.

    Args:
        unison: The model that runs it.
        job: The job.
        folder: Folder of the outputs.
    """
    # Python shows equal warnings once, whichever lines they are about; here each has its line.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        entry = _entry(unison, job, folder)
    said = dict.fromkeys(
        str(one.message) for one in caught if issubclass(one.category, UserWarning)
    )
    return {**entry, "warnings": list(said)} if said else entry


def _entry(unison: "Unison", job: GenerationJob, folder: Path) -> dict[str, Any]:
    try:
        output = check_sound_file(folder / job.output, job.form)
        if job.length.subtitles is not None:
            length = replace(job.length, subtitles=folder / job.length.subtitles)
            job = replace(job, length=length)
        made = _plan(job, unison.variant, output).run(unison, lambda done, total: None)
    except Exception as error:  # one failure must not stop the other jobs
        reason = " ".join(str(error).split())
        return {"error": reason if isinstance(error, InputError) else f"{error!r}"}
    return {"task": made.task, "seconds": round(made.seconds, 4)}


@contextlib.contextmanager
def at_line(path: Path, job: GenerationJob) -> Iterator[None]:
    """Put the file and the line in front of an error.

    Args:
        path: The file that the job is from.
        job: The job.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}, line {job.line}: {error}") from error


def _place_inside(output: Path, folder: Path) -> Path:
    """Where an output will lie, all links followed.

    Raises:
        InputError: If that is outside of the folder, a folder itself, or below a file.
    """
    inside, place = resolved(folder), resolved(output)
    if not place.is_relative_to(inside):
        raise InputError(
            f"The output {output} leads out of the folder through a link, to {place}; give it "
            "another name."
        )
    if place.is_dir():
        raise InputError(f"The output {output} is a folder; give it another name.")
    for parent in place.parents:
        if parent == inside:
            break
        if parent.exists() and not parent.is_dir():
            raise InputError(f"The output {output} lies below {parent}, which is a file.")
    return place

"""Runs many jobs: checks their outputs before the first one, logs each, and resumes on a rerun."""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unison_audio.cli.any_length import plan_sound
from unison_audio.cli.job_file import PATHS, GenerationJob, at_line
from unison_audio.cli.job_results import RESULTS, Identity, ResultLog, refuse_foreign
from unison_audio.errors import InputError
from unison_audio.files import (
    check_part_name,
    check_sound_file,
    file_hash,
    folder_of,
    require_other_file,
    resolved,
)
from unison_audio.values import require_path

if TYPE_CHECKING:
    from unison_audio.pipeline import Unison


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
        paths = {key: Path(job.asked[key]) for key in PATHS if key in job.asked}
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
    read += [Path(job.asked[key]) for job in jobs for key in PATHS if key in job.asked]
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
    if not plan_sound(unison.variant, job.request).windows:
        unison.check(job.request.instruction, **vars(job.request.inputs))


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
        request = job.inside(folder)
        check_sound_file(request.output, request.form)
        with folder_of(request.output):
            made = plan_sound(unison.variant, request).run(unison, lambda done, total: None)
    except Exception as error:  # one failure must not stop the other jobs
        reason = " ".join(str(error).split())
        return {"error": reason if isinstance(error, InputError) else f"{error!r}"}
    return {"task": made.task, "seconds": round(made.seconds, 4)}


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

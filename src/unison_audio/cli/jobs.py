"""Runs many jobs from a file: checks all lines before the first job, and resumes on a rerun."""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unison_audio.checks import FileInputs, check_files
from unison_audio.cli.any_length import LengthFlags, Output, Run, plan_any_length
from unison_audio.errors import InputError
from unison_audio.files import check_sound_file, read_rows, require_other_file, write_whole
from unison_audio.output_format import OUTPUT_OPTIONS, OutputFormat, merge_output
from unison_audio.sampling_params import OPTIONS, RENAMED, SamplingParams, merge_options

if TYPE_CHECKING:
    from unison_audio.pipeline import Unison
    from unison_audio.variants import Variant

RESULTS = "results.jsonl"

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

_TEXTS = ("instruction", *_PATHS, "reference_text", "task", "subtitles", "output")


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


def read_jobs(path: Path, variant: "Variant") -> list[GenerationJob]:
    """Read and check a jobs file: one JSON object a line, empty lines aside.

    Recordings are checked by their headers only; `check_recordings` does the rest.

    Args:
        path: The file; paths in it are relative to its folder.
        variant: The variant that will run the jobs.

    Returns:
        The jobs in order.

    Raises:
        InputError: If a line cannot be run; the message begins with the line's number.
    """
    names: dict[str, int] = {}

    def read(number: int, values: dict[str, Any]) -> GenerationJob:
        job = _read_job(number, values, path.parent.resolve())
        if job.output in names:
            raise InputError(
                f"The output {job.output!r} is also that of line {names[job.output]}; "
                "give each its own."
            )
        _check(job, variant)
        names[job.output] = number
        return job

    return read_rows(path, KEYS, "jobs", read, hidden=tuple(RENAMED))


def check_outputs(path: Path, jobs: list[GenerationJob], folder: Path) -> None:
    """Check that no output replaces a recording of any job.

    Args:
        path: The file that the jobs are from.
        jobs: Result of `read_jobs`.
        folder: Folder of the outputs.

    Raises:
        InputError: If one would; the message begins with the file and the line.
    """
    recordings = [Path(job.asked[key]) for job in jobs for key in _PATHS if key in job.asked]
    for job in jobs:
        try:
            require_other_file(folder / job.output, recordings)
        except InputError as error:
            raise InputError(f"{path}, line {job.line}: {error}") from error


def check_recordings(path: Path, jobs: list[GenerationJob], unison: "Unison") -> None:
    """Check the recordings of jobs by decoding them.

    Args:
        path: The file that the jobs are from.
        jobs: Result of `read_jobs`.
        unison: The model that will run them.

    Raises:
        InputError: If one cannot be used; the message begins with the file and the line.
    """
    for job in jobs:
        if _plan(job, unison.variant, Path(job.output)) is not None:
            continue  # checked by its header; hours of sound are not decoded twice
        try:
            unison.check(job.instruction, **vars(job.inputs))
        except InputError as error:
            raise InputError(f"{path}, line {job.line}: {error}") from error


def run_jobs(
    unison: "Unison",
    jobs: list[GenerationJob],
    folder: Path,
    variant: str,
    on_job: Callable[[int, int], None] | None = None,
) -> int:
    """Run jobs one by one and log each in `results.jsonl`; complete jobs are skipped.

    Args:
        unison: The model that runs them.
        jobs: Result of `read_jobs`.
        folder: Folder of the outputs; it exists.
        variant: Name or folder of the weights, for the log.
        on_job: Called after each job with the jobs done and the jobs in all.

    Returns:
        Number of failed jobs; each is named on stderr.
    """
    before = _read_results(folder / RESULTS)
    results: dict[str, dict[str, Any]] = {}
    failed = 0
    # Rewritten first: a kill may have cut the last line, and appending to it would spoil the next.
    write_whole(folder / RESULTS, _lines(before.values()))
    with (folder / RESULTS).open("a", encoding="utf-8") as notes:
        for done, job in enumerate(jobs, start=1):
            known = before.get(job.output)
            same = {"job": job.asked, "variant": variant}
            if known is not None and _is_complete(known, same, folder / job.output):
                results[job.output] = known
            else:
                result = {"output": job.output, **same, **_run(unison, job, folder)}
                if "error" in result:
                    failed += 1
                    print(f"Line {job.line} ({job.output}): {result['error']}", file=sys.stderr)
                results[job.output] = result
                notes.write(_lines([result]))
                notes.flush()
            if on_job is not None:
                on_job(done, len(jobs))
    # Results of jobs that are no longer in the file stay: their outputs still lie in the folder.
    others = [result for name, result in before.items() if name not in results]
    write_whole(folder / RESULTS, _lines([*others, *results.values()]))
    return failed


def _read_job(number: int, values: dict[str, Any], folder: Path) -> GenerationJob:
    if "instruction" not in values:
        raise InputError("There is no instruction; add one.")
    for key in _TEXTS:
        if key in values and not isinstance(values[key], str):
            raise InputError(f"{key} is {values[key]!r}; it must be a text.")
    form = merge_output(None, {key: values[key] for key in OUTPUT_OPTIONS if key in values})
    output = values.pop("output", f"{number:04d}.{form.format or 'wav'}")
    for name in (output, values.get("subtitles", "")):
        # A jobs file may come from someone else; it must not overwrite files elsewhere.
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"The output {name!r} leads out of the folder; give a file's name.")
    for key in _PATHS:
        if key in values:
            values[key] = str(folder / values[key])
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
            raise InputError(f"{key} is {given!r}; give a text such as 3.2-7.5, or a list of them.")
    for key in ("extend_after", "extend_before"):
        given = values.get(key)
        if given is not None:
            if isinstance(given, bool) or not isinstance(given, str | int | float):
                raise InputError(f"{key} is {given!r}; give seconds, such as 3 or 0:03.")
            spans[key] = str(given)
    paths: dict[str, Any] = {
        key: Path(values[key]) for key in ("text_file", "subtitles") if key in values
    }
    extract = values.get("extract", False)
    if not isinstance(extract, bool):
        raise InputError(f"extract is {extract!r}; give true or false.")
    return LengthFlags(extract=extract, **spans, **paths)


def _plan(job: GenerationJob, variant: "Variant", output: Path) -> Run | None:
    where = Output(path=output, form=job.form)
    return plan_any_length(variant, job.instruction, where, job.inputs, job.length)


def _check(job: GenerationJob, variant: "Variant") -> None:
    """Check all that needs no model."""
    if _plan(job, variant, Path(job.output)) is None:
        check_files(variant, job.instruction, job.inputs, strict=bool(job.sampling.strict))


def _run(unison: "Unison", job: GenerationJob, folder: Path) -> dict[str, Any]:
    """Run one job and return its entry for the log."""
    try:
        output = check_sound_file(folder / job.output, job.form)
        if job.length.subtitles is not None:
            length = replace(job.length, subtitles=folder / job.length.subtitles)
            job = replace(job, length=length)
        run = _plan(job, unison.variant, output)
        if run is not None:
            task, seconds = run(unison, {"sampling": job.sampling}, lambda done, total: None)
            return {"task": task, "seconds": round(seconds, 4)}
        sound = unison.generate(job.instruction, **vars(job.inputs), sampling=job.sampling)
        sound.save(output, job.form)
    except Exception as error:  # one failure must not stop the other jobs
        reason = " ".join(str(error).split())
        return {"error": reason if isinstance(error, InputError) else f"{error!r}"}
    entry: dict[str, Any] = {"task": sound.task, "seconds": round(sound.seconds, 4)}
    return {**entry, "warnings": list(sound.warnings)} if sound.warnings else entry


def _is_complete(known: dict[str, Any], same: dict[str, Any], file: Path) -> bool:
    """Whether an earlier result is of the same job, and its file exists."""
    unchanged = all(known.get(key) == value for key, value in same.items())
    return unchanged and "error" not in known and file.is_file()


def _lines(results: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(result, ensure_ascii=False) + "\n" for result in results)


def _read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Earlier results by output; lines cut off by an interruption are skipped."""
    results: dict[str, dict[str, Any]] = {}
    if path.is_file():
        for line in path.read_text("utf-8", errors="replace").splitlines():
            try:
                result = json.loads(line)
                results[result["output"]] = result
            except (ValueError, KeyError, TypeError):
                continue
    return results

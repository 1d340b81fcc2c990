"""Many jobs from a file: all lines are checked before the first is run; a re-run goes on."""

import json
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unison_audio import audio_files
from unison_audio.checks import check_files
from unison_audio.errors import InputError
from unison_audio.files import check_sound_file, read_rows, write_whole
from unison_audio.sampling_params import SamplingOptions, sampling_for

if TYPE_CHECKING:
    from unison_audio.pipeline import Unison
    from unison_audio.variants import Variant

RESULTS = "results.jsonl"

KEYS = (
    "instruction",
    "source",
    "reference",
    "reference_text",
    "duration",
    "preset",
    "steps",
    "solver",
    "guidance",
    "guidance_interval",
    "guidance_rescale",
    "temperature",
    "candidates",
    "keep_source",
    "seed",
    "output",
)

_SAMPLING = tuple(SamplingOptions.__annotations__)

_TEXTS = ("instruction", "source", "reference", "reference_text", "output")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One line of a jobs file, checked."""

    line: int
    """Its number, from 1."""
    output: str
    """The name of the file to write."""
    asked: dict[str, Any]
    """What it asks for, paths made absolute; equal jobs give equal sounds."""

    def inputs(self) -> dict[str, Any]:
        """What `Unison.generate` is called with, besides the instruction."""
        renamed = {"guidance": "guidance_scale"}
        return {
            renamed.get(key, key): value
            for key, value in self.asked.items()
            if key != "instruction"
        }


def read_jobs(path: Path, variant: "Variant") -> list[Job]:
    """Read and check a jobs file: one JSON object a line, empty lines aside.

    Recordings are checked as far as their headers go; `check_recordings` does the rest.

    Args:
        path: The file; paths in it are relative to its folder.
        variant: What will run the jobs.

    Returns:
        The jobs in order.

    Raises:
        InputError: If a line cannot be run; the message begins with the line's number.
    """
    names: dict[str, int] = {}

    def read(number: int, values: dict[str, Any]) -> Job:
        job = _read_job(number, values, path.parent.resolve())
        if job.output in names:
            raise InputError(
                f"The output {job.output!r} is also that of line {names[job.output]}; "
                "give each its own."
            )
        _check(job, variant)
        names[job.output] = number
        return job

    return read_rows(path, KEYS, "jobs", read)


def check_recordings(path: Path, jobs: list[Job], unison: "Unison") -> None:
    """Check the recordings of jobs by decoding them.

    Args:
        path: The file that the jobs are from.
        jobs: What `read_jobs` gave.
        unison: What will run them.

    Raises:
        InputError: If one cannot be used; the message begins with the file and the line.
    """
    from unison_audio.inputs import ShortenedWarning

    for job in jobs:
        inputs = {name: value for name, value in job.inputs().items() if name not in _SAMPLING}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ShortenedWarning)  # it comes again with the run
            try:
                unison.check(job.asked["instruction"], **inputs)
            except InputError as error:
                raise InputError(f"{path}, line {job.line}: {error}") from error


def run_jobs(
    unison: "Unison",
    jobs: list[Job],
    folder: Path,
    variant: str,
    on_job: Callable[[int, int], None] | None = None,
) -> int:
    """Run jobs one by one and note each in `results.jsonl`; complete ones are not run again.

    Args:
        unison: What runs them.
        jobs: What `read_jobs` gave.
        folder: Where the outputs go; it exists.
        variant: The name or folder of the weights, for the notes.
        on_job: Called after each job with the jobs done and the jobs in all.

    Returns:
        How many jobs failed; each is named on stderr.
    """
    before = _read_results(folder / RESULTS)
    results: dict[str, dict[str, Any]] = {}
    failed = 0
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
    others = [result for name, result in before.items() if name not in results]
    write_whole(folder / RESULTS, _lines([*others, *results.values()]))
    return failed


def _read_job(number: int, values: dict[str, Any], folder: Path) -> Job:
    if "instruction" not in values:
        raise InputError("There is no instruction; add one.")
    for key in _TEXTS:
        if key in values and not isinstance(values[key], str):
            raise InputError(f"{key} is {values[key]!r}; it must be a text.")
    output = values.pop("output", f"{number:04d}.wav")
    if Path(output).is_absolute() or ".." in Path(output).parts:
        raise InputError(f"The output {output!r} leads out of the folder; give a file's name.")
    for key in ("source", "reference"):
        if key in values:
            values[key] = str(folder / values[key])
    interval = values.get("guidance_interval")
    if interval is not None and (not isinstance(interval, list) or len(interval) != 2):
        raise InputError(f"guidance_interval is {interval!r}; give two times t, [from, to].")
    return Job(line=number, output=str(Path(output)), asked=values)


def _check(job: Job, variant: "Variant") -> None:
    """Everything that can be told before a model is loaded."""
    if Path(job.output).suffix.lower() not in audio_files.FORMATS:
        raise InputError(
            f"The output {job.output!r} must end in one of {', '.join(audio_files.FORMATS)}; "
            "rename it."
        )
    inputs = job.inputs()
    sampling_for(variant, **{name: inputs.pop(name) for name in _SAMPLING if name in inputs})
    check_files(variant, job.asked["instruction"], **inputs)


def _run(unison: "Unison", job: Job, folder: Path) -> dict[str, Any]:
    """Run one job: what is to be noted of it."""
    try:
        sound = unison.generate(job.asked["instruction"], **job.inputs())
        sound.save(check_sound_file(folder / job.output))
    except Exception as error:  # one job's failure must not take the others with it
        reason = " ".join(str(error).split())
        return {"error": reason if isinstance(error, InputError) else f"{error!r}"}
    return {"task": sound.task, "seconds": round(sound.seconds, 4)}


def _is_complete(known: dict[str, Any], same: dict[str, Any], file: Path) -> bool:
    """Whether an earlier result is of the same job, and there."""
    unchanged = all(known.get(key) == value for key, value in same.items())
    return unchanged and "error" not in known and file.is_file()


def _lines(results: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(result, ensure_ascii=False) + "\n" for result in results)


def _read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Earlier results by output; lines cut off by an interruption are left out."""
    results: dict[str, dict[str, Any]] = {}
    if path.is_file():
        for line in path.read_text("utf-8", errors="replace").splitlines():
            try:
                result = json.loads(line)
                results[result["output"]] = result
            except (ValueError, KeyError, TypeError):
                continue
    return results

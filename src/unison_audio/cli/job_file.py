"""Reads a file of jobs: one JSON object a line, each checked before any of them runs."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unison_audio.checks import FileInputs
from unison_audio.cli.any_length import SoundRequest, plan_sound
from unison_audio.cli.options import LengthFlags
from unison_audio.errors import InputError
from unison_audio.files import read_rows
from unison_audio.output_format import OUTPUT_OPTIONS, OutputFormat, merge_output
from unison_audio.sampling_params import OPTIONS, RENAMED, merge_options
from unison_audio.values import require_path, require_text, shown

if TYPE_CHECKING:
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

PATHS = ("source", "reference", "text_file")
"""Keys of files that a job reads."""

_TEXTS = ("instruction", *PATHS, "reference_text", "task", "asr", "subtitles", "output")


@dataclass(frozen=True, kw_only=True)
class GenerationJob:
    """One line of a jobs file, checked."""

    line: int
    """Line number, from 1."""
    asked: dict[str, Any]
    """The line's values with absolute paths; equal values give equal sounds."""
    request: SoundRequest
    """What it asks for; paths of outputs are relative to the folder of the outputs."""

    @property
    def output(self) -> str:
        """Name of the file to write."""
        return str(self.request.output)

    @property
    def files(self) -> list[str]:
        """Names of the files that it writes."""
        subtitles = self.request.length.subtitles
        return [self.output, *([] if subtitles is None else [str(subtitles)])]

    def inside(self, folder: Path) -> SoundRequest:
        """The request with its outputs in a folder."""
        request, subtitles = self.request, self.request.length.subtitles
        length = request.length
        if subtitles is not None:
            length = replace(length, subtitles=folder / subtitles)
        return replace(request, output=folder / request.output, length=length)


def read_jobs(
    path: Path, variant: "Variant", form: OutputFormat | None = None
) -> list[GenerationJob]:
    """Read and check a jobs file: one JSON object a line, empty lines aside.

    Recordings are checked by their headers only; `check_job` does the rest.

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
        plan_sound(variant, job.request)
        names[job.output] = number
        return job

    return read_rows(path, KEYS, "jobs", read, hidden=tuple(RENAMED))


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
    for key in PATHS:
        if key in values:
            values[key] = str(require_path(folder / values[key], key))
    options = {key: value for key, value in values.items() if key in (*OPTIONS, *RENAMED)}
    inputs = {key: value for key, value in values.items() if key in INPUTS}
    for key in ("source", "reference"):
        if key in inputs:
            inputs[key] = Path(inputs[key])
    request = SoundRequest(
        instruction=values["instruction"],
        output=Path(output),
        form=form,
        inputs=FileInputs(**inputs),
        length=_read_length(values),
        sampling=merge_options(None, options),
    )
    return GenerationJob(line=number, asked=values, request=request)


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

"""Options that several commands share: inputs, lengths, sampling, and where the models run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from unison_audio.checks import FileInputs
from unison_audio.cluster import Cluster
from unison_audio.errors import InputError
from unison_audio.machine import MachineSettings
from unison_audio.output_format import OutputFormat
from unison_audio.sampling_params import RENAMED, SamplingParams, warn_renamed

if TYPE_CHECKING:
    pass

_FLAGS = Parameter(name="*", negative_iterable=())
"""One flag for each field, with the field's docstring as its help."""

OutputPath = Annotated[Path, Parameter(name=["--output", "-o"])]

Weights = Annotated[str, Parameter(name=["--variant"])]

SamplingFlags = Annotated[SamplingParams | None, _FLAGS]
"""The flags of `SamplingParams`."""

InputFlags = Annotated[FileInputs | None, _FLAGS]
"""The flags of `FileInputs`."""

FormatFlags = Annotated[OutputFormat | None, _FLAGS]
"""The flags of `OutputFormat`."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MachineFlags(MachineSettings):
    """Where and how the models run."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LengthFlags:
    """Any length: texts from files, regions, pipes, subtitles."""

    region: Annotated[
        list[str] | None, Parameter(negative="", allow_leading_hyphen=True, consume_multiple=False)
    ] = None
    """Edit only between these times, such as 3.2-7.5 or 0:01.5-1:05; may be given several times.
    All other samples stay as they are, at the recording's own rate, channels and depth."""
    inpaint: Annotated[
        list[str] | None, Parameter(negative="", allow_leading_hyphen=True, consume_multiple=False)
    ] = None
    """Replace these times of the source by what the instruction names, such as [Audio] rain; may
    be given several times. All other samples stay as they are."""
    extend_after: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """Let the source go on for so long after its end, with what the instruction names."""
    extend_before: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """Let the source begin so much earlier, with what the instruction names."""
    extract: Annotated[bool, Parameter(negative="")] = False
    """Write only what the instruction names of the source, such as [Audio] rain or [Speech]; of a
    removal, what it takes away."""
    text_file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None
    """Speak a text of any length from this file, or from standard input for -."""
    subtitles: Path | None = None
    """Also write the times of sentences, or of a timeline's events: .srt, .vtt or .json."""
    raw: bool = False
    """With -o -: write 16-bit samples without a WAV header, as --format pcm does."""

    @property
    def fills(self) -> tuple[str, ...]:
        """The flags given that fill a gap inside the source, or beside it."""
        given = {
            "--inpaint": self.inpaint,
            "--extend-after": self.extend_after,
            "--extend-before": self.extend_before,
        }
        return tuple(flag for flag, value in given.items() if value)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ClusterFlags:
    """A cluster that shares the work."""

    ray_address: str | None = None
    """Address of a Ray cluster that runs the jobs; auto uses this machine's, local starts one."""
    workers: int | None = None
    """Workers on the cluster, each with the model; by default 2."""

    def cluster(self, gpus: float) -> Cluster | None:
        """The cluster; None for this process.

        Args:
            gpus: GPUs that each worker takes.

        Raises:
            InputError: If the flags do not fit together.
        """
        if self.ray_address is None:
            if self.workers is not None:
                raise InputError("--workers goes with --ray-address; add it, or leave both out.")
            return None
        count = 2 if self.workers is None else self.workers
        return Cluster(address=self.ray_address, workers=count, gpus=gpus)


def rename_flags(arguments: Sequence[str]) -> list[str]:
    """Replace flags by old names of sampling options, with a warning for each.

    Args:
        arguments: The command line without the program's name.
    """
    old = {
        f"--{prefix}{name.replace('_', '-')}": f"--{prefix}{RENAMED[name].replace('_', '-')}"
        for name in RENAMED
        for prefix in ("", "no-")
    }
    renamed: list[str] = []
    for place, argument in enumerate(arguments):
        if argument == "--":  # all further arguments are values, never flags
            return [*renamed, *arguments[place:]]
        flag, equals, value = argument.partition("=")
        if flag in old:
            warn_renamed(flag, old[flag])
            argument = f"{old[flag]}{equals}{value}"
        renamed.append(argument)
    return renamed

"""Options that several commands share: inputs, sampling, and where the models run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from unison_audio.checks import FileInputs
from unison_audio.files import listing_hash
from unison_audio.output_format import OutputFormat
from unison_audio.sampling_params import RENAMED, SamplingParams, warn_renamed

if TYPE_CHECKING:
    from unison_audio.checkpoint_files import OpenCheckpoint
    from unison_audio.pipeline import Unison

_FLAGS = Parameter(name="*", negative_iterable=())
"""One flag for each field, with the field's docstring as its help."""

SamplingFlags = Annotated[SamplingParams | None, _FLAGS]
"""The flags of `SamplingParams`."""

InputFlags = Annotated[FileInputs | None, _FLAGS]
"""The flags of `FileInputs`."""

FormatFlags = Annotated[OutputFormat | None, _FLAGS]
"""The flags of `OutputFormat`."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MachineFlags:
    """Where and how the models run."""

    device: str = "cpu"
    """cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Computing type of the backbone; by default the device decides."""
    quantize: Literal["int8"] | None = None
    """Run the backbone's linear layers in int8, on a CPU. The language model is in int8 where
    --text-files names a folder that `unison-audio quantize` wrote."""
    low_memory: bool | None = None
    """Hold one model in memory at a time; by default only where they do not fit together."""
    codec_files: Path | None = None
    """Folder of the codec's files; by default they are downloaded."""
    text_files: Path | None = None
    """Folder of the language model; by default it is downloaded."""
    compile: bool = False
    """Compile the backbone's blocks first, which pays off for many sounds."""

    def identity(self) -> dict[str, Any]:
        """The settings that change the sound: computing type, codec, language model."""
        folders = {"codec_files": self.codec_files, "text_files": self.text_files}
        return {
            "dtype": self.dtype,
            **({} if self.quantize is None else {"quantize": self.quantize}),
            **{name: folder and listing_hash(folder) for name, folder in folders.items()},
        }

    def open(self, name_or_path: "str | OpenCheckpoint") -> "Unison":
        """Load a model.

        Raises:
            InputError: If there is no such checkpoint or device, or the model does not fit.
        """
        from unison_audio.device import require_device, require_dtype
        from unison_audio.pipeline import Unison

        return Unison.from_pretrained(
            name_or_path,
            require_device(self.device),
            dtype=require_dtype(self.dtype),
            quantize=self.quantize,
            low_memory=self.low_memory,
            codec_files=self.codec_files,
            text_files=self.text_files,
            compiled=self.compile,
        )


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

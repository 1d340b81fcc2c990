"""`MachineSettings`: where and how models run, in plain values that cross processes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unison_audio.files import listing_hash

if TYPE_CHECKING:
    from unison_audio.checkpoint_files import OpenCheckpoint
    from unison_audio.pipeline import Unison


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """Where and how the models run."""

    device: str = "cpu"
    """cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Computing type of the backbone; by default the device decides. If bfloat16 is given, a
    full-size model's vocoder computes its convolutions in it as well."""
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
    """Compile the backbone's blocks first, which pays off for many sounds; on a GPU also replay a
    step as a CUDA graph."""

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

"""Options that several commands share: how to sample, and where to run."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from unison_audio.pipeline import Unison
    from unison_audio.sampling_params import SamplingOptions


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SamplingFlags:
    """How to sample, where the preset is not to decide."""

    preset: Literal["default", "fast"] | None = None
    """default, or fast: as few steps as lose nothing that can be measured."""
    steps: int | None = None
    """Steps of sampling."""
    solver: str | None = None
    """euler (the paper's), heun, unipc, dpm++, or euler-even for distilled models."""
    guidance: float | None = None
    """How closely the instruction is followed."""
    guidance_interval: Annotated[tuple[float, float] | None, Parameter(negative="")] = None
    """Guidance only between two times, from and to, of 1 (noise) down to 0."""
    guidance_rescale: float | None = None
    """How far, from 0 to 1, guidance's gain in loudness is taken back."""
    temperature: float | None = None
    """Strength of the noise that sampling starts from, 0 to 2; less makes safer sounds that vary
    less."""
    candidates: int | None = None
    """Sounds to draw, of which the one that fits best, as the model itself finds, is kept."""
    keep_source: bool | None = None
    """Edit the recording itself, so that what is not edited stays as it is; by default nano does it
    where no words are put in, and the others never."""

    def options(self) -> "SamplingOptions":
        """As the library takes them."""
        return {
            "preset": self.preset,
            "steps": self.steps,
            "solver": self.solver,
            "guidance_scale": self.guidance,
            "guidance_interval": self.guidance_interval,
            "guidance_rescale": self.guidance_rescale,
            "temperature": self.temperature,
            "candidates": self.candidates,
            "keep_source": self.keep_source,
        }


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MachineFlags:
    """Where and how the models run."""

    device: str = "cpu"
    """cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type the backbone computes in; by default the device decides."""
    low_memory: bool | None = None
    """One model in memory at a time; by default where they do not fit together."""
    codec_files: Path | None = None
    """Folder of the codec's own files, if they are not to be downloaded."""
    text_files: Path | None = None
    """Folder of the language model, if it is not to be downloaded."""
    compile: bool = False
    """Compile the backbone's blocks first: worth it for many sounds."""

    def open(self, name_or_path: str) -> "Unison":
        """The model, ready to be called.

        Raises:
            InputError: If there is no such checkpoint or device, or it does not fit.
        """
        import torch

        from unison_audio.errors import InputError
        from unison_audio.pipeline import Unison

        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"The device {self.device!r} cannot be used ({reason}); use cpu, or install the "
                "torch build of your device."
            ) from error
        return Unison.from_pretrained(
            name_or_path,
            self.device,
            dtype=None if self.dtype is None else getattr(torch, self.dtype),
            low_memory=self.low_memory,
            codec_files=self.codec_files,
            text_files=self.text_files,
            compiled=self.compile,
        )

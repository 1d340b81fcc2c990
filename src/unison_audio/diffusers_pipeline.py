"""The pipeline class of an exported folder, as diffusers loads and calls it."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import AudioPipelineOutput, DiffusionPipeline
from torch import nn

from unison_audio.audio import Audio
from unison_audio.checkpoint_files import open_checkpoint
from unison_audio.diffusers_export import CHECKPOINT
from unison_audio.errors import InputError
from unison_audio.pipeline import Unison


class UnisonComponent(nn.Module):
    """A checkpoint with its codec and text encoder: the one component of the pipeline.

    It is a module because diffusers moves, casts and passes `torch_dtype` to modules alone. Its
    models are opened again where device or type change: which of them are in memory, and in which
    type, depends on both.

    Args:
        folder: The checkpoint's folder.
        device: Device to run on; "meta" holds no models.
        dtype: Computing type of the backbone; None lets the device decide.
    """

    def __init__(
        self,
        folder: str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._dtype: torch.dtype | None = None
        self.folder, self.variant = folder, open_checkpoint(folder).variant
        self._open(torch.device(device), dtype)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        torch_dtype: torch.dtype | None = None,
        **options: Any,
    ) -> "UnisonComponent":
        """Open a checkpoint's folder.

        Args:
            folder: The component's folder.
            torch_dtype: Computing type of the backbone.
            **options: Ignored; diffusers may pass options for modules of its own.
        """
        return cls(str(Path(folder) / CHECKPOINT), dtype=torch_dtype)

    @property
    def unison(self) -> Unison:
        """The models.

        Raises:
            InputError: If they are on the device meta.
        """
        if self._unison is None:
            raise InputError(
                "The pipeline is on the device meta, which holds no weights; move it with "
                ".to('cpu') or to another device first."
            )
        return self._unison

    @property
    def device(self) -> torch.device:
        """Device of the models."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """Computing type of the backbone."""
        if self._dtype is None:
            return torch.float32 if self._unison is None else self._unison.backbone.dtype
        return self._dtype

    def to(self, *args: Any, **kwargs: Any) -> "UnisonComponent":
        """Move the models and cast the backbone; arguments are those of `nn.Module.to`."""
        device, dtype = torch._C._nn._parse_to(*args, **kwargs)[:2]
        where, how = device or self._device, dtype or self._dtype
        if (where, how) != (self._device, self._dtype):
            self._open(where, how)
        return self

    def save_pretrained(self, folder: str | os.PathLike[str], **options: Any) -> None:
        """Write the checkpoint.

        Args:
            folder: Where to.
            **options: Ignored, as in `from_pretrained`.
        """
        self.unison.save_pretrained(Path(folder) / CHECKPOINT)

    def _open(self, device: torch.device, dtype: torch.dtype | None) -> None:
        # The old models go first: both together may not fit.
        self._unison: Unison | None = None
        if device.type != "meta":
            self._unison = Unison.from_pretrained(self.folder, device, dtype=dtype)
        self._device, self._dtype = device, dtype


class UnisonPipeline(DiffusionPipeline):
    """`Unison.generate` behind the interface of diffusers.

    Args:
        unison: The checkpoint with its models.
    """

    unison: UnisonComponent

    def __init__(self, unison: UnisonComponent) -> None:
        super().__init__()
        self.register_modules(unison=unison)

    @property
    def sample_rate(self) -> int:
        """Samples per second of the sounds."""
        return int(self.unison.variant.sample_rate)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
        **inputs: Any,
    ) -> AudioPipelineOutput | tuple[list[np.ndarray]]:
        """Generate or edit audio.

        Args:
            prompt: One instruction, or several.
            num_inference_steps: Sampling steps; by default the variant's.
            guidance_scale: Guidance scale; by default the variant's.
            generator: Its initial seed becomes the seed, where no `seed` is given.
            return_dict: Whether an `AudioPipelineOutput` is returned, or a tuple.
            **inputs: As for `Unison.generate`, such as source, duration and seed.

        Returns:
            The sounds, one array (samples,) for each instruction.
        """
        if generator is not None:
            inputs.setdefault("seed", generator.initial_seed() % (1 << 63))
        if num_inference_steps is not None:
            inputs["steps"] = num_inference_steps
        if guidance_scale is not None:
            inputs["guidance_scale"] = guidance_scale
        made: Audio | list[Audio] = self.unison.unison.generate(prompt, **inputs)
        sounds = made if isinstance(made, list) else [made]
        audios: Any = [sound.waveform.numpy() for sound in sounds]  # of any lengths
        return AudioPipelineOutput(audios=audios) if return_dict else (audios,)

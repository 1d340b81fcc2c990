"""The pipeline class of an exported folder, as diffusers loads and calls it."""

import os
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import AudioPipelineOutput, DiffusionPipeline

from unison_audio.audio import Audio
from unison_audio.pipeline import Unison


class UnisonComponent:
    """A checkpoint with its codec and text encoder: the one component of the pipeline.

    Args:
        folder: The checkpoint's folder.
        device: Device to run on.
    """

    def __init__(self, folder: str, device: torch.device | str = "cpu") -> None:
        self.folder, self.unison = folder, Unison.from_pretrained(folder, device)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], **options: Any) -> "UnisonComponent":
        """Open a checkpoint's folder.

        Args:
            folder: The folder.
            **options: Ignored; diffusers may pass options for modules of its own.
        """
        return cls(os.fspath(folder))

    def save_pretrained(self, folder: str | os.PathLike[str], **options: Any) -> None:
        """Write the checkpoint.

        Args:
            folder: Where to.
            **options: Ignored, as in `from_pretrained`.
        """
        self.unison.save_pretrained(folder)


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
        return int(self.unison.unison.variant.sample_rate)

    def to(self, *args: Any, **kwargs: Any) -> "UnisonPipeline":
        """Move the models to a device; arguments are those of `DiffusionPipeline.to`."""
        super().to(*args, **kwargs)
        given = [kwargs.get("device"), *args]
        for device in (one for one in given if isinstance(one, str | torch.device)):
            if torch.device(device) != self.unison.unison.device:
                self.register_modules(unison=UnisonComponent(self.unison.folder, device))
        return self

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

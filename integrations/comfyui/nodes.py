"""The nodes: load a model, generate, speak, edit."""

from typing import Any

import torch

from unison_audio import Unison
from unison_audio.errors import InputError
from unison_audio.sampling_params import PRESETS
from unison_audio.variants import VARIANTS

from .comfy_audio import (
    ComfyAudio,
    as_comfy,
    from_comfy,
    progress_bar,
    read_regions,
    torch_device,
)

CATEGORY = "audio/UNISON"

MODEL = "UNISON_MODEL"
"""Type of the link between the loader and the other nodes."""

_SEED = ("INT", {"default": 0, "min": 0, "max": (1 << 63) - 1, "control_after_generate": True})

_PRESET = (["default", *(name for name in PRESETS if name != "default")],)

_STEPS = (
    "INT",
    {"default": 0, "min": 0, "max": 1000, "tooltip": "Sampling steps; 0 takes the preset's."},
)


def _sampling(preset: str, steps: int) -> dict[str, Any]:
    """Options of sampling; what is left at its default follows from the model."""
    options: dict[str, Any] = {} if preset == "default" else {"preset": preset}
    return options | ({"steps": steps} if steps else {})


class UnisonLoad:
    """Loads a model."""

    CATEGORY = CATEGORY
    FUNCTION = "load"
    RETURN_TYPES = (MODEL,)
    RETURN_NAMES = ("model",)
    DESCRIPTION = "Loads a UNISON model; nano is part of the package and needs no download."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The node's inputs."""
        return {
            "required": {
                "variant": (list(VARIANTS), {"default": "nano"}),
                "device": (["auto", "cpu", "cuda"],),
            },
            "optional": {
                "checkpoint": (
                    "STRING",
                    {"default": "", "tooltip": "A checkpoint's folder, in place of the variant."},
                ),
            },
        }

    def load(self, variant: str, device: str, checkpoint: str = "") -> tuple[Unison]:
        """Load it.

        Args:
            variant: A variant's name.
            device: auto, cpu or cuda.
            checkpoint: A checkpoint's folder, in place of the variant.
        """
        return (Unison.from_pretrained(checkpoint.strip() or variant, torch_device(device)),)


class UnisonGenerate:
    """Generates a sound, a scene or short speech from an instruction."""

    CATEGORY = CATEGORY
    FUNCTION = "generate"
    RETURN_TYPES = ("AUDIO",)
    DESCRIPTION = 'For example: [Audio] rain, or [Speech] A male voice saying "good morning".'

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The node's inputs."""
        return {
            "required": {
                "model": (MODEL,),
                "instruction": ("STRING", {"default": "[Audio] rain", "multiline": True}),
                "seconds": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": 0.0,
                        "max": 3600.0,
                        "step": 0.1,
                        "tooltip": "Length; 0 takes the model's default.",
                    },
                ),
                "seed": _SEED,
                "preset": _PRESET,
                "steps": _STEPS,
            },
        }

    def generate(
        self,
        model: Unison,
        instruction: str,
        seconds: float,
        seed: int,
        preset: str = "default",
        steps: int = 0,
    ) -> tuple[ComfyAudio]:
        """Generate it.

        Args:
            model: The model.
            instruction: With the tags of the task table.
            seconds: Length; 0 for the default.
            seed: Seed of the noise.
            preset: Preset of sampling.
            steps: Sampling steps; 0 for the preset's.
        """
        sound = model.generate(
            instruction,
            duration=seconds or None,
            seed=seed,
            on_step=progress_bar(),
            **_sampling(preset, steps),
        )
        return (as_comfy([sound.waveform[None]], sound.sample_rate),)


class UnisonSpeech:
    """Speaks a text of any length."""

    CATEGORY = CATEGORY
    FUNCTION = "speak"
    RETURN_TYPES = ("AUDIO",)
    DESCRIPTION = "Speaks a text of any length, in a male, a female or a recorded voice."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The node's inputs."""
        return {
            "required": {
                "model": (MODEL,),
                "text": ("STRING", {"default": "Good morning.", "multiline": True}),
                "voice": (["female", "male"],),
                "seed": _SEED,
                "preset": _PRESET,
                "steps": _STEPS,
            },
            "optional": {
                "reference": ("AUDIO", {"tooltip": "A recording of the voice to speak in."}),
                "reference_text": (
                    "STRING",
                    {"default": "", "multiline": True, "tooltip": "The words of the recording."},
                ),
            },
        }

    def speak(
        self,
        model: Unison,
        text: str,
        voice: str,
        seed: int,
        preset: str = "default",
        steps: int = 0,
        reference: ComfyAudio | None = None,
        reference_text: str = "",
    ) -> tuple[ComfyAudio]:
        """Speak it.

        Args:
            model: The model.
            text: The words.
            voice: male or female, where there is no recording.
            seed: Seed of the noise.
            preset: Preset of sampling.
            steps: Sampling steps; 0 for the preset's.
            reference: A recording of the voice.
            reference_text: Its words; empty to have them transcribed.
        """
        show = progress_bar()
        options = _sampling(preset, steps)
        if reference is None:
            sounds = model.stream(f"[Speech] A {voice} voice", text=text, seed=seed, **options)
        else:
            sounds = model.stream(
                "[Speech with voice]",
                text=text,
                reference=_single(reference, "reference"),
                reference_text=reference_text.strip() or None,
                seed=seed,
                **options,
            )
        parts, rate = [], model.variant.sample_rate
        for done, sound in enumerate(sounds, start=1):
            parts.append(sound.waveform)
            show(done, done + 1)  # how many windows a text has is known at its end
        show(len(parts), len(parts))
        return (as_comfy([torch.cat(parts)[None]], rate),)


class UnisonEdit:
    """Edits a recording of any length, everywhere or in regions."""

    CATEGORY = CATEGORY
    FUNCTION = "edit"
    RETURN_TYPES = ("AUDIO",)
    DESCRIPTION = (
        "For example: [Edit][Audio] Add rain. The sample rate and the channels stay, and so does "
        "every sample outside the regions."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The node's inputs."""
        return {
            "required": {
                "model": (MODEL,),
                "audio": ("AUDIO",),
                "instruction": (
                    "STRING",
                    {"default": "[Edit][Audio] Add rain", "multiline": True},
                ),
                "regions": (
                    "STRING",
                    {"default": "", "tooltip": "Such as 3.2-7.5, 9-10; empty for everywhere."},
                ),
                "extract": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "Return what a removal takes away."},
                ),
                "seed": _SEED,
                "preset": _PRESET,
                "steps": _STEPS,
            },
        }

    def edit(
        self,
        model: Unison,
        audio: ComfyAudio,
        instruction: str,
        regions: str,
        extract: bool,
        seed: int,
        preset: str = "default",
        steps: int = 0,
    ) -> tuple[ComfyAudio]:
        """Edit it.

        Args:
            model: The model.
            audio: The recordings.
            instruction: With the tags of the task table.
            regions: Times outside of which nothing changes; empty for everywhere.
            extract: Whether the result is what a removal takes away.
            seed: Seed of the noise.
            preset: Preset of sampling.
            steps: Sampling steps; 0 for the preset's.
        """
        sounds = from_comfy(audio, "audio")
        show = progress_bar()
        edited = []
        for number, sound in enumerate(sounds):

            def on_window(done: int, total: int, before: int = number) -> None:
                show(before * total + done, len(sounds) * total)

            result = model.edit(
                instruction,
                sound,
                regions=read_regions(regions),
                seed=seed,
                extract=extract,
                on_window=on_window,
                **_sampling(preset, steps),
            )
            samples = result.read(0, result.frames)  # (samples, channels)
            edited.append(torch.from_numpy(samples.copy()).T)
        return (as_comfy(edited, sounds[0][1]),)


def _single(audio: ComfyAudio, name: str) -> Any:
    sounds = from_comfy(audio, name)
    if len(sounds) != 1:
        raise InputError(f"{name} holds {len(sounds)} recordings; connect one.")
    return sounds[0]

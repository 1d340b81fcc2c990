"""ComfyUI's AUDIO, its progress bar and its devices, as the nodes use them."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.tasks.times import Region, parse_region

ComfyAudio = dict[str, Any]
"""`waveform`, (batch, channels, samples), and `sample_rate`."""


def as_comfy(waveforms: Sequence[Tensor], sample_rate: int) -> ComfyAudio:
    """Pack sounds of one length.

    Args:
        waveforms: (channels, samples) each.
        sample_rate: Samples per second.
    """
    return {"waveform": torch.stack(list(waveforms)).float().cpu(), "sample_rate": sample_rate}


def from_comfy(audio: ComfyAudio, name: str) -> list[tuple[Tensor, int]]:
    """Unpack the sounds of a batch.

    Args:
        audio: What another node gives.
        name: Name of the input in messages.

    Returns:
        (channels, samples) with the sample rate, each.

    Raises:
        InputError: It is no AUDIO, or it is empty.
    """
    waveform = audio.get("waveform") if isinstance(audio, dict) else None
    if not isinstance(waveform, Tensor) or waveform.ndim != 3 or waveform.numel() == 0:
        shape = tuple(waveform.shape) if isinstance(waveform, Tensor) else type(audio).__name__
        raise InputError(
            f"{name} is {shape}; connect an AUDIO of (batch, channels, samples) with sound in it."
        )
    return [(sound.detach().float().cpu(), int(audio["sample_rate"])) for sound in waveform]


def read_regions(text: str) -> list[Region] | None:
    """Times such as `3.2-7.5, 9-10`; None for an empty text.

    Args:
        text: What the user typed.

    Raises:
        InputError: A time is not understood.
    """
    parts = [part for part in re.split(r"[,;\n]", text) if part.strip()]
    return [parse_region(part.strip()) for part in parts] or None


def progress_bar() -> Callable[[int, int], None]:
    """A function that shows progress and stops the work where the user has canceled it."""
    import comfy.model_management
    import comfy.utils

    bar = comfy.utils.ProgressBar(1)

    def show(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return show


def torch_device(choice: str) -> str:
    """The device that a user chose; `auto` is the one that ComfyUI computes on."""
    if choice != "auto":
        return choice
    import comfy.model_management

    return str(comfy.model_management.get_torch_device())

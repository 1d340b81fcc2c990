"""From the UNISON release's weights to a checkpoint folder of this project."""

import dataclasses
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from unison_audio import checkpoint, checkpoint_files
from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.variants import Variant, find_variant

PICKLES = (".pt", ".pth", ".ckpt", ".bin")


def import_release(
    weights: str | os.PathLike[str],
    variant: str,
    output: str | os.PathLike[str],
    *,
    system_prompt_file: Path | None = None,
    dtype: str = "float32",
) -> Variant:
    """Make a checkpoint that `Unison.from_pretrained` takes.

    Args:
        weights: A ``.safetensors`` file, a pickle of tensors (``.pt``, also with moving averages
            inside), or `owner/name` of a repository on the hub with ``model.safetensors``.
        variant: Name of what the weights are of.
        output: Folder of the checkpoint; made if missing.
        system_prompt_file: Text file with the system prompt of the weights' training; line ends
            at its end are left out.
        dtype: Type of the stored weights: float32, bfloat16 or float16.

    Returns:
        The variant as it was stored.

    Raises:
        InputError: If a file cannot be read, or keys are missing, left over or misshapen; the
            message lists each.
    """
    types = {str(each).removeprefix("torch."): each for each in checkpoint.DISK_TYPES}
    if dtype not in types:
        raise InputError(f"The weights' type is {dtype!r}; use one of {', '.join(types)}.")
    found = find_variant(variant)
    if system_prompt_file is not None:
        found = dataclasses.replace(found, system_prompt=read_prompt(system_prompt_file))
    state = checkpoint.import_release_state(_read(weights), found.backbone)
    with torch.device("meta"):
        backbone = UnisonBackbone(found.backbone)
    backbone.load_state_dict(state, assign=True)
    checkpoint.save(output, found, backbone, dtype=types[dtype])
    return found


def _read(weights: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The release's state dict, memory-mapped."""
    path = Path(weights)
    if not path.exists():
        path = checkpoint_files.resolve(weights) / checkpoint_files.WEIGHTS_FILE
    elif path.is_dir():
        path = path / checkpoint_files.WEIGHTS_FILE
    try:
        if path.suffix in PICKLES:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        elif path.suffix == ".safetensors":
            state = load_file(path)
        else:
            raise InputError(
                f"{path} is neither .safetensors nor one of {', '.join(PICKLES)}; give the "
                "release's model.safetensors or a training checkpoint."
            )
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}; check the path.") from error
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be read ({reason}); download it again.") from error
    if not isinstance(state, Mapping):
        raise InputError(f"{path} holds a {type(state).__name__} where named weights are expected.")
    return state


def read_prompt(path: Path) -> str:
    """Read a system prompt from a text file; line ends at its end are left out.

    Raises:
        InputError: If it is missing, empty or no text.
    """
    try:
        prompt = path.read_text("utf-8").rstrip("\n")
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}; check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({error}).") from error
    if not prompt.strip():
        raise InputError(f"{path} is empty; leave the system prompt out, or write it there.")
    return prompt

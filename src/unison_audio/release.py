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
from torch import Tensor

from unison_audio import checkpoint, checkpoint_files
from unison_audio.checkpoint import _require_same_keys
from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.config import FUSIONS, BackboneConfig
from unison_audio.variants import Variant, find_variant

# Names of the release (right) for the modules here (left). Several on the right are one product
# here, stacked in this order.
RELEASE_MODULES = {
    "embed.conv": ("img_in.proj.0.conv",),
    "embed.mlp.gate_value": ("img_in.proj.2.w1.conv", "img_in.proj.2.w3.conv"),
    "embed.mlp.out": ("img_in.proj.2.w2.conv",),
    "time.linear_in": ("time_in.mlp.0",),
    "time.linear_out": ("time_in.mlp.2",),
    "persistent_projector": ("omni_last_proj",),
    "head.modulation": ("final_layer.adaLN_modulation.1",),
    "head.linear": ("final_layer.linear",),
}

RELEASE_STREAM = {
    "modulation": ("mod.linear",),
    "query_norm": ("attn_q_norm",),
    "key_norm": ("attn_k_norm",),
    "output.attention": ("attn_proj",),
    "output.mlp_in": ("mlp.fc1",),
    "output.mlp_out": ("mlp.fc2",),
}

RELEASE_STREAMS: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "audio": ("img", RELEASE_STREAM | {"query_key_value": ("attn_q", "attn_k", "attn_v")}),
    "text": ("txt", RELEASE_STREAM | {"query": ("attn_q",), "key_value": ("attn_k", "attn_v")}),
}

RELEASE_SINGLE = {
    "modulation": ("modulation.linear",),
    "query_key_value": ("linear1_q", "linear1_k", "linear1_v"),
    "query_norm": ("q_norm",),
    "key_norm": ("k_norm",),
    "mlp_in": ("linear1_mlp",),
    "out": ("linear2.fc",),
}

RELEASE_WRAPPERS = ("ema", "shadow", "model", "module", "state_dict")


def _release_modules(config: BackboneConfig) -> dict[str, tuple[str, ...]]:
    """The release's names for every module of a backbone."""
    modules = dict(RELEASE_MODULES)
    for k in range(config.blocks):
        modules[f"fresh_projectors.{k}"] = (f"deep_fusion_projs.{k}",)
        if FUSIONS[config.fusion].single:
            for ours, theirs in RELEASE_SINGLE.items():
                modules[f"blocks.{k}.{ours}"] = tuple(f"single_blocks.{k}.{x}" for x in theirs)
            continue
        for stream, (prefix, names) in RELEASE_STREAMS.items():
            for ours, theirs in names.items():
                modules[f"blocks.{k}.{stream}.{ours}"] = tuple(
                    f"double_blocks.{k}.{prefix}_{x}" for x in theirs
                )
    return modules


def import_release_state(
    state_dict: Mapping[str, Any], config: BackboneConfig
) -> dict[str, Tensor]:
    """Rename the weights of the UNISON release to the names used here, losing none.

    Args:
        state_dict: what was saved; also inside wrappers such as `{"ema": {"shadow": ...}}` and
            with `module.` before each name.
        config: the backbone that the weights are for.

    Returns:
        A state dict for `UnisonBackbone(config)`.

    Raises:
        InputError: if keys are missing, left over or of another shape; the message lists each.
    """
    while wrapper := next(
        (name for name in RELEASE_WRAPPERS if isinstance(state_dict.get(name), Mapping)), None
    ):
        state_dict = state_dict[wrapper]
    if state_dict and all(name.startswith("module.") for name in state_dict):
        state_dict = {name.removeprefix("module."): value for name, value in state_dict.items()}

    with torch.device("meta"):
        backbone = UnisonBackbone(config)
    modules = _release_modules(config)
    sources: dict[str, list[str]] = {}
    expected: dict[str, tuple[int, ...]] = {}
    for name, tensor in backbone.state_dict().items():
        module, _, leaf = name.rpartition(".")
        sources[name] = [f"{source}.{leaf}" for source in modules[module]]
        rows = tensor.shape[0] // len(sources[name])
        expected |= dict.fromkeys(sources[name], (rows, *tensor.shape[1:]))
    _require_same_keys("the release's state dict", expected, state_dict)
    return {name: torch.cat([state_dict[key] for key in keys]) for name, keys in sources.items()}


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
    state = import_release_state(_read(weights), found.backbone)
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

"""From the UNISON release's weights to a checkpoint folder of this project."""

import dataclasses
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unison_audio import checkpoint
from unison_audio.errors import InputError
from unison_audio.key_checks import require_same_keys
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.config import FUSIONS, BackboneConfig
from unison_audio.release_files import (
    check_length,
    check_prompt,
    find_weights,
    padding_side,
    read_prompt,
)
from unison_audio.tensor_files import unread_reason
from unison_audio.text.hub_names import HUB_NAMES
from unison_audio.variants import Variant, find_variant

# Names of the release (right) for the modules here (left). Where there are several, this project
# computes them as one matrix product: their weights are stacked in this order.
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

UNNAMED = "shadow_params"
"""Key under which diffusers' EMAModel saves its averages: a list in the order of the parameters."""

# The release's modules in the order of its parameters, which `model.parameters()` follows.
RELEASE_ORDER = (
    *("img_in.proj.0.conv", "img_in.proj.2.w1.conv", "img_in.proj.2.w2.conv"),
    *("img_in.proj.2.w3.conv", "time_in.mlp.0", "time_in.mlp.2"),
)

RELEASE_STREAM_ORDER = (
    *("mod.linear", "attn_q", "attn_k", "attn_v", "attn_q_norm", "attn_k_norm", "attn_proj"),
    *("mlp.fc1", "mlp.fc2"),
)

RELEASE_SINGLE_ORDER = (
    *("linear1_q", "linear1_k", "linear1_v", "linear1_mlp", "linear2.fc", "q_norm", "k_norm"),
    "modulation.linear",
)

RELEASE_LAST = ("final_layer.linear", "final_layer.adaLN_modulation.1")

SAME_RUN_COSINE = 0.5
"""Least cosine between averaged and plain weights of one run. Weights of two different matrices are
near 0; averages over the last thousands of steps stay near 1."""


class ReleaseNote(UserWarning):
    """What a user should know about an import that succeeded."""


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
    state_dict: Mapping[str, Any],
    config: BackboneConfig,
    named: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Renames the weights of the UNISON release to the names used here, losing none.

    Args:
        state_dict: What was saved; also inside wrappers such as `{"ema": {"shadow": ...}}`, with
            `module.` before each name, or as the unnamed list of diffusers' EMAModel.
        config: The backbone that the weights are for.
        named: Weights of the same run by name. Many parameters share a shape, so that shapes alone
            do not prove the order of an unnamed list; these do.

    Returns:
        A state dict for `UnisonBackbone(config)`.

    Raises:
        InputError: If keys are missing, left over or of another shape; the message names them.
    """
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
    found = _unwrapped(state_dict)
    if isinstance(found.get(UNNAMED), list | tuple):
        found = _name_in_order(found[UNNAMED], expected, config)
        if named is not None:
            _require_same_run(found, _unwrapped(named))
    what = "The weights in the release's state dict do not fit their config"
    require_same_keys(what, expected, found)
    return {name: torch.cat([found[key] for key in keys]) for name, keys in sources.items()}


def _unwrapped(state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
    """Opens wrappers around a state dict, and takes `module.` off its names."""
    while wrapper := next(
        (name for name in RELEASE_WRAPPERS if isinstance(state_dict.get(name), Mapping)), None
    ):
        state_dict = state_dict[wrapper]
    if state_dict and all(name.startswith("module.") for name in state_dict):
        state_dict = {name.removeprefix("module."): value for name, value in state_dict.items()}
    return state_dict


def release_order(config: BackboneConfig) -> list[str]:
    """The release's modules with parameters, in the order of `model.parameters()`."""
    blocks = range(config.blocks)
    modules = [*RELEASE_ORDER, *(f"deep_fusion_projs.{k}" for k in blocks), "omni_last_proj"]
    for k in blocks:
        for stream in ("img", "txt"):
            modules += [f"double_blocks.{k}.{stream}_{part}" for part in RELEASE_STREAM_ORDER]
    for k in blocks:
        modules += [f"single_blocks.{k}.{part}" for part in RELEASE_SINGLE_ORDER]
    return [*modules, *RELEASE_LAST]


def _name_in_order(
    values: list[Any] | tuple[Any, ...],
    expected: Mapping[str, tuple[int, ...]],
    config: BackboneConfig,
) -> dict[str, Tensor]:
    """Names an unnamed list of parameters by their order, and checks every shape."""
    names = [
        name
        for module in release_order(config)
        for name in (f"{module}.weight", f"{module}.bias")
        if name in expected
    ]
    if len(values) != len(names):
        raise InputError(
            f"The {UNNAMED} hold {len(values)} weights where this variant has {len(names)}; name "
            "the variant that they are of, or import the model.safetensors beside them."
        )
    for number, (name, value) in enumerate(zip(names, values, strict=True), start=1):
        if not isinstance(value, Tensor) or tuple(value.shape) != expected[name]:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"Number {number} of the {UNNAMED} is {shape} where {name} {expected[name]} stands "
                "in the release's order; name the variant that they are of, or import the "
                "model.safetensors beside them."
            )
    return dict(zip(names, values, strict=True))


def _require_same_run(averaged: Mapping[str, Tensor], named: Mapping[str, Any]) -> None:
    """Refuses averages that are not close to weights of the same name."""
    strange = []
    for name, value in averaged.items():
        other = named.get(name)
        if value.ndim < 2 or not isinstance(other, Tensor) or other.shape != value.shape:
            continue
        a, b = value.flatten().float(), other.flatten().float()
        if float(torch.cosine_similarity(a, b, dim=0)) < SAME_RUN_COSINE and bool(a.any()):
            strange.append(name)
    if strange:
        raise InputError(
            f"The unnamed averages do not belong to the named weights beside them: "
            f"{', '.join(strange[:5])} differ{' and more' if len(strange) > 5 else ''}; import "
            "the named weights instead, or move them away if they are of another run."
        )


PICKLES = (".pt", ".pth", ".ckpt", ".bin")

RELEASE_SECONDS, RELEASE_RMS = 10.0, 0.1

RELEASE_DITHER, DITHERED_RATE = 1e-4, 16_000
"""The release dithers in its mel front end at this rate and below."""

RELEASE_WINDOW = 126
"""256 tokens less the 130 that the release cuts off at the beginning of the padded prompt."""


def import_release(
    weights: str | os.PathLike[str],
    variant: str,
    output: str | os.PathLike[str],
    *,
    system_prompt_file: Path | None = None,
    dtype: str = "float32",
    text_files: Path | None = None,
    seconds: float | None = None,
) -> Variant:
    """Makes a checkpoint that `Unison.from_pretrained` takes.

    Warnings of the class `ReleaseNote` say what the import found: the padding side, and a system
    prompt that is missing or another one.

    Args:
        weights: A ``.safetensors`` file, a pickle of tensors (``.pt``, also with moving averages
            inside), a folder of either, or `owner/name` on the hub, also `owner/name/folder`.
        variant: Name of what the weights are of.
        output: Folder of the checkpoint; made if missing.
        system_prompt_file: Text file with the system prompt of the weights' training; line ends
            at its end are left out.
        dtype: Type of the stored weights: float32, bfloat16 or float16.
        text_files: Folder of the language model; its tokenizer's settings say on which side the
            release pads. Without it they are read from the hub.
        seconds: The one length that the weights were trained with: by default 10 s; 22 s for the
            paper's fine-tune to long speech.

    Returns:
        The variant as it was stored.

    Raises:
        InputError: If a file cannot be read, or keys are missing, left over or misshapen; the
            message names them.
    """
    types = {str(each).removeprefix("torch."): each for each in checkpoint.DISK_TYPES}
    if dtype not in types:
        raise InputError(f"The weights' type is {dtype!r}; use one of {', '.join(types)}.")
    found = find_variant(variant)
    prompt = "" if system_prompt_file is None else read_prompt(system_prompt_file)
    found = dataclasses.replace(found, system_prompt=prompt, **input_fields(found, seconds))
    # Before the hub is asked for the padding side, which takes a while without a network.
    files = find_weights(weights, variant)
    _require_known_suffix(files.weights)
    if found.text_encoder in HUB_NAMES:
        found = dataclasses.replace(found, text_window=_window(found, text_files))
        if not prompt:
            _note(
                "no system prompt was given; the released weights were trained with one, see "
                "docs/full-size.md"
            )
        elif difference := check_prompt(prompt):
            _note(difference)
    named = None if files.named is None else _read(files.named)
    state = import_release_state(_read(files.weights), found.backbone, named)
    with torch.device("meta"):
        backbone = UnisonBackbone(found.backbone)
    backbone.load_state_dict(state, assign=True)
    checkpoint.save(output, found, backbone, dtype=types[dtype])
    return found


def input_fields(variant: Variant, seconds: float | None = None) -> dict[str, Any]:
    """Fields of the config that say how the released weights saw recordings.

    Args:
        variant: The variant of the weights.
        seconds: The one length that they know; None for that of the release.

    Raises:
        InputError: If the length is out of range.
    """
    if seconds is None:
        seconds = min(RELEASE_SECONDS, variant.max_seconds)
    check_length(seconds, variant)
    return {
        "sample_seconds": seconds,
        "max_seconds": seconds,
        "default_seconds": min(variant.default_seconds, seconds),
        "zero_shot_seconds": min(variant.zero_shot_seconds, seconds),
        "source_rms": RELEASE_RMS,
        "wording": "release",
        "dither": RELEASE_DITHER if variant.sample_rate <= DITHERED_RATE else 0.0,
    }


def _window(variant: Variant, text_files: Path | None) -> int:
    """The text window that follows from the side on which the release pads.

    The release pads to 256 tokens and drops the first 130. Padded on the left that leaves the last
    126 of the whole prompt. Padded on the right it would leave the user's turn alone.
    """
    side, where = padding_side(text_files, HUB_NAMES[variant.text_encoder])
    if side is None:
        _note(
            f"{where} cannot be read; the prompt is taken to be padded on the left, as with the "
            f"published files: text_window {RELEASE_WINDOW}"
        )
        return RELEASE_WINDOW
    window = RELEASE_WINDOW if side == "left" else 0
    _note(f"{where} makes the release pad on the {side}: text_window {window}")
    return window


def _note(message: str) -> None:
    warnings.warn(message, ReleaseNote, stacklevel=3)


def _require_known_suffix(path: Path) -> None:
    if path.suffix not in (*PICKLES, ".safetensors"):
        raise InputError(
            f"{path} is neither .safetensors nor one of {', '.join(PICKLES)}; give the release's "
            "model.safetensors or a training checkpoint."
        )


def _read(path: Path) -> Mapping[str, Any]:
    """Reads the weights of a file, memory-mapped."""
    try:
        if path.suffix in PICKLES:
            mapped = zipfile.is_zipfile(
                path
            )  # torch before 1.6 wrote pickles that cannot be mapped
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        else:
            state = load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}; check the path.") from error
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} cannot be read ({unread_reason(error)}); download it again, or take a "
            ".safetensors file."
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise InputError(
            f"{path} cannot be read ({unread_reason(error)}); download it again."
        ) from error
    if not isinstance(state, Mapping):
        raise InputError(f"{path} holds a {type(state).__name__} where named weights are expected.")
    return state

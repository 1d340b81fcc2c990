"""Loads the three models of a variant, together or one at a time where memory is short."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from unison_audio import checkpoint
from unison_audio.checkpoint_files import OpenCheckpoint, open_checkpoint
from unison_audio.codecs.table import CODECS, AudioCodec
from unison_audio.device import (
    available_memory,
    preferred_dtype,
    require_device,
    require_dtype,
    return_large_blocks,
)
from unison_audio.errors import InputError
from unison_audio.hub import cache_folder
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.config import count_parameters
from unison_audio.model.int8 import QUANTIZATIONS, int8_parameters, pack_int8
from unison_audio.text.states import TextEncoder, TextSetup
from unison_audio.text.table import TEXT_ENCODERS
from unison_audio.values import shown
from unison_audio.variants import Variant

T = TypeVar("T")

WORKING_BYTES = 700 << 20
"""Memory of a run besides the weights: activations, text states, the program itself."""

LARGE_BACKBONE = 100_000_000
"""Parameters from which on a backbone computes in bfloat16 on a CPU that multiplies it fast."""

KEEP_PROMPT = "UNISON_AUDIO_KEEP_PROMPT"
"""Environment variable: 0 computes the system prompt for every call of the language model."""

FROZEN_BYTES = {
    "nano": 25 << 20,
    "mmaudio-16k": 1140 << 20,
    "mmaudio-44k": 1720 << 20,
    "minilm": 95 << 20,
    "qwen2.5-omni-7b": 2500 << 20,
    "qwen2.5-omni-3b": 1500 << 20,
}
"""Memory of each codec, and of each text encoder, streamed as in low memory."""


class LazyModel(Generic[T]):
    """A model that is loaded on first use.

    Args:
        load: Loads the model.
        keep: Whether it stays in memory after use.
    """

    def __init__(self, load: Callable[[], T], *, keep: bool = True) -> None:
        self._load, self._keep, self._users = load, keep, 0
        self._value: T | None = None

    @contextmanager
    def use(self) -> Iterator[T]:
        """Lend the model; unless it is kept, its memory is freed after its last use."""
        if self._value is None:
            self._value = self._load()
        self._users += 1
        try:
            yield self._value
        finally:
            self._users -= 1
            if not self._users and not self._keep:
                self._value = None
                _free_memory()

    def get(self) -> T:
        """Return the model; unless it is kept, it lives only as long as the caller's reference."""
        with self.use() as value:
            return value


def _free_memory() -> None:
    """Free the memory of models without references."""
    # Modules hold reference cycles, so only the collector frees them; the caching allocator then
    # gives the GPU's memory back to other models.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How and where models run; None lets the machine decide."""

    device: torch.device | str = "cpu"
    """Device of the backbone, the codec and a resident language model."""
    dtype: torch.dtype | None = None
    """Computing type of the backbone; None takes that of `computing_dtype`. bfloat16 is also that
    of a vocoder's convolutions on a CPU."""
    quantize: str | None = None
    """int8 for int8 layers in the backbone; None leaves the checkpoint as it is."""
    low_memory: bool | None = None
    """One model in memory at a time, a large language model layer by layer."""
    codec_files: Path | None = None
    """Folder of the codec's own files; None for the cache, filled by download."""
    text_files: Path | None = None
    """Folder of the language model; None for the hub's cache, filled by download."""
    compiled: bool = False
    """Whether torch.compile compiles the blocks, and a GPU replays a step as a CUDA graph."""


@dataclass(frozen=True, kw_only=True)
class VariantModels:
    """The models of a variant."""

    variant: Variant
    """The variant."""
    backbone: LazyModel[UnisonBackbone]
    """The trained model."""
    codec: LazyModel[AudioCodec]
    """Waveforms to latents and back."""
    text_encoder: LazyModel[TextEncoder]
    """Instructions to hidden states."""
    resident: bool
    """Whether all are in memory at once."""


def open_models(
    name_or_path: str | os.PathLike[str] | OpenCheckpoint, how: LoadOptions
) -> VariantModels:
    """Find a checkpoint and prepare to load its models within the free memory.

    Args:
        name_or_path: A variant's name, a folder, `owner/name` on the Hugging Face hub, or an open
            checkpoint.
        how: How and where they run.

    Raises:
        InputError: If there is no such checkpoint, its codec or text encoder is unknown, or it
            does not fit into memory.
    """
    opened = open_checkpoint(name_or_path)
    where, variant = opened.folder, opened.variant
    new_text = _row(TEXT_ENCODERS, variant.text_encoder, "text encoder", variant)
    new_codec = _row(CODECS, variant.codec, "codec", variant)
    device = require_device(how.device)
    dtype = require_dtype(how.dtype) or computing_dtype(variant, device)
    quantized = require_quantization(how.quantize, variant, device)
    low_memory = plan(variant, device, dtype, how.low_memory, quantized=quantized)
    if low_memory:
        return_large_blocks()
    setup = _text_setup(variant, how, device, streamed=True if low_memory else None)
    return VariantModels(
        variant=variant,
        backbone=LazyModel(
            partial(_load_backbone, opened, device, dtype, how.compiled, quantized, not low_memory),
            keep=not low_memory,
        ),
        codec=LazyModel(
            partial(_load_codec, new_codec, variant, where, how.codec_files, device, how.dtype),
            keep=not low_memory,
        ),
        text_encoder=LazyModel(partial(new_text, setup), keep=not low_memory),
        resident=not low_memory,
    )


def computing_dtype(variant: Variant, device: torch.device) -> torch.dtype:
    """The type that a backbone computes in by default.

    bfloat16 where the device multiplies it fast. On a CPU a small backbone stays in float32: its
    time goes into passes over small tensors, and nano's bits are the same on all machines.
    """
    if device.type == "cpu" and count_parameters(variant.backbone) < LARGE_BACKBONE:
        return torch.float32
    return preferred_dtype(device)


def require_quantization(name: object, variant: Variant, device: torch.device) -> bool:
    """Check a quantization scheme, and say whether the backbone has int8 layers.

    Raises:
        InputError: If there is no such scheme, or the device does not run it.
    """
    if name is not None and name not in QUANTIZATIONS:
        raise InputError(
            f"There is no quantization {shown(name)}; use {', '.join(QUANTIZATIONS)}, or leave it "
            "out."
        )
    quantized = name is not None or bool(variant.quantization)
    if quantized and device.type != "cpu":
        raise InputError(
            f"int8 runs on a CPU, and the device is {device}; "
            "use cpu, or weights that are not quantized."
        )
    return quantized


def open_frozen(
    variant: Variant, how: LoadOptions, checkpoint_folder: Path = Path()
) -> tuple[AudioCodec, TextEncoder]:
    """Load the codec and the text encoder of a variant, which training needs.

    Args:
        variant: The variant.
        how: Where they run, and where their files are.
        checkpoint_folder: Folder of a codec that is stored in the checkpoint.

    Raises:
        InputError: If a file is missing or damaged.
    """
    new_text = _row(TEXT_ENCODERS, variant.text_encoder, "text encoder", variant)
    new_codec = _row(CODECS, variant.codec, "codec", variant)
    device = torch.device(how.device)
    codec = _load_codec(new_codec, variant, checkpoint_folder, how.codec_files, device)
    return codec, new_text(_text_setup(variant, how, device, streamed=None))


def _text_setup(
    variant: Variant, how: LoadOptions, device: torch.device, *, streamed: bool | None
) -> TextSetup:
    """Settings of a variant's text encoder."""
    return TextSetup(
        picks=variant.read_layers,
        penultimate=variant.reads_penultimate,
        system_prompt=variant.system_prompt,
        window=variant.text_window,
        edit_tag_spelling=variant.edit_tag_spelling,
        letters=variant.letters,
        files=how.text_files,
        device=device,
        streamed=streamed,
        cache=cache_folder() / "text",
        keep_prompt=_keeps_prompt(),
    )


def _keeps_prompt() -> bool:
    value = os.environ.get(KEEP_PROMPT, "1")
    if value not in ("0", "1"):
        raise InputError(f"{KEEP_PROMPT} is {value!r}; use 1 or 0.")
    return value == "1"


def plan(
    variant: Variant,
    device: torch.device,
    dtype: torch.dtype,
    low_memory: bool | None,
    *,
    quantized: bool = False,
) -> bool:
    """Decide whether models are in memory together or one at a time.

    Args:
        variant: The variant to run.
        device: Device to run on.
        dtype: Computing type of the backbone.
        low_memory: The user's choice; None decides by the free memory.
        quantized: Whether the backbone has int8 layers.

    Returns:
        Whether one at a time.

    Raises:
        InputError: If it does not fit; the message says what would.
    """
    sizes = needed_bytes(variant, dtype, quantized=quantized)
    free = available_memory(device)
    # Unknown on some systems: loading may then fail, but refusing would be a guess.
    if free is None:
        return bool(low_memory)
    together, in_turn = sum(sizes.values()), max(sizes.values())
    # Together is faster: in low memory, every call loads the models again.
    if low_memory is None:
        low_memory = together + WORKING_BYTES > free
    needed = (in_turn if low_memory else together) + WORKING_BYTES
    if needed <= free:
        return low_memory
    largest = max(sizes, key=lambda part: sizes[part])
    cure = "close other programs, or take a smaller variant"
    if not low_memory:
        cure = f"ask for low memory, which needs {_gigabytes(in_turn + WORKING_BYTES)}"
    elif largest == "backbone" and dtype == torch.float32:
        cure += ", or bfloat16, which halves the backbone"
    raise InputError(
        f"{variant.name} needs {_gigabytes(needed)} of memory on {device} "
        f"({'its ' + largest + ' alone' if low_memory else 'all its models together'}), and "
        f"{_gigabytes(free)} are free; {cure}."
    )


def needed_bytes(
    variant: Variant, dtype: torch.dtype, *, quantized: bool = False
) -> dict[str, int]:
    """Memory of a variant's models, with the text encoder streamed as in low memory."""
    backbone = count_parameters(variant.backbone) * dtype.itemsize
    if quantized:
        backbone -= int8_parameters(variant.backbone) * (dtype.itemsize - 1)
    return {
        "text encoder": FROZEN_BYTES[variant.text_encoder],
        "backbone": backbone,
        "codec": FROZEN_BYTES[variant.codec],
    }


def _gigabytes(amount: int) -> str:
    return f"{amount / 1e9:.1f} GB"


def _load_backbone(
    opened: OpenCheckpoint,
    device: torch.device,
    dtype: torch.dtype,
    compiled: bool,
    quantized: bool,
    resident: bool,
) -> UnisonBackbone:
    backbone = checkpoint.load_backbone(
        opened.folder, opened.variant, dtype=dtype, quantize=quantized
    ).to(device)
    if quantized and resident:  # in low memory the weights stay in their mapped file
        pack_int8(backbone)
    if compiled:
        backbone.compile_blocks()
        backbone.graphed = device.type == "cuda"
    return backbone


def _load_codec(
    new: Callable[[Path, Path | None], AudioCodec],
    variant: Variant,
    where: Path,
    files: Path | None,
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> AudioCodec:
    codec = new(where, files)
    # A codec of other sizes would often run without an error and give noise.
    wanted = (variant.sample_rate, variant.latent_channels, variant.hop)
    found = (codec.sample_rate, codec.channels, codec.hop)
    if wanted != found:
        raise InputError(
            f"The codec in {files or where} has sample rate, channels and hop {found} where the "
            f"model needs {wanted}; take the two from one checkpoint."
        )
    if isinstance(codec, nn.Module):
        codec.to(device)
    if dtype == torch.bfloat16 and variant.codec != "nano":
        from unison_audio.codecs.mmaudio import MMAudioCodec

        # Only if asked for: what it costs a trained vocoder could not be measured.
        if isinstance(codec, MMAudioCodec):
            codec.vocoder_dtype = dtype
    return codec


def _row(table: dict[str, Any], key: str, what: str, variant: Variant) -> Any:
    if key not in table:
        raise InputError(
            f"The {what} {key!r} of variant {variant.name!r} is not known; use one of "
            f"{', '.join(map(repr, table))}."
        )
    return table[key]

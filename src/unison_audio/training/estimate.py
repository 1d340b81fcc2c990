"""What a training run takes: memory by part, floating-point work, days.

Nothing is estimated by rule of thumb that can be counted: the backbone is run on the meta device,
where shapes exist but no numbers, and its products and the tensors it keeps for the backward pass
are counted.
"""

import dataclasses
import time
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from unison_audio.errors import InputError
from unison_audio.loading import FROZEN_BYTES
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.config import FUSIONS
from unison_audio.training.parallel import STRATEGIES
from unison_audio.variants import Variant

BACKWARD_FACTOR = 3
"""Forward and backward together against the forward alone: each product becomes three."""

TEXT_PARAMETERS = {"qwen2.5-omni-7b": 7.07e9, "qwen2.5-omni-3b": 3.09e9, "minilm": 2.3e7}

TEXT_LAYERS = {"qwen2.5-omni-7b": 28, "qwen2.5-omni-3b": 36}
"""Layers of those that "fsdp" spreads over the devices."""

LAYERS_AT_ONCE = 2
"""Whole layers there are then at a time: the one that runs and the one on its way."""

CHAT_TOKENS = 64
"""Tokens of an instruction with its system prompt."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one step takes on one device, and a run on all."""

    parameters: int
    """Of the backbone."""
    memory: dict[str, int]
    """Bytes on each device, by part."""
    step_flop: float
    """Floating-point operations of one step over all devices."""
    flop_by_part: dict[str, float]
    """The same by part."""
    clips_per_step: int
    """Items of one step over all devices."""
    seconds_per_step: float
    """At the given throughput."""
    days: float
    """For all steps."""


def plan_training(
    variant: Variant,
    *,
    devices: int,
    batch: int,
    seconds: float = 10.0,
    steps: int = 300_000,
    tflops: float,
    tokens: int = 32,
    strategy: str = "ddp",
    mixed_precision: str = "bf16",
    gradient_checkpointing: bool = False,
    accumulate: int = 1,
) -> Plan:
    """Counts what a run takes.

    Args:
        variant: What is trained.
        devices: How many devices.
        batch: Items on a device at a time.
        seconds: Length of the clips.
        steps: Of the run; the paper gives 150,000 for its first stage and no number in all.
        tflops: What a device reaches in this model, in 10^12 operations a second.
        tokens: Text tokens of an instruction.
        strategy: "ddp" or "fsdp".
        mixed_precision: "no" or "bf16".
        gradient_checkpointing: Whether blocks are computed again in the backward pass.
        accumulate: Batches of a device in a step.

    Raises:
        InputError: If a number cannot be.
    """
    numbers = {"gpus": devices, "batch": batch, "steps": steps, "accumulate": accumulate}
    for name, value in {**numbers, "seconds": seconds, "throughput": tflops}.items():
        if not value > 0:
            raise InputError(f"{name} is {value}; it must be above 0")
    if strategy not in STRATEGIES:
        raise InputError(f"The strategy is {strategy!r}; use one of {', '.join(STRATEGIES)}")
    half = mixed_precision == "bf16"
    frames = max(1, int(seconds * variant.latent_fps))
    dtype = torch.bfloat16 if half else torch.float32
    backbone, inputs = meta_step(variant, 1, frames, tokens, dtype)
    flop, kept = count(backbone, inputs)
    parameters = sum(p.numel() for p in backbone.parameters())
    largest = max(sum(p.numel() for p in block.parameters()) for block in backbone.blocks)
    shared = devices if strategy == "fsdp" else 1
    if gradient_checkpointing:
        one_block, kept = kept // len(backbone.blocks), _block_inputs(variant, frames, dtype)
        kept += one_block
        flop_factor = BACKWARD_FACTOR + 1
    else:
        flop_factor = BACKWARD_FACTOR
    text = TEXT_PARAMETERS[variant.text_encoder]
    text_bytes = text * (2 if half else 4)
    if shared > 1 and (layers := TEXT_LAYERS.get(variant.text_encoder)):
        text_bytes = text_bytes / shared + text_bytes * LAYERS_AT_ONCE / layers
    memory = {
        "weights": 4 * parameters // shared,
        "gradients": 4 * parameters // shared,
        "optimiser": 8 * parameters // shared,
        "average": 4 * parameters // shared,
        "weights in bf16": 2 * (parameters if shared == 1 else 2 * largest) if half else 0,
        "activations": kept * batch,
        "text encoder": int(text_bytes),
        "codec": FROZEN_BYTES[variant.codec] // (2 if half else 1),
    }
    clips = devices * batch * accumulate
    by_part = {
        "backbone": float(flop * flop_factor * clips),
        "text encoder": 2.0 * text * CHAT_TOKENS * clips,
    }
    total = sum(by_part.values())
    per_step = total / (tflops * 1e12 * devices)
    return Plan(
        parameters=parameters,
        memory={name: amount for name, amount in memory.items() if amount},
        step_flop=total,
        flop_by_part=by_part,
        clips_per_step=clips,
        seconds_per_step=per_step,
        days=per_step * steps / 86_400,
    )


def meta_step(
    variant: Variant, batch: int, frames: int, tokens: int, dtype: torch.dtype
) -> tuple[UnisonBackbone, dict[str, Tensor | None]]:
    """A backbone and a batch with shapes but no numbers."""
    config, fusion = variant.backbone, FUSIONS[variant.backbone.fusion]
    with torch.device("meta"):
        backbone = UnisonBackbone(config).to(dtype)
        width = 2 * config.latent_channels + 1
        states = torch.empty(batch, config.blocks, tokens, config.text_dim, dtype=dtype)
        penultimate = torch.empty(batch, tokens, config.text_dim, dtype=dtype)
        inputs: dict[str, Tensor | None] = {
            "x": torch.empty(batch, width, frames, dtype=dtype),
            "t": torch.empty(batch),
            "hidden_states": states if fusion.fresh else None,
            "text_mask": torch.empty(batch, tokens, dtype=torch.bool),
            "penultimate": penultimate if fusion.persistent else None,
        }
    return backbone, inputs


def count(backbone: UnisonBackbone, inputs: dict[str, Tensor | None]) -> tuple[int, int]:
    """Floating-point operations of a forward pass, and bytes it keeps for the backward pass."""
    weights = {p.untyped_storage()._cdata for p in backbone.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no storage takes the place of another in the count

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), FlopCounterMode(display=False) as flop:
        backbone(**inputs)
    return flop.get_total_flops(), sum(kept.values())


def _block_inputs(variant: Variant, frames: int, dtype: torch.dtype) -> int:
    """Bytes that recomputation keeps of an item: every block's audio."""
    return variant.backbone.blocks * frames * variant.backbone.dim * dtype.itemsize


def measure_tflops(
    variant: Variant,
    device: torch.device,
    *,
    batch: int = 1,
    seconds: float = 10.0,
    rounds: int = 3,
) -> float:
    """What this machine reaches: forward and backward of one true-size block, timed.

    Args:
        variant: Whose block.
        device: Where.
        batch: Items at a time.
        seconds: Their length.
        rounds: Repetitions; the median counts.

    Returns:
        10^12 operations a second.
    """
    frames = max(1, int(seconds * variant.latent_fps))
    one = UnisonBackbone(dataclasses.replace(variant.backbone, blocks=1)).to(device)
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    config = one.config
    inputs = {
        "x": torch.randn(batch, 2 * config.latent_channels + 1, frames, device=device),
        "t": torch.rand(batch, device=device),
        "hidden_states": torch.randn(batch, 1, 32, config.text_dim, device=device),
        "text_mask": torch.ones(batch, 32, dtype=torch.bool, device=device),
        "penultimate": torch.randn(batch, 32, config.text_dim, device=device),
    }
    with FlopCounterMode(display=False) as flop:
        one(**inputs)
    work = BACKWARD_FACTOR * flop.get_total_flops()
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = one(**inputs).float().square().mean()
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return work / median(times[1:]) / 1e12

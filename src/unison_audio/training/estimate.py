"""Estimates a training run: memory by part, floating-point work, days.

What can be counted is counted. The backbone runs on the meta device, which has shapes but no
numbers; its products and the tensors kept for the backward pass are counted.
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
from unison_audio.training.configs import EstimateConfig
from unison_audio.training.parallel import STRATEGIES
from unison_audio.variants import Variant

BACKWARD_FACTOR = 3
"""Work of forward and backward relative to the forward alone: each product becomes three."""

TEXT_PARAMETERS = {"qwen2.5-omni-7b": 7.07e9, "qwen2.5-omni-3b": 3.09e9, "minilm": 2.3e7}

TEXT_LAYERS = {"qwen2.5-omni-7b": 28, "qwen2.5-omni-3b": 36}
"""Layers of the text encoders that "fsdp" shards over the devices."""

WHOLE_LAYERS = 2
"""Whole layers in memory at a time with "fsdp": the running one and the prefetched one."""

TEXT_TOKENS = 32
"""Tokens of an instruction."""

PROMPT_TOKENS = 64
"""Tokens of an instruction with its system prompt."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a step needs on each device, and a run on all of them."""

    parameters: int
    """Parameters of the backbone."""
    memory: dict[str, int]
    """Bytes on each device, by part."""
    step_flop: float
    """Floating-point operations of a step over all devices."""
    flop_by_part: dict[str, float]
    """Floating-point operations of a step, by part."""
    clips_per_step: int
    """Clips of a step over all devices."""
    seconds_per_step: float
    """Seconds of a step at the given throughput."""
    days: float
    """Days of the run."""


def estimate_training(variant: Variant, config: EstimateConfig) -> Estimate:
    """Estimates a training run.

    Args:
        variant: The variant to train.
        config: The run.

    Raises:
        InputError: If a number is not positive, or the strategy is unknown.
    """
    config.check()
    if config.strategy not in STRATEGIES:
        raise InputError(
            f"The strategy is {config.strategy!r}; use one of {', '.join(STRATEGIES)}."
        )
    half = config.mixed_precision == "bf16"
    frames = max(1, int(config.seconds * variant.latent_fps))
    dtype = torch.bfloat16 if half else torch.float32
    backbone, inputs = meta_step(variant, 1, frames, TEXT_TOKENS, dtype)
    flop, kept = count(backbone, inputs)
    flop_factor = BACKWARD_FACTOR
    if config.gradient_checkpointing:
        # One block at a time has its activations; of the others only the inputs are kept. The
        # backward pass runs each block forward once more.
        kept = kept // len(backbone.blocks) + _block_inputs(variant, frames, dtype)
        flop_factor += 1
    memory = {
        **_weight_memory(backbone, config),
        "activations": kept * config.batch,
        "text encoder": _text_memory(variant, config),
        "codec": FROZEN_BYTES[variant.codec] // (2 if half else 1),
    }
    clips = config.gpus * config.batch * config.accumulate
    by_part = {
        "backbone": float(flop * flop_factor * clips),
        # A product with n weights takes 2 n operations a token; the frozen encoder has no backward.
        "text encoder": 2.0 * TEXT_PARAMETERS[variant.text_encoder] * PROMPT_TOKENS * clips,
    }
    total = sum(by_part.values())
    per_step = total / (config.throughput * 1e12 * config.gpus)
    return Estimate(
        parameters=sum(p.numel() for p in backbone.parameters()),
        memory={name: amount for name, amount in memory.items() if amount},
        step_flop=total,
        flop_by_part=by_part,
        clips_per_step=clips,
        seconds_per_step=per_step,
        days=per_step * config.steps / 86_400,
    )


def _weight_memory(backbone: UnisonBackbone, config: EstimateConfig) -> dict[str, int]:
    """Bytes of the weights, their gradients, moments and average: all in float32."""
    parameters = sum(p.numel() for p in backbone.parameters())
    shards = config.gpus if config.strategy == "fsdp" else 1
    # Autocast copies all weights to bfloat16. FSDP casts a unit when it gathers it, and holds two.
    largest = max(sum(p.numel() for p in block.parameters()) for block in backbone.blocks)
    cast = parameters if shards == 1 else 2 * largest
    return {
        "weights": 4 * parameters // shards,
        "gradients": 4 * parameters // shards,
        "optimizer": 8 * parameters // shards,  # AdamW's two moments
        "average": 4 * parameters // shards,
        "weights in bf16": 2 * cast if config.mixed_precision == "bf16" else 0,
    }


def _text_memory(variant: Variant, config: EstimateConfig) -> int:
    """Bytes of the text encoder, sharded with "fsdp" if it is a large language model."""
    size = 2 if config.mixed_precision == "bf16" else 4
    total = TEXT_PARAMETERS[variant.text_encoder] * size
    layers = TEXT_LAYERS.get(variant.text_encoder)
    if config.strategy == "fsdp" and config.gpus > 1 and layers:
        total = total / config.gpus + total * WHOLE_LAYERS / layers
    return int(total)


def meta_step(
    variant: Variant, batch: int, frames: int, tokens: int, dtype: torch.dtype
) -> tuple[UnisonBackbone, dict[str, Tensor | None]]:
    """A backbone and a batch on the meta device: shapes without numbers."""
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
    """Floating-point operations of a forward pass, and bytes kept for the backward pass."""
    # Several saved tensors can be views of one storage, so storages are counted, not tensors.
    weights = {p.untyped_storage()._cdata for p in backbone.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # a freed storage could give its address to another one

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
    """Bytes that recomputation keeps of an item: the audio input of every block."""
    return variant.backbone.blocks * frames * variant.backbone.dim * dtype.itemsize


def measure_tflops(
    variant: Variant,
    device: torch.device,
    *,
    batch: int = 1,
    seconds: float = 10.0,
    rounds: int = 3,
) -> float:
    """Measures this machine's throughput: forward and backward of one block at full width.

    Args:
        variant: The variant whose block runs.
        device: The device to measure.
        batch: Clips at a time.
        seconds: Length of the clips.
        rounds: Repetitions, of which the median is taken.

    Returns:
        Throughput in 10^12 operations a second.
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
    for _ in range(rounds + 1):  # the first one warms up and does not count
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = one(**inputs).float().square().mean()
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return work / median(times[1:]) / 1e12

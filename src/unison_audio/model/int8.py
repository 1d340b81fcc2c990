"""int8 layers: weights scaled per output row, activations per token, exact products of integers.

A quarter of float32's memory for these layers, and less time than bfloat16 on a processor with
VNNI; `benchmarks/number_types.py` measures both.
"""

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.config import BackboneConfig

QUANTIZATIONS = ("int8",)
"""Names of the schemes."""

TILE = 1 << 17
"""Numbers that are scaled and rounded at a time, so that the passes stay in the second cache."""

LARGEST = 127
"""Largest magnitude of a stored integer; -128 is left out, so that the range is symmetric."""

SMALLEST_SCALE = 1e-20
"""Scale of rows that are all zero, where the quotient would be NaN."""

KEPT = ("modulation",)
"""Last names of the blocks' linear layers that stay as they are.

They run once a run, not once a step, and their outputs scale whole streams. Embedder, projectors,
time embedding and head stay too, being outside the blocks: the first and the last layers lose most,
and the language model's states have outliers, against which a scale per token is coarse."""


class Int8Linear(nn.Module):
    """A linear layer with int8 weights; the result has the type of its input.

    Each row of the input is scaled on its own, and sums of integers are exact. So a row's result
    does not depend on the rows beside it.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        device: Device of the weights.
    """

    weight: Tensor | None
    scale: Tensor
    bias: Tensor

    def __init__(
        self, in_features: int, out_features: int, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        shape = (out_features, in_features)
        # Buffers: integers have no gradient, and a cast of the whole module must not touch them.
        self.register_buffer("weight", torch.zeros(shape, dtype=torch.int8, device=device))
        for name in ("scale", "bias"):
            self.register_buffer(
                name, torch.zeros(out_features, dtype=torch.float32, device=device)
            )
        self.packed: Tensor | None = None

    def pack(self) -> None:
        """Rearrange the weights for oneDNN, which needs two thirds of the time of torch's product.

        The rearranged weights replace the others in memory. The results are the same to the bit,
        and the state dict has the original layout.
        """
        if self.weight is not None and has_vnni():
            # oneDNN takes the numbers as they lie, whatever the strides.
            self.packed = torch.ops.onednn.qlinear_prepack(self.weight.contiguous(), None)
            self.weight = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        rows = x.flatten(0, -2)
        integers, scale = quantize_rows(rows)
        y = self._scaled_sums(integers)  # (rows, out_features), float32
        # The scales one after the other: their product could leave float32's range.
        found = torch.empty(y.shape, dtype=x.dtype)
        step = max(1, TILE // max(1, y.shape[1]))
        for tile, factor, target in zip(
            y.split(step), scale.split(step), found.split(step), strict=True
        ):
            target.copy_(torch.addcmul(self.bias, tile, factor, out=tile))
        return found.unflatten(0, x.shape[:-1])

    def _scaled_sums(self, integers: Tensor) -> Tensor:
        """Multiply by the weights and their scales: (rows, in_features) to float32."""
        if self.packed is None:
            assert self.weight is not None
            return torch._int_mm(integers, self.weight.t()) * self.scale
        # oneDNN computes signed inputs by a reference loop that takes a thousand times as long, and
        # unsigned ones by VNNI. Adding 128 flips the highest bit.
        unsigned = integers.view(torch.uint8).bitwise_xor_(128)
        zero_points = torch.zeros(len(self.scale), dtype=torch.int32)
        return torch.ops.onednn.qlinear_pointwise(
            *(unsigned, 1.0, 128, self.packed, self.scale, zero_points, None),
            *(1.0, 0, torch.float32, "none", [], ""),
        )

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.packed is not None:
            destination[f"{prefix}weight"] = self.packed.to_dense().t().contiguous()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        packed = self.packed
        if packed is not None:  # back to the layout of the state dict, and from there again
            shape = tuple(reversed(packed.shape))
            self.weight, self.packed = torch.empty(shape, dtype=torch.int8), None
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if packed is not None:
            self.pack()


@cache
def has_vnni() -> bool:
    """Whether the processor sums products of bytes exactly; without, pairs saturate at 16 bits."""
    if not hasattr(torch.cpu, "get_capabilities") or not torch.backends.mkldnn.is_available():
        return False
    return bool(torch.cpu.get_capabilities().get("avx512_vnni", False))


def quantize_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Round rows to integers with a scale for each, some rows at a time.

    Args:
        rows: (rows, features) in any floating-point type.

    Returns:
        Integers of the same shape, int8, and scales (rows, 1), float32.
    """
    integers = torch.empty(rows.shape, dtype=torch.int8)
    scale = torch.empty((len(rows), 1), dtype=torch.float32)
    step = max(1, TILE // max(1, rows.shape[1]))
    for tile, whole, factor in zip(
        rows.split(step), integers.split(step), scale.split(step), strict=True
    ):
        factor.copy_(row_scales(tile))
        whole.copy_(torch.round(tile / factor))
    return integers, scale


def row_scales(rows: Tensor) -> Tensor:
    """Step of each row's integers, (rows, 1) float32."""
    return rows.abs().amax(dim=1, keepdim=True).float().clamp(min=SMALLEST_SCALE) / LARGEST


def int8_layers(backbone: nn.Module, kept: Collection[str] = KEPT) -> list[str]:
    """Names of the linear layers that become int8: those of the blocks without `kept`."""
    return [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear)
        and name.startswith("blocks.")
        and name.rpartition(".")[2] not in kept
    ]


def int8_parameters(config: BackboneConfig) -> int:
    """Number of weights that become int8."""
    with torch.device("meta"):
        backbone = UnisonBackbone(config)
    state = backbone.state_dict()
    return sum(state[f"{name}.weight"].numel() for name in int8_layers(backbone))


def use_int8_layout(backbone: nn.Module, names: Collection[str]) -> None:
    """Replace linear layers by empty int8 layers of their sizes and device.

    Args:
        backbone: The model; it is changed in place.
        names: From `int8_layers`.
    """
    for name in names:
        parent, _, last = name.rpartition(".")
        linear = backbone.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        layer = Int8Linear(linear.in_features, linear.out_features, linear.weight.device)
        setattr(backbone.get_submodule(parent), last, layer)


def quantize_state(weights: Mapping[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """Convert a state dict to the int8 layout, one layer in float32 at a time.

    Args:
        weights: State dict in any floating-point type.
        names: From `int8_layers`.

    Returns:
        The state dict of the model after `use_int8_layout`; other entries are passed on.
    """
    state = dict(weights)
    for name in names:
        weight = weights[f"{name}.weight"].float()
        scale = row_scales(weight)
        state[f"{name}.weight"] = torch.round(weight / scale).to(torch.int8)
        state[f"{name}.scale"] = scale[:, 0].contiguous()
        state[f"{name}.bias"] = weights[f"{name}.bias"].float()
    return state


def pack_int8(backbone: nn.Module) -> None:
    """Rearrange the weights of all int8 layers for oneDNN, one layer at a time."""
    for module in backbone.modules():
        if isinstance(module, Int8Linear):
            module.pack()


def is_int8(backbone: nn.Module) -> bool:
    """Whether a model has int8 layers."""
    return any(isinstance(module, Int8Linear) for module in backbone.modules())

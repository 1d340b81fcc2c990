"""int8 layers: weights scaled per output row, activations per token, exact products of integers.

A quarter of float32's memory for these layers, and less time than bfloat16 on a processor with
VNNI; `benchmarks/number_types.py` measures both.
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.config import BackboneConfig

QUANTIZATIONS = ("int8",)
"""Names of the schemes."""

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

    weight: Tensor
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

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        rows = x.flatten(0, -2)
        scale = row_scales(rows)
        integers = torch.round(rows / scale).to(torch.int8)
        sums = torch._int_mm(integers, self.weight.t())  # (rows, out_features), int32
        # The scales one after the other: their product could leave float32's range.
        y = torch.addcmul(self.bias, sums * scale, self.scale)
        return y.to(x.dtype).unflatten(0, x.shape[:-1])


def row_scales(rows: Tensor) -> Tensor:
    """Step of each row's integers, (rows, 1) float32."""
    return rows.abs().amax(dim=1, keepdim=True).float().clamp(min=SMALLEST_SCALE) / LARGEST


def int8_layers(backbone: nn.Module, kept: Collection[str] = KEPT) -> list[str]:
    """Names of the linear layers that become int8: those of the blocks without `kept`."""
    return [
        name
        for name, module in backbone.named_modules()
        if type(module) is nn.Linear
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


def is_int8(backbone: nn.Module) -> bool:
    """Whether a model has int8 layers."""
    return any(isinstance(module, Int8Linear) for module in backbone.modules())

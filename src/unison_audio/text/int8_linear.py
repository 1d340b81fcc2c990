"""Linear layers of a language model with int8 weights, used directly from the mapped file."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from unison_audio.errors import InputError
from unison_audio.model.int8 import row_scales
from unison_audio.text.offload import Shards

SCALE = "scale"
"""Last part of the name of a row's step, float32, beside the int8 ``weight``."""


class MappedInt8Linear(nn.Module):
    """A linear layer with int8 weights, a scale for each row of them and for each token.

    The weights are parameters, unlike those of the backbone's int8 layers: what reads, checks and
    streams a layer walks its parameters. torch's product takes them in the layout of the file, so
    nothing is packed and the pages stay the file's.

    Args:
        linear: The layer that it replaces; its bias stays.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        shape = (linear.out_features, linear.in_features)
        self.weight = _constant(torch.zeros(shape, dtype=torch.int8, device=linear.weight.device))
        self.scale = _constant(
            torch.zeros(shape[0], dtype=torch.float32, device=linear.weight.device)
        )
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        rows = x.flatten(0, -2)
        scale = row_scales(rows)
        integers = torch.round(rows / scale).to(torch.int8)
        sums = torch._int_mm(integers, self.weight.t())  # (rows, out_features), int32
        # The scales one after the other: their product could leave float32's range.
        y = (sums * scale).mul_(self.scale)
        if self.bias is not None:
            y += self.bias
        return y.to(x.dtype).unflatten(0, x.shape[:-1])


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def linear_names(layer: nn.Module) -> list[str]:
    """Names of a layer's linear layers."""
    return [name for name, module in layer.named_modules() if type(module) is nn.Linear]


def use_int8(layers: Iterable[nn.Module], shards: Shards, device: torch.device) -> None:
    """Replaces the linear layers whose stored weights are int8.

    Args:
        layers: The layers, changed in place; those of layer i are named ``layers.i.*``.
        shards: The weights.
        device: Where they are to run.

    Raises:
        InputError: If there are int8 weights and the device is not a CPU.
    """
    integers = {name for name in shards.names if shards.dtype(name) == torch.int8}
    if integers and device.type != "cpu":
        raise InputError(
            f"The language model in {shards.folder} is int8, which runs on a CPU, and the device "
            f"is {device}; use the files that it was made from."
        )
    for number, layer in enumerate(layers):
        for name in linear_names(layer):
            if f"layers.{number}.{name}.weight" in integers:
                parent, _, leaf = name.rpartition(".")
                linear = layer.get_submodule(name)
                assert isinstance(linear, nn.Linear)
                setattr(layer.get_submodule(parent), leaf, MappedInt8Linear(linear))

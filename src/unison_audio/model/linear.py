"""Linear layers that take the fastest float32 product of the processor for inference."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGE_WEIGHT = 1 << 20
"""Weights from which on oneDNN multiplies: nano's layers have at most 0.3 M, and its bits are the
same on all machines; the smallest of the full-size blocks has 2.4 M."""


class Linear(nn.Linear):
    """`nn.Linear`, which multiplies large float32 weights by oneDNN where no gradient is kept.

    torch gives float32 products to MKL, which leaves AVX-512 out on AMD processors: oneDNN takes
    0.46 of its time there (`benchmarks/number_types.py`). It reads the weights as they are, mapped
    files too, so that nothing is packed or kept twice.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return apply_linear(input, self.weight, self.bias)


def apply_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute `x weight^T + bias` for (..., in_features)."""
    if (
        weight.numel() >= LARGE_WEIGHT
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() > 0
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and has_onednn()
    ):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


@cache
def has_onednn() -> bool:
    """Whether oneDNN multiplies in float32 with AVX-512."""
    return torch.backends.mkldnn.is_available() and (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
    )

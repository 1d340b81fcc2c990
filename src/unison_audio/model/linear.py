"""Linear layers that take the fastest float32 product of a processor.

torch gives float32 products to MKL, which leaves AVX-512 out on AMD processors. oneDNN takes 0.46
of its time there for the full-size layers, and about half for nano's in training
(`benchmarks/number_types.py`, `benchmarks/training_precision.py`). It reads the weights as they
are, mapped files too, so that nothing is packed or kept twice.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LARGE_WEIGHT = 1 << 20
"""Weights from which on oneDNN multiplies: nano's layers have at most 0.3 M, and its bits are the
same on all machines; the smallest of the full-size blocks has 2.4 M."""


SMALL_WEIGHT = 1 << 14
"""Weights below which no layer gains, in training either."""


class Linear(nn.Linear):
    """`nn.Linear`, whose float32 products oneDNN computes.

    In inference it takes large weights alone, in training all but the smallest.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return apply_linear(input, self.weight, self.bias)


def apply_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute `x weight^T + bias` for (..., in_features)."""
    least = SMALL_WEIGHT if torch.is_grad_enabled() else LARGE_WEIGHT
    if (
        weight.numel() < least
        or x.dtype != torch.float32
        or weight.dtype != torch.float32
        or x.device.type != "cpu"
        or x.numel() == 0
        or torch.is_autocast_enabled("cpu")
        or not has_onednn()
    ):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return _Product.apply(x, weight, bias)
    return _product(x, weight, bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Product(torch.autograd.Function):
    """`x weight^T + bias` and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.shape = x.shape
        # As torch does: a frozen layer keeps no input, and a first layer no weights.
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = _rows(gradient)
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(rows, weight.t()).view(ctx.shape) if of_x else None,
            _product(rows.t(), _rows(x).t()) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def _rows(x: Tensor) -> Tensor:
    """View as (rows, features), contiguous: a sum's gradient, say, has strides of zero."""
    return x.reshape(-1, x.shape[-1]).contiguous()


@cache
def has_onednn() -> bool:
    """Whether oneDNN multiplies in float32 with AVX-512."""
    return torch.backends.mkldnn.is_available() and (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
    )

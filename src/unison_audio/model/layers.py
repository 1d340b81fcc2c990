"""The parts a block is made of: rotary tables, attention, modulation, time and latent embedding.

Symbols as in the legend on top of `backbone.py`.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unison_audio.model.config import TIME_CHANNELS, conv_mlp_width

NORM_EPS = 1e-6

ROPE_BASE = 10_000.0

TIME_MAX_PERIOD = 10_000.0


@functools.lru_cache(maxsize=32)
def rotary_table(length: int, head_dim: int, rope_dim: int, device: torch.device) -> Tensor:
    """Phases of the rotary position embedding (Su et al. 2023).

    Pair i of a head (dimensions 2i and 2i + 1) rotates by `position / 10000^(2i / rope_dim)`; the
    pairs beyond `rope_dim` rotate by zero, which leaves them as they are and spares the split of
    a head into two parts. The tables belong to no module: they are in no state dict, and a model
    made on the meta device needs no rebuilding of them.

    Args:
        length: positions, T'.
        head_dim: width of a head.
        rope_dim: how many leading dimensions of the head rotate.
        device: where the table is used.

    Returns:
        `exp(i angle)`, (T', 1, head_dim / 2), complex64.
    """
    # A table made inside inference mode could not be used for training afterwards.
    # It is made on the CPU, whatever torch's default device is: MPS has no float64.
    with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
        pairs = torch.arange(0, rope_dim, 2, dtype=torch.float64)
        frequencies = torch.zeros(head_dim // 2, dtype=torch.float64)
        frequencies[: rope_dim // 2] = ROPE_BASE ** (-pairs / rope_dim)
        angles = torch.arange(length, dtype=torch.float64)[:, None, None] * frequencies
        return torch.polar(torch.ones_like(angles), angles).to(torch.complex64).to(device)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate interleaved pairs of dimensions by their position's angles.

    One complex product: on a CPU a tenth of the time that the same takes in real parts.

    Args:
        x: queries or keys, (B, T', heads, head_dim).
        table: from `rotary_table`.

    Returns:
        The same shape and type; computed in float32.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))  # (B, T', heads, head_dim/2)
    return torch.view_as_real(pairs * table).flatten(-2).to(x.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
    """Softmax attention of all heads.

    Args:
        q: (B, Q, heads, head_dim).
        k: (B, S, heads, head_dim).
        v: (B, S, heads, head_dim).
        key_mask: (B, 1, 1, S), True where a key may be attended to; None lets all keys count.

    Returns:
        (B, Q, d).
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, heads, length, head_dim)
    if q.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled():
        # The gradient of this takes a CPU four times as long in bfloat16 as in float32.
        with torch.autocast("cpu", enabled=False):
            attended = F.scaled_dot_product_attention(
                q.float(), k.float(), v.float(), attn_mask=key_mask
            )
    else:
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask)
    return attended.transpose(1, 2).flatten(2)  # (B, Q, d)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise each token and apply adaptive shift and scale: `LN(x) * (1 + scale) + shift`.

    Args:
        x: (B, length, d).
        shift: (B, 1, d).
        scale: (B, 1, d).

    Returns:
        (B, length, d).
    """
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=NORM_EPS), 1 + scale)


class HeadNorm(nn.Module):
    """RMSNorm over each head's queries or keys (QK-norm)."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, length, heads, head_dim) -> the same."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), NORM_EPS)


class ConvMLP(nn.Module):
    """Gated MLP whose three products are convolutions over time: `w2(SiLU(w1 x) * w3 x)`."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        hidden = conv_mlp_width(dim)
        # w1 and w3 read the same input: one convolution, its output cut in two.
        self.gate_value = nn.Conv1d(dim, 2 * hidden, kernel, padding=kernel // 2, bias=False)
        self.out = nn.Conv1d(hidden, dim, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, d, T') -> (B, d, T')."""
        gate, value = self.gate_value(x).chunk(2, dim=1)
        return self.out(F.silu(gate) * value)


class LatentEmbedder(nn.Module):
    """Turns the channels X = [z_t | z_s | m] into audio tokens.

    At the start of training only z_t is listened to: the input weights of z_s and m are zero.
    """

    def __init__(self, latent_channels: int, dim: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2 * latent_channels + 1, dim, kernel, padding=kernel // 2)
        self.mlp = ConvMLP(dim, kernel)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.weight[:, latent_channels:])
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2C+1, T') -> (B, T', d)."""
        return self.mlp(F.silu(self.conv(x))).transpose(1, 2)


class TimeEmbedder(nn.Module):
    """Embeds the flow time t in [0, 1], taken as it is and not in thousandths."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear_in = nn.Linear(TIME_CHANNELS, dim)
        self.linear_out = nn.Linear(dim, dim)
        for linear in (self.linear_in, self.linear_out):
            # A weight on the meta device has no values, and `normal_` there imports
            # torch._dynamo: a second of processor time for nothing.
            if not linear.weight.is_meta:
                nn.init.normal_(linear.weight, std=0.02)

    def forward(self, t: Tensor) -> Tensor:
        """(B,) -> (B, d)."""
        half = TIME_CHANNELS // 2
        steps = torch.arange(half, dtype=torch.float32, device=t.device) / half
        angles = t.float()[:, None] * torch.exp(-math.log(TIME_MAX_PERIOD) * steps)
        waves = torch.cat((angles.cos(), angles.sin()), dim=-1).to(self.linear_in.weight.dtype)
        return self.linear_out(F.silu(self.linear_in(waves)))

"""Parts of the backbone: rotary positions, attention, modulation, time and latent embedding.

Symbols are those of `backbone.py`.
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
    """Compute the phases of the rotary position embedding (Su et al. 2023).

    Pair i of a head (dimensions 2i and 2i + 1) rotates by `position / 10000^(2i / rope_dim)`. The
    pairs beyond `rope_dim` rotate by zero, so a head need not be split into two parts.

    Args:
        length: Number of positions T'.
        head_dim: Width of a head.
        rope_dim: Leading dimensions of the head that rotate.
        device: Device of the table.

    Returns:
        `exp(i angle)`, (T', 1, head_dim / 2), complex64.
    """
    # A cached function instead of a buffer: a buffer on the meta device has no values and would
    # have to be rebuilt after loading. A cached table that was made in inference mode could not be
    # used for training afterwards. It is made on the CPU, whatever torch's default device is: MPS
    # has no float64.
    with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
        # float64: in float32 an angle of 947 rad (22 s at 44.1 kHz) is off by up to 3e-5 rad.
        pairs = torch.arange(0, rope_dim, 2, dtype=torch.float64)
        frequencies = torch.zeros(head_dim // 2, dtype=torch.float64)
        frequencies[: rope_dim // 2] = ROPE_BASE ** (-pairs / rope_dim)
        angles = torch.arange(length, dtype=torch.float64)[:, None, None] * frequencies
        return torch.polar(torch.ones_like(angles), angles).to(torch.complex64).to(device)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate interleaved pairs of dimensions by the angles of their positions.

    Args:
        x: Queries or keys, (B, T', heads, head_dim).
        table: From `rotary_table`.

    Returns:
        The rotated x in its shape and data type; computed in float32.
    """
    # The released weights use interleaved pairs (2i, 2i + 1), not halves (i, i + rope_dim / 2) as
    # many LLMs do. One complex product takes a CPU a tenth of the time of real parts.
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))  # (B, T', heads, head_dim/2)
    return torch.view_as_real(pairs * table).flatten(-2).to(x.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
    """Compute softmax attention of all heads.

    Args:
        q: (B, Q, heads, head_dim).
        k: (B, S, heads, head_dim).
        v: (B, S, heads, head_dim).
        key_mask: (B, 1, 1, S), True for keys to attend to; None for all keys.

    Returns:
        (B, Q, d).
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, heads, length, head_dim)
    if q.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled():
        # On a CPU the gradient of attention takes four times as long in bfloat16 as in float32.
        with torch.autocast("cpu", enabled=False):
            attended = F.scaled_dot_product_attention(
                q.float(), k.float(), v.float(), attn_mask=key_mask
            )
    else:
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask)
    return attended.transpose(1, 2).flatten(2)  # (B, Q, d)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalize each token and apply adaptive shift and scale: `LN(x) * (1 + scale) + shift`.

    Args:
        x: (B, length, d).
        shift: (B, 1, d).
        scale: (B, 1, d).

    Returns:
        (B, length, d).
    """
    # The norm has no weights of its own: shift and scale, which depend on time, take their place.
    # The scale is an offset from 1, so that zero-initialized modulations leave the norm as it is.
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=NORM_EPS), 1 + scale)


class HeadNorm(nn.Module):
    """RMSNorm over each head's queries or keys (QK-norm).

    It bounds the attention logits, whose growth can make training diverge (Dehghani et al. 2023;
    paper section 3.4).
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, length, heads, head_dim) to the same shape."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), NORM_EPS)


class ConvMLP(nn.Module):
    """Gated MLP whose three products are convolutions over time: `w2(SiLU(w1 x) * w3 x)`."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        hidden = conv_mlp_width(dim)
        # The paper's w1 and w3 read the same input: one convolution computes both.
        self.gate_value = nn.Conv1d(dim, 2 * hidden, kernel, padding=kernel // 2, bias=False)
        self.out = nn.Conv1d(hidden, dim, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, d, T') to (B, d, T')."""
        gate, value = self.gate_value(x).chunk(2, dim=1)
        return self.out(F.silu(gate) * value)


class LatentEmbedder(nn.Module):
    """Embeds the channels X = [z_t | z_s | m] as audio tokens, one per latent frame."""

    def __init__(self, latent_channels: int, dim: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2 * latent_channels + 1, dim, kernel, padding=kernel // 2)
        self.mlp = ConvMLP(dim, kernel)
        nn.init.xavier_uniform_(self.conv.weight)
        # The input weights of z_s and m start at zero: early training is plain denoising, and the
        # model learns to use source and mask gradually (paper section 3.4).
        nn.init.zeros_(self.conv.weight[:, latent_channels:])
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 2C+1, T') to (B, T', d)."""
        return self.mlp(F.silu(self.conv(x))).transpose(1, 2)


class TimeEmbedder(nn.Module):
    """Embeds the flow time t in [0, 1].

    The released weights take t itself, without the usual factor of 1000. So only the fastest of the
    waves turn by a visible angle (1 rad at most), and the others are nearly constant. Weights that
    are trained on one scale are useless on the other.
    """

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
        """Map (B,) to (B, d)."""
        half = TIME_CHANNELS // 2
        steps = torch.arange(half, dtype=torch.float32, device=t.device) / half
        # float32 whatever the weights: near t = 1 bfloat16 resolves 0.004, and 100 steps are 0.01
        # apart.
        angles = t.float()[:, None] * torch.exp(-math.log(TIME_MAX_PERIOD) * steps)
        waves = torch.cat((angles.cos(), angles.sin()), dim=-1)  # (B, 256), cosines first
        waves = waves.to(self.linear_in.weight.dtype)
        return self.linear_out(F.silu(self.linear_in(waves)))

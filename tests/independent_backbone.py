"""UNISON's velocity written out literally, to hold the project's backbone against.

Nothing here comes from the package: the mathematics is that of the paper's section 3.4, the names
of the weights are those of the UNISON release, and nothing that is thrown away later is left out
of the computation (padded text, text queries, projectors at each call). It serves as a reference
for exactness and as the yardstick for speed.

Sizes: B batch, C latent channels, T frames, d token width, H heads, N text tokens, D blocks.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Weights = Callable[[str], Tensor]
Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
TEXT_LENGTH = 256
"""Tokens that the release pads each instruction to."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """What cannot be read off the weights, and what their shapes follow from."""

    channels: int
    blocks: int
    text_dim: int
    fusion: Literal["O", "L", "OL", "S"] = "O"
    width: int = 1024
    heads: int = 8
    rope_dim: int = 96
    kernel: int = 7


# The weights: which there are, and a rule that gives each of them its values.


def release_shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor in a state dict of the release."""
    d, head = size.width, size.width // size.heads
    hidden = math.ceil(4 * d * 2 / 3 / 256) * 256
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs)
        shapes[f"{name}.bias"] = (outputs,)

    shapes["img_in.proj.0.conv.weight"] = (d, 2 * size.channels + 1, size.kernel)
    shapes["img_in.proj.0.conv.bias"] = (d,)
    shapes["img_in.proj.2.w1.conv.weight"] = (hidden, d, size.kernel)
    shapes["img_in.proj.2.w2.conv.weight"] = (d, hidden, size.kernel)
    shapes["img_in.proj.2.w3.conv.weight"] = (hidden, d, size.kernel)
    linear("time_in.mlp.0", 256, d)
    linear("time_in.mlp.2", d, d)
    if size.fusion in ("L", "OL"):
        linear("omni_last_proj", size.text_dim, d)
    for k in range(size.blocks):
        if size.fusion != "L":
            linear(f"deep_fusion_projs.{k}", size.text_dim, d)
        if size.fusion == "S":
            block = f"single_blocks.{k}"
            linear(f"{block}.modulation.linear", d, 3 * d)
            for part in "qkv":
                linear(f"{block}.linear1_{part}", d, d)
            linear(f"{block}.linear1_mlp", d, 4 * d)
            linear(f"{block}.linear2.fc", 5 * d, d)
            shapes[f"{block}.q_norm.weight"] = shapes[f"{block}.k_norm.weight"] = (head,)
            continue
        for stream in ("img", "txt"):
            block = f"double_blocks.{k}.{stream}"
            whole = stream == "img" or size.fusion != "O"
            linear(f"{block}_mod.linear", d, (6 if whole else 2) * d)
            for part in "qkv":
                linear(f"{block}_attn_{part}", d, d)
            shapes[f"{block}_attn_q_norm.weight"] = shapes[f"{block}_attn_k_norm.weight"] = (head,)
            if whole:
                linear(f"{block}_attn_proj", d, d)
                linear(f"{block}_mlp.fc1", d, 4 * d)
                linear(f"{block}_mlp.fc2", 4 * d, d)
    linear("final_layer.adaLN_modulation.1", d, 2 * d)
    linear("final_layer.linear", d, size.channels)
    return shapes


def draw_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """A weight's values by its name alone: the rule behind the golden files in `fixtures`."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) + 1)
    w = torch.randn(shape, generator=generator)
    if "norm" in name:
        return w.mul_(0.1).add_(1)
    if len(shape) == 1:
        return w.mul_(0.02)
    return w.div_(math.sqrt(math.prod(shape[1:])))


def draw_state(size: Size) -> dict[str, Tensor]:
    """All weights of a release of that size."""
    return {name: draw_weight(name, shape) for name, shape in release_shapes(size).items()}


# The mathematics.


def pad_text(states: Tensor, mask: Tensor, length: int = TEXT_LENGTH) -> tuple[Tensor, Tensor]:
    """Zeros after the last token, up to the release's fixed length.

    `states` (B, ..., N, text_dim) and `mask` (B, N) become (B, ..., length, text_dim), (B, length).
    """
    more = length - mask.shape[-1]
    return functional.pad(states, (0, 0, 0, more)), functional.pad(mask, (0, more))


def attend_plainly(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """softmax(q k' / sqrt(head)) v over (B, H, S, head), of the keys in `visible` (B, S)."""
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~visible[:, None, None, :], -math.inf)
    return scores.softmax(-1) @ v


def attend_fused(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """The same by PyTorch's fused kernel, for timing."""
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None, None, :])


class Network:
    """The mathematics over one set of weights."""

    def __init__(self, weights: Weights, size: Size, attend: Attention = attend_plainly) -> None:
        self.weights = weights
        self.size = size
        self.attend = attend

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights(f"{name}.weight").T + self.weights(f"{name}.bias")

    def conv(self, name: str, x: Tensor, bias: Tensor | None = None) -> Tensor:
        weight = self.weights(f"{name}.conv.weight")
        return functional.conv1d(x, weight, bias, padding=self.size.kernel // 2)

    def layer_norm(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    def head_norm(self, name: str, x: Tensor) -> Tensor:
        scale = (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        return x * scale * self.weights(f"{name}.weight")

    def modulations(self, name: str, c: Tensor, parts: int) -> tuple[Tensor, ...]:
        return self.linear(name, functional.silu(c))[:, None, :].chunk(parts, dim=-1)

    def modulate(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return self.layer_norm(x) * (1 + scale) + shift

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.size.heads, -1)).transpose(1, 2)  # (B, S, d) -> (B, H, S, d/H)

    def rotate(self, x: Tensor) -> Tensor:
        """RoPE over the first `rope_dim` of each head, in neighbouring pairs."""
        n = self.size.rope_dim
        even = torch.arange(0, n, 2, dtype=torch.float64)
        position = torch.arange(x.shape[-2], dtype=torch.float64)
        angle = position[:, None] / 10_000 ** (even / n)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)  # (S, n/2)
        a, b = x[..., 0:n:2], x[..., 1:n:2]
        turned = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
        return torch.cat([turned, x[..., n:]], dim=-1)

    def embed(self, x: Tensor) -> Tensor:
        """(B, 2C+1, T) -> (B, T, d)."""
        first = "img_in.proj.0"
        x = functional.silu(self.conv(first, x, self.weights(f"{first}.conv.bias")))
        gate = functional.silu(self.conv("img_in.proj.2.w1", x))
        x = self.conv("img_in.proj.2.w2", gate * self.conv("img_in.proj.2.w3", x))
        return x.transpose(1, 2)

    def time(self, t: Tensor) -> Tensor:
        """(B,) -> (B, d)."""
        i = torch.arange(128, dtype=torch.float64)
        angle = t.double()[:, None] * torch.exp(-math.log(10_000) * i / 128)
        wave = torch.cat([angle.cos(), angle.sin()], dim=-1).to(t.dtype)
        return self.linear("time_in.mlp.2", functional.silu(self.linear("time_in.mlp.0", wave)))

    def stream_qkv(self, block: str, x: Tensor, shift: Tensor, scale: Tensor) -> list[Tensor]:
        x = self.modulate(x, shift, scale)
        q, k, v = (self.heads(self.linear(f"{block}_attn_{part}", x)) for part in "qkv")
        q = self.head_norm(f"{block}_attn_q_norm", q)
        k = self.head_norm(f"{block}_attn_k_norm", k)
        return [q, k, v]

    def stream_out(
        self, block: str, x: Tensor, attended: Tensor, modulations: tuple[Tensor, ...]
    ) -> Tensor:
        gate, mlp_shift, mlp_scale, mlp_gate = modulations
        x = x + gate * self.linear(f"{block}_attn_proj", attended)
        y = self.linear(f"{block}_mlp.fc1", self.modulate(x, mlp_shift, mlp_scale))
        y = functional.gelu(y, approximate="tanh")
        return x + mlp_gate * self.linear(f"{block}_mlp.fc2", y)

    def double_block(
        self, k: int, x: Tensor, text: Tensor, c: Tensor, visible: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Audio (B, T, d) and text (B, N, d); the text comes back changed in L and OL only."""
        img, txt = f"double_blocks.{k}.img", f"double_blocks.{k}.txt"
        whole_text = self.size.fusion != "O"
        of_audio = self.modulations(f"{img}_mod.linear", c, 6)
        of_text = self.modulations(f"{txt}_mod.linear", c, 6 if whole_text else 2)
        audio_q, audio_k, audio_v = self.stream_qkv(img, x, *of_audio[:2])
        text_q, text_k, text_v = self.stream_qkv(txt, text, *of_text[:2])
        q = torch.cat([self.rotate(audio_q), text_q], dim=2)
        k_ = torch.cat([self.rotate(audio_k), text_k], dim=2)
        v = torch.cat([audio_v, text_v], dim=2)
        attended = self.attend(q, k_, v, visible).transpose(1, 2).flatten(2)  # (B, T + N, d)
        frames = x.shape[1]
        x = self.stream_out(img, x, attended[:, :frames], of_audio[2:])
        if whole_text:
            text = self.stream_out(txt, text, attended[:, frames:], of_text[2:])
        return x, text

    def single_block(self, k: int, x: Tensor, text: Tensor, c: Tensor, visible: Tensor) -> Tensor:
        block, frames = f"single_blocks.{k}", x.shape[1]
        both = torch.cat([x, text], dim=1)
        shift, scale, gate = self.modulations(f"{block}.modulation.linear", c, 3)
        y = self.modulate(both, shift, scale)
        q, k_, v = (self.heads(self.linear(f"{block}.linear1_{part}", y)) for part in "qkv")
        q, k_ = self.head_norm(f"{block}.q_norm", q), self.head_norm(f"{block}.k_norm", k_)
        q = torch.cat([self.rotate(q[:, :, :frames]), q[:, :, frames:]], dim=2)
        k_ = torch.cat([self.rotate(k_[:, :, :frames]), k_[:, :, frames:]], dim=2)
        attended = self.attend(q, k_, v, visible).transpose(1, 2).flatten(2)
        mlp = functional.gelu(self.linear(f"{block}.linear1_mlp", y), approximate="tanh")
        out = self.linear(f"{block}.linear2.fc", torch.cat([attended, mlp], dim=-1))
        return (both + gate * out)[:, :frames]

    def velocity(
        self,
        x: Tensor,
        t: Tensor,
        hidden_states: Tensor,
        text_mask: Tensor,
        penultimate: Tensor | None = None,
    ) -> Tensor:
        """One call of the network.

        x: [z_t | z_s | m] (B, 2C+1, T). t (B,) in [0, 1]. hidden_states (B, D, N, text_dim), one
        layer a block (not read in L). text_mask (B, N), true where there is a token. penultimate
        (B, N, text_dim), in L and OL. Returns (B, C, T).
        """
        fusion = self.size.fusion
        frames = torch.ones(x.shape[0], x.shape[-1], dtype=torch.bool)
        mask = text_mask.bool()
        visible = torch.cat([frames, mask, mask] if fusion == "OL" else [frames, mask], dim=1)
        c = self.time(t)
        h = self.embed(x)
        carried = None
        if fusion in ("L", "OL"):
            assert penultimate is not None
            carried = self.linear("omni_last_proj", penultimate)
        for k in range(self.size.blocks):
            parts = [] if carried is None else [carried]
            if fusion != "L":
                parts.append(self.linear(f"deep_fusion_projs.{k}", hidden_states[:, k]))
            text = torch.cat(parts, dim=1)
            if fusion == "S":
                h = self.single_block(k, h, text, c, visible)
                continue
            h, text = self.double_block(k, h, text, c, visible)
            if carried is not None:
                carried = text[:, : carried.shape[1]]
        shift, scale = self.modulations("final_layer.adaLN_modulation.1", c, 2)
        v = self.linear("final_layer.linear", self.modulate(h, shift, scale))
        return v.transpose(1, 2)

    def guided_velocity(
        self,
        x: Tensor,
        t: Tensor,
        hidden_states: Tensor,
        text_mask: Tensor,
        scale: float,
        penultimate: Tensor | None = None,
    ) -> Tensor:
        """Classifier-free guidance by two calls; the second with zeros for text, all masked."""
        nothing = None if penultimate is None else torch.zeros_like(penultimate)
        with_text = self.velocity(x, t, hidden_states, text_mask, penultimate)
        without = self.velocity(
            x, t, torch.zeros_like(hidden_states), torch.zeros_like(text_mask), nothing
        )
        return without + scale * (with_text - without)

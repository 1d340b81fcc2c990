"""The sizes of a backbone and its number of parameters, known without torch."""

import math
from dataclasses import dataclass

from unison_audio.errors import InputError

MLP_RATIO = 4
"""Hidden width of a block's MLP, in token widths."""

TIME_CHANNELS = 256
"""Waves that the flow time is embedded in."""

CONV_MLP_MULTIPLE = 256
"""The hidden width of the latent embedder's MLP is a multiple of this."""


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """One way of bringing text into the blocks (paper section 4.4)."""

    fresh: bool
    """Each block reads its own layer of the text encoder, through its own projector."""
    persistent: bool
    """The penultimate layer is a stream of its own, carried from block to block."""
    single: bool
    """Audio and text share one set of weights in a block."""


FUSIONS = {
    "O": Fusion(fresh=True, persistent=False, single=False),
    "L": Fusion(fresh=False, persistent=True, single=False),
    "OL": Fusion(fresh=True, persistent=True, single=False),
    "S": Fusion(fresh=True, persistent=False, single=True),
}


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The sizes of a backbone."""

    latent_channels: int
    """Channels of the audio codec's latent, C."""
    dim: int = 1024
    """Token width, d."""
    heads: int = 8
    """Attention heads; they share `dim` evenly."""
    rope_dim: int = 96
    """Leading dimensions of a head that carry rotary positions; even."""
    blocks: int
    """Number of blocks, D."""
    text_dim: int
    """Width of the text encoder's hidden states."""
    fusion: str = "O"
    """How text enters: a key of `FUSIONS`."""
    embed_kernel: int = 7
    """Kernel of the latent embedder's convolutions, in frames; odd."""

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        if self.fusion not in FUSIONS:
            raise InputError(f"fusion is {self.fusion!r}; use one of {', '.join(FUSIONS)}.")
        for name in ("latent_channels", "dim", "heads", "blocks", "text_dim", "embed_kernel"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.dim % self.heads or self.head_dim % 2:
            raise InputError(
                f"dim {self.dim} over {self.heads} heads is {self.dim / self.heads:g}; "
                "choose them so that a head has an even whole number of dimensions."
            )
        if self.rope_dim % 2 or not 0 < self.rope_dim <= self.head_dim:
            raise InputError(
                f"rope_dim is {self.rope_dim}; it must be even and from 2 to the "
                f"{self.head_dim} dimensions of a head."
            )
        if self.embed_kernel % 2 == 0:
            raise InputError(f"embed_kernel is {self.embed_kernel}; it must be odd.")

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.dim // self.heads


def conv_mlp_width(dim: int) -> int:
    """Hidden width of the latent embedder's MLP: two thirds of 4 d, rounded up."""
    return math.ceil(2 * 4 * dim // 3 / CONV_MLP_MULTIPLE) * CONV_MLP_MULTIPLE


def count_parameters(config: BackboneConfig) -> int:
    """Count the weights of a backbone without building it.

    Building it under the meta device gives the same number, and needs torch.
    """
    d, kernel, fusion = config.dim, config.embed_kernel, FUSIONS[config.fusion]

    def linear(inputs: int, outputs: int) -> int:
        return (inputs + 1) * outputs

    embed = linear((2 * config.latent_channels + 1) * kernel, d)
    embed += 3 * conv_mlp_width(d) * d * kernel  # w1, w2 and w3, without biases
    time = linear(TIME_CHANNELS, d) + linear(d, d)
    projectors = (config.blocks * fusion.fresh + fusion.persistent) * linear(config.text_dim, d)
    head = linear(d, 2 * d) + linear(d, config.latent_channels)
    norms = 2 * config.head_dim
    if fusion.single:
        block = linear(d, (6 + MLP_RATIO) * d) + linear((1 + MLP_RATIO) * d, d) + norms
    else:
        output = linear(d, d) + linear(d, MLP_RATIO * d) + linear(MLP_RATIO * d, d)
        audio = linear(d, 9 * d) + norms + output
        text = linear(d, 5 * d) + norms
        if fusion.persistent:
            text += linear(d, 4 * d) + output
        block = audio + text
    return embed + time + projectors + config.blocks * block + head

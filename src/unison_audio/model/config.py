"""Sizes of a backbone and its number of parameters, without importing torch."""

import math
from dataclasses import dataclass

from unison_audio.errors import InputError
from unison_audio.values import shown

MOST_SIZES = {
    "latent_channels": 4096,
    "dim": 65_536,
    "heads": 1024,
    "blocks": 1024,
    "text_dim": 65_536,
    "embed_kernel": 1023,
}
"""Largest sizes, far above any model's: a damaged config must not ask for 10^9 blocks."""

MLP_RATIO = 4
"""Hidden width of a block's MLP, as a multiple of the token width."""

TIME_CHANNELS = 256
"""Cosines and sines of the flow time's embedding, 128 of each."""

CONV_MLP_MULTIPLE = 256
"""Divisor of the hidden width of the latent embedder's MLP."""


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """A way of conditioning the blocks on text (paper section 4.4)."""

    fresh: bool
    """Each block reads its own layer of the text encoder through its own projector."""
    persistent: bool
    """The penultimate layer is a separate stream that is carried from block to block."""
    single: bool
    """Audio and text share the weights of a block."""


# Figures of the paper's Table 8 on the D24 backbone (S: 32 blocks), FD and WER in %:
# O 20.46, 4.33; L 22.71; OL 20.18, 5.52; S 23.19, 4.84.
FUSIONS = {
    "O": Fusion(fresh=True, persistent=False, single=False),
    "L": Fusion(fresh=False, persistent=True, single=False),
    "OL": Fusion(fresh=True, persistent=True, single=False),
    "S": Fusion(fresh=True, persistent=False, single=True),
}


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Sizes of a backbone."""

    latent_channels: int
    """Channels C of the audio codec's latent."""
    dim: int = 1024
    """Token width d."""
    heads: int = 8
    """Number of attention heads; it divides `dim`."""
    rope_dim: int = 96
    """Leading dimensions of a head that carry rotary positions; even. The paper's [96, 16, 16] are
    three axes, and audio has positions on the first axis only."""
    blocks: int
    """Number of blocks D."""
    text_dim: int
    """Width of the text encoder's hidden states."""
    fusion: str = "O"
    """Text conditioning: a key of `FUSIONS`."""
    embed_kernel: int = 7
    """Kernel of the latent embedder's convolutions, in frames; odd."""

    def __post_init__(self) -> None:
        """Validate the sizes and their agreement."""
        if self.fusion not in FUSIONS:
            raise InputError(f"fusion is {self.fusion!r}; use one of {', '.join(FUSIONS)}.")
        for name, most in MOST_SIZES.items():
            if not 1 <= getattr(self, name) <= most:
                raise InputError(
                    f"{name} is {shown(getattr(self, name))}; it must be at least 1 and at most "
                    f"{most:,}."
                )
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
        if self.embed_kernel % 2 == 0:  # an even kernel would shift the frames by half a frame
            raise InputError(f"embed_kernel is {self.embed_kernel}; it must be odd.")

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.dim // self.heads


def conv_mlp_width(dim: int) -> int:
    """Return the hidden width of the latent embedder's MLP: two thirds of 4d, rounded up.

    A gated MLP has three matrices where a plain one has two, so two thirds of the width keep its
    number of parameters (Shazeer 2020).
    """
    return math.ceil(2 * 4 * dim // 3 / CONV_MLP_MULTIPLE) * CONV_MLP_MULTIPLE


def count_parameters(config: BackboneConfig) -> int:
    """Count the weights of a backbone without building it.

    Building it on the meta device gives the same number but needs torch.
    """
    d, kernel, fusion = config.dim, config.embed_kernel, FUSIONS[config.fusion]

    def linear(inputs: int, outputs: int) -> int:
        return (inputs + 1) * outputs

    embed = linear((2 * config.latent_channels + 1) * kernel, d)
    embed += 3 * conv_mlp_width(d) * d * kernel  # w1, w2 and w3, without biases
    time = linear(TIME_CHANNELS, d) + linear(d, d)
    projectors = (config.blocks * fusion.fresh + fusion.persistent) * linear(config.text_dim, d)
    head = linear(d, 2 * d) + linear(d, config.latent_channels)
    norms = 2 * config.head_dim  # of queries and keys
    if fusion.single:
        # Modulation 3d, q, k and v 3d, and the MLP; then one projection of [attention | MLP].
        block = linear(d, (6 + MLP_RATIO) * d) + linear((1 + MLP_RATIO) * d, d) + norms
    else:
        output = linear(d, d) + linear(d, MLP_RATIO * d) + linear(MLP_RATIO * d, d)
        # Modulation 6d, q, k and v 3d; the text has 2d and 3d, and 4d more with an output.
        audio = linear(d, 9 * d) + norms + output
        text = linear(d, 5 * d) + norms
        if fusion.persistent:
            text += linear(d, 4 * d) + output
        block = audio + text
    return embed + time + projectors + config.blocks * block + head

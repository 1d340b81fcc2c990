"""What the ablations are: the paper's of section 4.4 and Table 8, and their nano counterparts."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.variants import Variant, find_variant


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One variant of a family."""

    name: str
    """As tables show it, and the name of its run's folder."""
    variant: Variant
    """What is trained."""
    conditioning: str
    """How text enters, as Table 8 says it."""
    architecture: str
    """Streams and blocks, as Table 8 says it."""

    @property
    def parameters(self) -> str:
        """Of the backbone, in millions."""
        with torch.device("meta"):
            count = sum(p.numel() for p in UnisonBackbone(self.variant.backbone).parameters())
        millions = count / 1e6
        return f"{millions:,.0f}M" if millions >= 100 else f"{millions:.1f}M"

    @property
    def about(self) -> dict[str, str]:
        """What the rows of Table 8 say of it."""
        return {
            "conditioning": self.conditioning,
            "architecture": self.architecture,
            "parameters": self.parameters,
        }


def _nano(name: str, fusion: str, conditioning: str, text_layers: int = 6) -> Ablation:
    """Nano with something else; width, depth and all other sizes are nano's."""
    nano = find_variant("nano")
    variant = dataclasses.replace(
        nano,
        name=name.lower(),
        backbone=dataclasses.replace(nano.backbone, fusion=fusion),
        text_layers=text_layers,
    )
    kind = "S" if fusion == "S" else "D"
    return Ablation(
        name=name,
        variant=variant,
        conditioning=conditioning,
        architecture=f"{kind}{nano.backbone.blocks}",
    )


def _full(name: str, variant: str, conditioning: str) -> Ablation:
    return Ablation(
        name=name,
        variant=find_variant(variant),
        conditioning=conditioning,
        architecture=name.split("-")[0],
    )


def _family(*ablations: Ablation) -> dict[str, Ablation]:
    return {ablation.name: ablation for ablation in ablations}


FULL: Mapping[str, Ablation] = _family(
    _full("D24-O", "d24-16k", "O (deep fusion, 7B)"),
    _full("D24-L", "d24-16k-l", "L (penultimate-layer, 7B)"),
    _full("D24-OL", "d24-16k-ol", "OL (deep + penultimate, 7B)"),
    _full("S32-O", "s32-16k", "O (deep fusion, 7B)"),
    _full("D24-O-3B", "d24-16k-3b", "O (deep fusion, 3B)"),
)
"""The paper's."""

NANO_FAMILY: Mapping[str, Ablation] = _family(
    _nano("nano-O", "O", "O (deep fusion, MiniLM)"),
    _nano("nano-L", "L", "L (penultimate-layer, MiniLM)"),
    _nano("nano-OL", "OL", "OL (deep + penultimate, MiniLM)"),
    _nano("nano-S", "S", "O (deep fusion, MiniLM)"),
    # A model's lower layers are what the model without its upper ones would give.
    _nano("nano-O-3of6", "O", "O (deep fusion, MiniLM's lower 3 of 6 layers)", text_layers=3),
)
"""Nano's: equal width and depth, so that the single stream has fewer parameters, and half of the
text encoder in place of a smaller one."""


def choose(family: Mapping[str, Ablation], names: Sequence[str] | None) -> list[Ablation]:
    """Look ablations up.

    Args:
        family: `FULL` or `NANO_FAMILY`.
        names: Some of its keys; all if None.

    Raises:
        InputError: There is none of a name.
    """
    for name in names or ():
        if name not in family:
            raise InputError(f"There is no ablation {name!r}; use {', '.join(family)}.")
    return list(family.values()) if names is None else [family[n] for n in dict.fromkeys(names)]

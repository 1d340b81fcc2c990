"""The variants of the paper's ablations (section 4.4, Table 8) and their nano counterparts."""

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
    """Name in the tables, and of its run's folder."""
    variant: Variant
    """The variant to train."""
    conditioning: str
    """The conditioning column of Table 8."""
    architecture: str
    """The architecture column of Table 8: streams and blocks."""

    @property
    def parameters(self) -> str:
        """The parameters column of Table 8: those of the backbone, in millions."""
        with torch.device("meta"):
            count = sum(p.numel() for p in UnisonBackbone(self.variant.backbone).parameters())
        millions = count / 1e6
        return f"{millions:,.0f}M" if millions >= 100 else f"{millions:.1f}M"

    @property
    def about(self) -> dict[str, str]:
        """The descriptive columns of Table 8."""
        return {
            "conditioning": self.conditioning,
            "architecture": self.architecture,
            "parameters": self.parameters,
        }


def _nano(name: str, fusion: str, conditioning: str, text_layers: int = 6) -> Ablation:
    """Nano with one change; width, depth and all other sizes are nano's."""
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
"""The paper's ablations."""

NANO_FAMILY: Mapping[str, Ablation] = _family(
    _nano("nano-O", "O", "O (deep fusion, MiniLM)"),
    _nano("nano-L", "L", "L (penultimate-layer, MiniLM)"),
    _nano("nano-OL", "OL", "OL (deep + penultimate, MiniLM)"),
    _nano("nano-S", "S", "O (deep fusion, MiniLM)"),
    # The lower layers of a model are the same as those of the model cut above them, so reading
    # them stands for a smaller text encoder.
    _nano("nano-O-3of6", "O", "O (deep fusion, MiniLM's lower 3 of 6 layers)", text_layers=3),
)
"""Nano's counterparts. Width and depth are equal, so the single stream has fewer parameters. Half
of the text encoder stands for a smaller one."""


def choose(family: Mapping[str, Ablation], names: Sequence[str] | None) -> list[Ablation]:
    """Looks ablations up.

    Args:
        family: `FULL` or `NANO_FAMILY`.
        names: Keys of the family; None for all.

    Raises:
        InputError: If a name is unknown.
    """
    for name in names or ():
        if name not in family:
            raise InputError(f"There is no ablation {name!r}; use {', '.join(family)}.")
    return list(family.values()) if names is None else [family[n] for n in dict.fromkeys(names)]

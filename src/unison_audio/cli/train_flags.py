"""Options that several training commands share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from unison_audio.training.configs import (
    DistillConfig,
    EstimateConfig,
    FinetuneConfig,
    ModelFiles,
    Precision,
    RecipeChanges,
    Strategy,
)

Distilling = Annotated[DistillConfig | None, Parameter(name="*")]
Estimating = Annotated[EstimateConfig | None, Parameter(name="*")]
Finetuning = Annotated[FinetuneConfig | None, Parameter(name="*")]
Changes = Annotated[RecipeChanges | None, Parameter(name="*")]
Files = Annotated[ModelFiles | None, Parameter(name="*")]
"""Configs of the library whose fields are options, each by its own name."""

Names = Annotated[list[str] | None, Parameter(consume_multiple=True)]
"""Several values after one option."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DeviceFlags:
    """The devices of a run."""

    strategy: Strategy = "ddp"
    """With several processes: ddp copies the backbone to every device, fsdp shards it."""
    cpu: bool = False
    """Use the CPU even if there is a GPU."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FullSizeDeviceFlags(DeviceFlags):
    """The devices of a full-size run."""

    mixed_precision: Precision = "bf16"
    """Type of the matrix products; weights stay in float32."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelFlags(ModelFiles):
    """The models of a full-size run."""

    init: str | None = None
    """A checkpoint's folder, or owner/name on the hub, whose weights a fresh run starts from."""
    system_prompt_file: Path | None = None
    """A text file with a system prompt for the language model."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CorporaFlags:
    """Corpora that are streamed."""

    corpora: Annotated[list[str], Parameter(consume_multiple=True)]
    """Folders or URLs of prepared corpora."""
    held_out: Names = None
    """Prepared corpora whose held-out loss is logged."""
    workers: int = 2
    """Processes that decode, for each device."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AblationFlags:
    """Which ablations are trained."""

    recipe: Literal["nano", "base"] = "nano"
    """nano, or base: the paper's full size."""
    steps: int | None = None
    """Training steps of each variant; by default 2,000 for nano and the paper's 80,000 for base."""
    variants: Names = None
    """Names of the variants; by default all: nano-O, nano-L, nano-OL, nano-S, nano-O-3of6, or
    D24-O, D24-L, D24-OL, S32-O, D24-O-3B."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class NanoAblationFlags:
    """Options of nano's ablations."""

    corpus: Path | None = None
    """nano: A prepared corpus; --evaluate needs nano's own."""
    codec: Path | None = None
    """nano: The codec's folder."""
    frames: int | None = None
    """nano: Latent frames in a batch; by default nano's 960."""
    batches: int = 4
    """nano: Held-out batches of each task."""
    evaluate: bool = False
    """nano: Also generate, and fill Table 8 with the offline metrics."""
    judged: Annotated[bool, Parameter(show=False)] = False
    """The old name of evaluate."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FullAblationFlags:
    """Options of the paper's ablations."""

    corpora: Names = None
    """base: Folders or URLs of prepared corpora."""
    data: Path | None = None
    """base: AudioCaps test and Seed-TTS as published, to fill Table 8."""
    items: int | None = None
    """base: Clips of 10 s in a batch of one device; by default the paper's 56."""
    accumulate: int = 1
    """base: Batches of a device in a step."""
    gradient_checkpointing: bool = False
    """base: Recompute blocks in the backward pass instead of storing them."""


def check_corpora(corpora: Sequence[str], split: str) -> None:
    """Checks corpora that are streamed.

    Raises:
        InputError: If an index cannot be read, or corpora are given of which none has clips of
            the split.
    """
    from unison_audio.data.shards import find_corpora

    if corpora:
        find_corpora(corpora, split=split)

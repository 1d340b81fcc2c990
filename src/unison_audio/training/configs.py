"""What a user chooses for a training command, as frozen dataclasses that load no torch.

The command line shows each field as an option, with the text below the field as its help.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unison_audio.errors import InputError
from unison_audio.variants import MAX_STEPS

MOST_RANK = 1024
"""Largest rank of LoRA matrices: more than the width of any variant's attention heads."""

MOST_ITEMS, MOST_WORKERS, MOST_COUNT = 10_000, 1024, 10**9
"""Most clips of a batch, worker processes, and steps or devices."""

Strategy = Literal["ddp", "fsdp"]
Precision = Literal["bf16", "no"]
WeightsType = Literal["float32", "bfloat16", "float16"]
"""Type of stored weights; `checkpoint.DISK_TYPES` has the same, for torch."""


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Where the frozen models of a full-size variant are."""

    codec_files: Path | None = None
    """Folder of the codec's own files, if they are not to be downloaded."""
    text_files: Path | None = None
    """Folder of the language model, if it is not to be downloaded."""


@dataclass(frozen=True, kw_only=True)
class RecipeChanges:
    """A recipe of a full-size variant, and what differs from it."""

    recipe: Literal["base", "long-speech"] = "base"
    """base: clips of 10 s; or long-speech: fine-tunes a base model (--init) to 22 s."""
    steps: int | None = None
    """Training steps; by default those of the recipe."""
    items: int | None = None
    """Clips of 10 s in a batch of one device; by default the paper's 56."""
    accumulate: int = 1
    """Batches of a device in a step."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass instead of storing them."""

    def check(self) -> None:
        """Raises `InputError` for a count below 1."""
        at_least_one(steps=self.steps, items=self.items, accumulate=self.accumulate)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How a checkpoint is fine-tuned."""

    method: Literal["lora", "full"] = "lora"
    """lora trains small matrices beside the weights and merges them at the end; full trains all
    weights."""
    rank: int = 16
    """Rank of the LoRA matrices."""
    steps: int = 200
    """Training steps."""
    learning_rate: float | None = None
    """Peak learning rate; by default 1e-3 for lora and 1e-4 for full."""
    items: int = 8
    """Clips in a batch."""
    corpus: Path | None = None
    """A prepared corpus to train on as well, so that the model does not forget what it knows."""
    own_share: float = 0.5
    """With a corpus, the share of the sounds that come from your own clips."""

    def check(self) -> None:
        """Raises `InputError` for a value that cannot be used."""
        at_least_one(steps=self.steps, items=self.items, rank=self.rank)
        at_most("rank", self.rank, MOST_RANK)
        check_rate(self.learning_rate)
        if not 0 < self.own_share < 1:
            raise InputError(
                f"own_share is {self.own_share}; give a share of the sounds between 0 and 1."
            )
        if self.method not in ("lora", "full"):
            raise InputError(f"The method is {self.method!r}; use one of lora, full.")


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """How a student is distilled from its teacher."""

    steps: int = 4
    """Sampling steps of the student."""
    substeps: int = 4
    """Sampling steps of the teacher for each step of the student."""
    updates: int = 2000
    """Training steps."""
    learning_rate: float = 2e-4
    """Peak learning rate."""

    def check(self) -> None:
        """Raises `InputError` for a count below 1."""
        at_least_one(steps=self.steps, substeps=self.substeps, updates=self.updates)
        at_most("steps", self.steps, MAX_STEPS)
        at_most("substeps", self.substeps, MAX_STEPS)
        check_rate(self.learning_rate)


@dataclass(frozen=True, kw_only=True)
class EstimateConfig:
    """The run whose memory, work and time are estimated."""

    gpus: int = 8
    """Number of devices."""
    batch: int = 56
    """Clips on a device at a time."""
    seconds: float = 10.0
    """Length of the clips."""
    steps: int = 300_000
    """Training steps. The paper states 150,000 for its first stage and no total."""
    throughput: float = 150.0
    """Throughput of a device in 10^12 operations a second."""
    strategy: Strategy = "ddp"
    """ddp copies the backbone to every device, fsdp shards it."""
    mixed_precision: Precision = "bf16"
    """Type of the matrix products."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass instead of storing them."""
    accumulate: int = 1
    """Batches of a device in a step."""

    def check(self) -> None:
        """Raises `InputError` for a number that is not positive."""
        for name in ("gpus", "batch", "seconds", "steps", "throughput", "accumulate"):
            value = getattr(self, name)
            if not 0 < value <= MOST_COUNT:
                raise InputError(
                    f"{name} is {value}; it must be above 0 and at most {MOST_COUNT:,}."
                )


def check_rate(learning_rate: float | None) -> None:
    """Checks a peak learning rate; None stands for a default and passes.

    Raises:
        InputError: If it is not above 0, or not below 1 as every useful rate is.
    """
    if learning_rate is not None and not 0 < learning_rate < 1:  # also refuses NaN
        raise InputError(f"learning_rate is {learning_rate}; it must be above 0 and below 1.")


def at_least_one(**values: int | None) -> None:
    """Checks counts; None stands for a default and is accepted.

    Raises:
        InputError: If a count is below 1.
    """
    for name, value in values.items():
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1.")
        at_most(name, value, MOST_ITEMS if name == "items" else MOST_COUNT)


def at_most(name: str, value: int | None, most: int) -> None:
    """Checks that a count asks for no endless work; None stands for a default.

    Raises:
        InputError: If it is larger.
    """
    if value is not None and value > most:
        raise InputError(f"{name} is {value}; it must be at most {most:,}.")


def check_workers(workers: int) -> None:
    """Checks a number of worker processes; 0 works in this one.

    Raises:
        InputError: If it is negative, or more than a machine runs.
    """
    if not 0 <= workers <= MOST_WORKERS:
        raise InputError(f"workers is {workers}; it must be from 0 to {MOST_WORKERS}.")

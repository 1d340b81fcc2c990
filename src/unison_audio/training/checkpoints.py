"""Checkpoints of a training run: atomic writes, exact resume, signals, the weights' average."""

import errno
import math
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from unison_audio.errors import InputError, StoppedError
from unison_audio.tensor_files import unread_reason
from unison_audio.values import as_whole

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space left, quota exceeded, file too large."""


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of one step.

    It depends on the step alone, not on the steps before. A resumed run thus draws the same
    numbers as a run that never stopped, without any generator state in the checkpoint.
    """
    # The factor keeps the seeds of clips (seed), noise (seed + 1) and samples (seed + 2) apart.
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % (1 << 63))


def learning_rate(
    step: int, *, peak: float, warmup: int, total: int, lowest: float = 0.02
) -> float:
    """Linear warm-up, then a cosine from `peak` down to `lowest * peak` at `total` steps."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return peak * (lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * progress)))


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Writes `checkpoint-<step>.pt` atomically and keeps the newest `keep` checkpoints.

    Args:
        folder: The run's folder.
        step: Steps done.
        state: Tensors and plain values only, so that it loads with `weights_only=True`.
        keep: Number of checkpoints to keep.

    Raises:
        OSError: If it cannot be written; the older checkpoints are then unchanged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"checkpoint-{step:08d}.pt"
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            torch.save({"step": step, **state}, file)
            # Without fsync a power cut could leave the new name with an empty file behind it.
            file.flush()
            os.fsync(file.fileno())
    except RuntimeError as error:
        partial.unlink(missing_ok=True)
        # On a full disk, torch's writer of archives puts its own error in place of the system's.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise
    except BaseException:
        partial.unlink(missing_ok=True)  # it would take the space that a full disk lacks
        raise
    partial.replace(path)
    left_behind = folder.glob("checkpoint-*.partial")  # by a kill while it was written
    for old in (*sorted(folder.glob("checkpoint-*.pt"))[:-keep], *left_behind):
        old.unlink()
    return path


@contextmanager
def full_disk_as_input_error(folder: Path) -> Iterator[None]:
    """Turns the error of a full disk into one sentence that says how to resume.

    Raises:
        InputError: If the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        saved = sorted(folder.glob("checkpoint-*.pt"))
        where = f"step {int(saved[-1].stem.split('-')[1])}" if saved else "the beginning"
        raise InputError(
            f"The disk with {folder} is full ({error.strerror}); free some space and rerun the "
            f"same command: the run resumes from {where}."
        ) from error


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Loads the newest checkpoint of a run; None for a fresh run.

    Raises:
        InputError: If the newest checkpoint cannot be read.
    """
    paths = sorted(folder.glob("checkpoint-*.pt"))
    if not paths:
        return None
    cure = "delete it to resume from the one before, or choose another run folder"
    try:
        state = torch.load(paths[-1], map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"The checkpoint {paths[-1]} cannot be read ({unread_reason(error)}); {cure}."
        ) from error
    if not isinstance(state, dict) or as_whole(state.get("step")) is None:
        raise InputError(f"{paths[-1]} is no checkpoint of a run; {cure}.")
    return state


def saved_step(folder: Path) -> int | None:
    """Steps of the newest checkpoint of a run, out of its name; None for a fresh run."""
    names = [path.stem.partition("-")[2] for path in folder.glob("checkpoint-*.pt")]
    return max((int(name) for name in names if name.isdecimal()), default=None)


@contextmanager
def misfit_as_input_error(folder: Path) -> Iterator[None]:
    """Turns what a checkpoint of another shape raises into one sentence.

    Raises:
        InputError: If the state in the block does not fit.
    """
    try:
        yield
    except InputError:
        raise
    except (KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"The checkpoint in {folder} is of another model or other settings ({reason}); give "
            "those it was made with, or choose another run folder."
        ) from error


class StopRequest:
    """Records SIGTERM and SIGINT, so that a run can save before it ends.

    A handler that raised would interrupt a step between the backbone and its average.
    """

    def __init__(self) -> None:
        self.asked = False
        self.number = int(signal.SIGINT)
        self.before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked, self.number = True, number

    def stopped(self, step: int) -> StoppedError:
        """What ends the run, after it saved."""
        return StoppedError(
            f"Stopped and saved at step {step}; rerun the same command to resume.", self.number
        )

    def restore(self) -> None:
        """Restores the previous signal handlers."""
        for number, handler in self.before.items():
            signal.signal(number, handler)


class Ema:
    """Exponential moving average of a module's parameters.

    Args:
        module: The module; its present parameters are the first average.
        decay: Weight of the old average at an update.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, decay: float | None = None) -> None:
        """Moves the average towards the module's parameters."""
        rate = 1 - (self.decay if decay is None else decay)
        parameters = dict(module.named_parameters())
        # One fused call: a loop over hundreds of small tensors costs more than the arithmetic.
        names = list(self.values)
        torch._foreach_lerp_(
            [self.values[name] for name in names], [parameters[name] for name in names], rate
        )

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Copies the average into a module of the same shape."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.values[name])

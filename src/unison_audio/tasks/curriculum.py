"""The task of each training batch: one task per batch, in two stages (paper section 3.7).

Batches of one task keep the gradients of generation and editing apart. All items of a batch also
have the same kind of inputs.
"""

import dataclasses
import itertools
import math
from typing import Any

from unison_audio.errors import InputError
from unison_audio.tasks.table import TASKS

STAGE1_STEPS = 150_000
"""Steps of the first stage in the paper (section 3.7)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A range of training steps with its own shares of the tasks."""

    until_step: int | None
    """First step after the stage; None for the last stage."""

    probabilities: dict[str, float]
    """Task -> share of the batches; the shares sum to 1."""


def default_stages(stage1_steps: int = STAGE1_STEPS) -> tuple[Stage, ...]:
    """Return the paper's curriculum: generation for `stage1_steps`, then every task.

    The paper gives shares for the second stage only (Table 12). Both stages scale the shares of
    their tasks to sum to 1, so a registered task needs no change of the other rows.
    """
    both = {name: task.stage2_probability for name, task in TASKS.items()}
    first = {name: share for name, share in both.items() if TASKS[name].stage1}
    return (
        Stage(until_step=stage1_steps, probabilities=_scaled(first)),
        Stage(until_step=None, probabilities=_scaled(both)),
    )


def _scaled(shares: dict[str, float]) -> dict[str, float]:
    # fsum, since a plain sum of the table is 1 + 2e-16 and would alter the last bits of each share.
    total = math.fsum(shares.values())
    return {name: share / total for name, share in shares.items()}


class TaskSampler:
    """Draws the task of each batch; a checkpoint saves and restores its state."""

    def __init__(self, stages: tuple[Stage, ...], seed: int) -> None:
        """Validate the stages and seed the draws.

        Args:
            stages: The stages in order; all but the last end at a step.
            seed: Seed of the sampler's own generator.

        Raises:
            InputError: A task is unknown, a stage's shares are negative or do not sum to 1, or the
                stages are out of order.
        """
        if not stages or stages[-1].until_step is not None:
            raise InputError("The last stage must have until_step None; add one that never ends.")
        ends = [stage.until_step for stage in stages[:-1]]
        starts = [0, *ends]
        if any(b is None or a is None or b < a for a, b in itertools.pairwise(starts)):
            raise InputError(f"Stages end at {ends}; give increasing steps.")
        for stage in stages:
            unknown = sorted(set(stage.probabilities) - set(TASKS))
            if unknown:
                raise InputError(
                    f"Unknown task {', '.join(unknown)} in a stage; choose from {', '.join(TASKS)}."
                )
            total = math.fsum(stage.probabilities.values())
            if abs(total - 1.0) > 1e-6 or min(stage.probabilities.values()) < 0.0:
                raise InputError(
                    f"The shares of a stage sum to {total:.6f}; give shares of at least 0 that "
                    "sum to 1."
                )
        self.stages = stages
        import torch  # here, since command lines read STAGE1_STEPS and the stages without it

        # A generator of its own: the tasks of a run then depend on its seed and step alone, not on
        # how many numbers the builders drew in between.
        self._generator = torch.Generator().manual_seed(seed)

    def stage(self, step: int) -> Stage:
        """Return the stage of a step, counted from 0."""
        return next(s for s in self.stages if s.until_step is None or step < s.until_step)

    def draw(self, step: int) -> str:
        """Draw the task of one batch."""
        import torch

        # Exactly one number per batch, whatever the stage, so that a resumed run and one with
        # another stage plan stay aligned.
        probabilities = self.stage(step).probabilities
        remaining = float(torch.rand((), dtype=torch.float64, generator=self._generator))
        possible = [name for name, share in probabilities.items() if share > 0.0]
        for name in possible:
            remaining -= probabilities[name]
            if remaining < 0.0:
                return name
        return possible[-1]  # the shares sum to 1 only up to rounding

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        self._generator.set_state(state["generator"].cpu())

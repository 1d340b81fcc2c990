"""Which task a training batch holds: one task a batch, in stages (paper §3.7)."""

import dataclasses
import itertools
import math
from typing import Any

from unison_audio.errors import InputError
from unison_audio.tasks.table import TASKS

STAGE1_STEPS = 150_000
"""Steps of the first stage in the paper (§3.7)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of training with its own shares of the tasks."""

    until_step: int | None
    """The first step that no longer belongs to it; None for the last stage."""

    probabilities: dict[str, float]
    """Task -> share; they sum to 1."""


def default_stages(stage1_steps: int = STAGE1_STEPS) -> tuple[Stage, ...]:
    """The table's curriculum: generation alone for `stage1_steps`, then every task.

    The first stage renormalises the generation tasks' shares.
    """
    first = {name: task.stage2_probability for name, task in TASKS.items() if task.stage1}
    total = math.fsum(first.values())
    return (
        Stage(
            until_step=stage1_steps,
            probabilities={name: share / total for name, share in first.items()},
        ),
        Stage(
            until_step=None,
            probabilities={name: task.stage2_probability for name, task in TASKS.items()},
        ),
    )


class TaskSampler:
    """Draws the task of each batch; its state can be saved and restored."""

    def __init__(self, stages: tuple[Stage, ...], seed: int) -> None:
        """Check the stages and seed the draws.

        Args:
            stages: In order; all but the last end at a step.
            seed: Of the sampler's own generator.

        Raises:
            InputError: Unknown tasks, shares that are negative or do not sum to 1, or stages out
                of order.
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
        import torch

        self._generator = torch.Generator().manual_seed(seed)

    def stage(self, step: int) -> Stage:
        """The stage that a step (from 0) belongs to."""
        return next(s for s in self.stages if s.until_step is None or step < s.until_step)

    def draw(self, step: int) -> str:
        """Draw the task of one batch: one number from the generator."""
        import torch

        probabilities = self.stage(step).probabilities
        drawn = float(torch.rand((), dtype=torch.float64, generator=self._generator))
        possible = [name for name, share in probabilities.items() if share > 0.0]
        for name in possible:
            drawn -= probabilities[name]
            if drawn < 0.0:
                return name
        return possible[-1]

    def state_dict(self) -> dict[str, Any]:
        """The generator's state."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._generator.set_state(state["generator"].cpu())

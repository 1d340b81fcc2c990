"""ODE solvers of the flow by name; a solver imports its library on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from unison_audio.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class Steps(Protocol):
    """A solver that is set to a number of steps."""

    times: Tensor
    """(S,) flow time of each velocity evaluation."""

    def advance(self, v: Tensor, step: int, z: Tensor) -> Tensor:
        """Advance z from time number `step` to the next; steps must be taken in order."""
        ...


class _Scheduler:
    """A diffusers scheduler that is set to a number of steps."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.times: Tensor = scheduler.sigmas[:-1].float()

    def advance(self, v: Tensor, step: int, z: Tensor) -> Tensor:
        """Advance z from time number `step` to the next."""
        timestep = self.scheduler.timesteps[step]
        return self.scheduler.step(v, timestep, z, return_dict=False)[0]


def _euler(steps: int) -> Steps:
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )

    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(steps)
    return _Scheduler(scheduler)


def _euler_even(steps: int) -> Steps:
    """Euler at evenly spaced times, so that the last of few steps is as long as the others."""
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )

    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1 - k / steps for k in range(steps)])
    return _Scheduler(scheduler)


def _heun(steps: int) -> Steps:
    from diffusers.schedulers.scheduling_flow_match_heun_discrete import (
        FlowMatchHeunDiscreteScheduler,
    )

    scheduler = FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(steps)
    return _Scheduler(scheduler)


def _dpm(steps: int) -> Steps:
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    scheduler.set_timesteps(steps)
    return _Scheduler(scheduler)


def _unipc(steps: int) -> Steps:
    from unison_audio.model.unipc import UniPC

    return UniPC(steps)


SOLVERS: dict[str, Callable[[int], Steps]] = {
    "euler": _euler,
    "heun": _heun,
    "unipc": _unipc,
    "dpm++": _dpm,
    "euler-even": _euler_even,
}
"""Solver name -> a function that sets it to a number of steps.

The paper uses Euler. Heun evaluates 2 steps - 1 velocities. The steps of euler-even have equal
length, which distilled models (`training.distill`) need: the last step of diffusers' Euler is only
1e-3 long. All solvers but UniPC are diffusers' schedulers."""


def require_solver(name: object) -> None:
    """Check that a solver exists.

    Raises:
        InputError: If `SOLVERS` has no such name.
    """
    if not isinstance(name, str) or name not in SOLVERS:
        raise InputError(f"There is no solver {name!r}; use one of {', '.join(SOLVERS)}.")


class Solver:
    """One of `SOLVERS` set to a number of steps.

    Args:
        name: A key of `SOLVERS`.
        steps: Steps from noise to data.

    Raises:
        InputError: If there is no such solver, or not at least one step.
    """

    def __init__(self, name: str, steps: int) -> None:
        require_solver(name)
        if steps < 1:
            raise InputError(f"steps is {steps}; it must be at least 1.")
        self._name, self._count, self._next = name, steps, 0
        self._steps = SOLVERS[name](steps)
        self.times: Tensor = self._steps.times
        """(S,) flow time of each velocity evaluation."""

    def advance(self, v: Tensor, step: int, z: Tensor) -> Tensor:
        """Advance z from one of the times to the next; step 0 begins anew.

        Raises:
            ValueError: If a step is left out or repeated.
        """
        if step == 0 and self._next:
            # A scheduler that has run keeps its place and its past velocities. A second run with
            # it ends in NaN or in an IndexError.
            self._steps = SOLVERS[self._name](self._count)
        elif step != self._next:
            raise ValueError(f"step {step} was given where {self._next} comes next, or 0")
        self._next = step + 1
        return self._steps.advance(v, step, z)

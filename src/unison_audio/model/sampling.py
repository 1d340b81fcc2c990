"""From noise to data: solvers of the flow, guidance, and the loop over the schedule.

Flow time t runs from 1 (noise) to 0 (data); shapes and symbols as in `backbone.py`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_flow_match_heun_discrete import (
    FlowMatchHeunDiscreteScheduler,
)
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.inference import PreparedRun

FLOW: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


def _usual(make: Callable[[], Any]) -> Callable[[int], Any]:
    """A scheduler at its own times."""

    def ready(steps: int) -> Any:
        scheduler = make()
        scheduler.set_timesteps(steps)
        return scheduler

    return ready


def _even(steps: int) -> Any:
    """Euler's at times that are evenly apart: the last of few steps is as long as the others."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1 - k / steps for k in range(steps)])
    return scheduler


SOLVERS: dict[str, Callable[[int], Any]] = {
    "euler": _usual(FlowMatchEulerDiscreteScheduler),
    "heun": _usual(FlowMatchHeunDiscreteScheduler),
    "unipc": _usual(lambda: UniPCMultistepScheduler(**FLOW)),
    "dpm++": _usual(lambda: DPMSolverMultistepScheduler(**FLOW)),
    "euler-even": _even,
}
"""Solvers by name, diffusers' own, set to so many steps. Euler is the paper's. Heun asks for
2 steps - 1 velocities. With euler-even each step is as long as the others, as distilled models
(`training.distillation`) need it; Euler's own last one is nearly nothing."""


class VelocityField(Protocol):
    """What can be followed: a `PreparedRun`, or any other field."""

    def velocities(self, z_t: Tensor, step: int, *, guided: bool) -> tuple[Tensor, Tensor | None]:
        """Velocities (B, C, T') at the schedule's time number `step`: with text, and without."""
        ...


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How the velocities with and without text are put together (paper section 3.5)."""

    scale: float = 4.5
    """w of `v0 + w (v1 - v0)`; 1 is the velocity with text alone, at half the work."""
    interval: tuple[float, float] = (0.0, 1.0)
    """Times t, from and to, between which there is guidance (Kynkaanniemi et al. 2024)."""
    rescale: float = 0.0
    """How far, from 0 to 1, the result's deviation is brought back to v1's (Lin et al. 2024)."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be."""
        if not is_number(self.scale) or not 0 <= self.scale <= 100:
            raise InputError(f"The guidance scale is {self.scale!r}; give a number from 0 to 100.")
        low, high = self.interval
        if not (is_number(low) and is_number(high) and 0 <= low <= high <= 1):
            raise InputError(
                f"The guidance interval is {low!r} to {high!r}; give two times t with "
                "0 <= from <= to <= 1 (1 is noise, 0 is data)."
            )
        if not is_number(self.rescale) or not 0 <= self.rescale <= 1:
            raise InputError(
                f"The guidance rescale is {self.rescale!r}; give a number from 0 to 1."
            )

    def at(self, t: float) -> bool:
        """Whether there is guidance at time t."""
        return self.scale != 1 and self.interval[0] <= t <= self.interval[1]

    def combine(self, v1: Tensor, v0: Tensor, counted: Tensor | None = None) -> Tensor:
        """The guided velocity.

        Args:
            v1: with text, (B, C, T').
            v0: without, (B, C, T').
            counted: (B, 1, T') booleans, True on frames that count; None counts all.

        Returns:
            (B, C, T').
        """
        v = torch.lerp(v0, v1, self.scale)
        if not self.rescale:
            return v
        ratio = _deviation(v1, counted) / _deviation(v, counted).clamp(min=1e-12)
        return v * torch.lerp(torch.ones_like(ratio), ratio, self.rescale)


def _deviation(v: Tensor, counted: Tensor | None) -> Tensor:
    """Standard deviation of each row over the frames that count, (B, 1, 1)."""
    weight = torch.ones_like(v) if counted is None else counted.to(v.dtype).expand_as(v)
    total = weight.sum(dim=(1, 2), keepdim=True)
    mean = (v * weight).sum(dim=(1, 2), keepdim=True) / total
    return ((v - mean).square() * weight).sum(dim=(1, 2), keepdim=True).div(total).sqrt()


def is_number(value: object) -> bool:
    """Whether a value is a finite number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Solver:
    """One of `SOLVERS` set to a number of steps.

    Args:
        name: A key of `SOLVERS`.
        steps: Steps from noise to data.

    Raises:
        InputError: If there is no such solver, or not at least one step.
    """

    def __init__(self, name: str, steps: int) -> None:
        if name not in SOLVERS:
            raise InputError(f"There is no solver {name!r}; use one of {', '.join(SOLVERS)}.")
        if steps < 1:
            raise InputError(f"steps is {steps}; it must be at least 1.")
        self.scheduler = SOLVERS[name](steps)
        self.times: Tensor = self.scheduler.sigmas[:-1].float()
        """(S,) the time of each velocity that is asked for."""

    def advance(self, v: Tensor, step: int, z: Tensor) -> Tensor:
        """From z at one of the times to z at the next."""
        timestep = self.scheduler.timesteps[step]
        return self.scheduler.step(v, timestep, z, return_dict=False)[0]


def integrate(
    field: VelocityField,
    noise: Tensor,
    solver: Solver,
    guidance: Guidance,
    *,
    counted: Tensor | None = None,
    known: Tensor | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Follow a field from noise to data.

    Args:
        field: Gives velocities at the solver's times.
        noise: Where to start, (B, C, T').
        solver: Which steps to take.
        guidance: How velocities are put together.
        counted: (B, 1, T') booleans, True on frames that count; None counts all.
        known: (B, C, T'), what some frames are to become, NaN on the others; None knows none.
        on_step: Called after each velocity with those done and those in all.

    Returns:
        z, (B, C, T'), float32.
    """
    z = noise.float()
    straight = None if known is None else noise.float() - known  # NaN where nothing is known
    for step, t in enumerate(solver.times.tolist()):
        v1, v0 = field.velocities(z, step, guided=guidance.at(t))
        v = v1 if v0 is None else guidance.combine(v1, v0, counted)
        if straight is not None:
            v = torch.where(straight.isnan(), v, straight)
        z = solver.advance(v, step, z)
        if on_step is not None:
            on_step(step + 1, len(solver.times))
    return z if known is None else torch.where(known.isnan(), z, known)


@torch.no_grad()
def sample(
    backbone: UnisonBackbone,
    z_s: Tensor,
    m: Tensor,
    hidden_states: Tensor | None,
    text_mask: Tensor,
    *,
    noise: Tensor,
    steps: int = 100,
    solver: str = "euler",
    guidance: Guidance | None = None,
    penultimate: Tensor | None = None,
    frames: Sequence[int] | None = None,
    held: Tensor | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Sample a batch of any tasks and lengths (paper section 3.5).

    Args:
        backbone: The model.
        z_s: Source or reference latents, zeros where there is none, (B, C, T').
        m: Task tag of each frame, (B, 1, T').
        hidden_states: (B, D, N, text_dim); None where the fusion reads none.
        text_mask: (B, N) booleans, True where a token is real.
        noise: Where to start, (B, C, T'); drawn on the CPU, the same on every device.
        steps: Steps of the solver.
        solver: A key of `SOLVERS`.
        guidance: The paper's if None.
        penultimate: (B, N, text_dim); None where the fusion reads none.
        frames: Frames of each row that count, up to T'; None if all do.
        held: (B, 1, T') booleans, True on frames that are led straight to z_s, whatever the model
            says; None holds none.
        on_step: Called after each velocity with those done and those in all.

    Returns:
        z, (B, C, T'), float32; 0 on frames that do not count.

    Raises:
        InputError: If the solver is unknown, there is no step, or shapes do not agree.
    """
    batch, _, longest = noise.shape
    if z_s.shape != noise.shape or m.shape != (batch, 1, longest):
        raise InputError(
            f"z_s {tuple(z_s.shape)} and m {tuple(m.shape)} do not fit noise "
            f"{tuple(noise.shape)}; give z_s of the same shape and m of {(batch, 1, longest)}."
        )
    way = Solver(solver, steps)
    counted = None
    if frames is not None:
        positions = torch.arange(longest, device=noise.device)
        lengths = torch.tensor(list(frames), device=noise.device)
        counted = (positions < lengths[:, None])[:, None]  # (B, 1, T')
    run = PreparedRun(
        backbone,
        z_s,
        m,
        hidden_states,
        text_mask,
        times=way.times,
        penultimate=penultimate,
        frames=frames,
    )
    known = None if held is None else z_s.float().masked_fill(~held, torch.nan)
    z = integrate(
        run, noise, way, guidance or Guidance(), counted=counted, known=known, on_step=on_step
    )
    return z if counted is None else z * counted

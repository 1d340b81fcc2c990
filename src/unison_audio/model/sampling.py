"""From noise to data: solvers of the flow, guidance, and the loop over the schedule.

Flow time t runs from 1 (noise) to 0 (data); shapes and symbols as in `backbone.py`.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.guidance import Guidance
from unison_audio.model.prepared import PreparedRun
from unison_audio.model.solvers import Solver


class VelocityField(Protocol):
    """What can be followed: a `PreparedRun`, or any other field."""

    def velocities(self, z_t: Tensor, step: int, *, guided: bool) -> tuple[Tensor, Tensor | None]:
        """Velocities (B, C, T') at the schedule's time number `step`: with text, and without."""
        ...


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

"""Sampling: the integration of the flow from noise to data.

Flow time t runs from 1 (noise) to 0 (data); shapes and symbols as in `backbone.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.graphed import GraphedRun
from unison_audio.model.guidance import Guidance
from unison_audio.model.prepared import PreparedRun
from unison_audio.model.solvers import Solver
from unison_audio.model.voice_target import VoiceTarget


class VelocityField(Protocol):
    """A velocity field over a schedule of times, such as a `PreparedRun`."""

    def velocities(self, z_t: Tensor, step: int, *, guided: bool) -> tuple[Tensor, Tensor | None]:
        """Velocities (B, C, T') at time number `step`: with text, and without if guided."""
        ...


@dataclass(frozen=True, kw_only=True)
class ModelInputs:
    """All that the backbone reads besides z_t and t: a batch of any tasks and lengths."""

    z_s: Tensor
    """(B, C, T') source or reference latents, zeros where there is none."""
    m: Tensor
    """(B, 1, T') task tag of each frame."""
    hidden_states: Tensor | None
    """(B, D, N, text_dim); None where the fusion reads none."""
    text_mask: Tensor
    """(B, N) booleans, True where a token is real."""
    penultimate: Tensor | None = None
    """(B, N, text_dim); None where the fusion reads none."""
    frames: Sequence[int] | None = None
    """Frames of each row that count, B numbers up to T'; None counts all frames."""
    voice: VoiceTarget | None = None
    """Voices to speak in; None leaves the voice to the noise."""

    def prepare(self, backbone: UnisonBackbone, times: Tensor) -> PreparedRun:
        """Prepare the velocity field of these inputs.

        Args:
            backbone: The model, in evaluation mode.
            times: (S,) flow times at which velocities are evaluated.

        Raises:
            InputError: If the shapes do not agree.
        """
        return PreparedRun(
            backbone,
            self.z_s,
            self.m,
            self.hidden_states,
            self.text_mask,
            times=times,
            penultimate=self.penultimate,
            frames=self.frames,
        )

    def counted(self) -> Tensor | None:
        """(B, 1, T') booleans, True on frames that count; None if all frames do."""
        if self.frames is None:
            return None
        positions = torch.arange(self.z_s.shape[-1], device=self.z_s.device)
        lengths = torch.tensor(list(self.frames), device=self.z_s.device)
        return (positions < lengths[:, None])[:, None]


def integrate(
    field: VelocityField,
    noise: Tensor,
    solver: Solver,
    guidance: Guidance,
    *,
    counted: Tensor | None = None,
    known: Tensor | None = None,
    voice: VoiceTarget | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Integrate a velocity field from noise to data (paper section 3.5).

    Args:
        field: The velocities at the solver's times.
        noise: Initial state, (B, C, T').
        solver: The solver, set to its steps.
        guidance: Classifier-free guidance.
        counted: (B, 1, T') booleans, True on frames that count; None counts all frames.
        known: (B, C, T') final values of frames that are known, NaN on all others; None if no
            frame is known.
        voice: Voices to speak in; None changes no velocity.
        on_step: Called after each evaluation with the number done and the total.

    Returns:
        z, (B, C, T'), float32.
    """
    z = noise.float()
    # The flow to a known value is a straight line, so its velocity is constant: noise - data.
    straight = None if known is None else noise.float() - known  # NaN where nothing is known
    for step, t in enumerate(solver.times.tolist()):
        v1, v0 = field.velocities(z, step, guided=guidance.at(t))
        v = v1 if v0 is None else guidance.combine(v1, v0, counted)
        if voice is not None:
            v = voice.steer(v, z, t, counted)
        if straight is not None:
            v = torch.where(straight.isnan(), v, straight)
        z = solver.advance(v, step, z)
        if on_step is not None:
            on_step(step + 1, len(solver.times))
    # Rounding and solvers that start below t = 1 leave a small error; the known value is exact.
    return z if known is None else torch.where(known.isnan(), z, known)


@torch.no_grad()
def sample(
    backbone: UnisonBackbone,
    inputs: ModelInputs,
    *,
    noise: Tensor,
    steps: int = 100,
    solver: str = "euler",
    guidance: Guidance | None = None,
    fixed: Tensor | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Sample a batch of any tasks and lengths (paper section 3.5).

    Args:
        backbone: The model, in evaluation mode.
        inputs: Conditioning and text of the batch.
        noise: Initial state, (B, C, T'); drawn on the CPU so that every device starts alike.
        steps: Steps of the solver.
        solver: A key of `SOLVERS`.
        guidance: Classifier-free guidance; the paper's if None.
        fixed: (B, 1, T') booleans, True on frames that are set to z_s along a straight line,
            without the model; None fixes no frame.
        on_step: Called after each evaluation with the number done and the total.

    Returns:
        z, (B, C, T'), float32; 0 on frames that do not count.

    Raises:
        InputError: If the solver is unknown, steps is below 1, or shapes do not agree.
    """
    batch, _, longest = noise.shape
    if inputs.z_s.shape != noise.shape or inputs.m.shape != (batch, 1, longest):
        raise InputError(
            f"z_s {tuple(inputs.z_s.shape)} and m {tuple(inputs.m.shape)} do not fit noise "
            f"{tuple(noise.shape)}; give z_s of the same shape and m of {(batch, 1, longest)}."
        )
    schedule = Solver(solver, steps)
    counted = inputs.counted()
    run = inputs.prepare(backbone, schedule.times)
    z = integrate(
        GraphedRun(run) if backbone.graphed else run,
        noise,
        schedule,
        guidance or Guidance(),
        counted=counted,
        known=None if fixed is None else inputs.z_s.float().masked_fill(~fixed, torch.nan),
        voice=inputs.voice,
        on_step=on_step,
    )
    return z if counted is None else z * counted

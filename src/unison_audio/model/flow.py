"""The flow between noise and data: noising, loss, text dropout and guided sampling.

Flow time t runs from 1 (noise) to 0 (data); shapes and symbols as in `backbone.py`.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from unison_audio.errors import InputError


class VelocityField(Protocol):
    """What can be sampled from: `UnisonBackbone`, or anything else that gives a velocity."""

    def project_text(self, hidden_states: Tensor | None, penultimate: Tensor | None = None) -> Any:
        """Prepare text once a run; what comes back is only handed on to `velocity`."""

    def velocity(self, x: Tensor, t: Tensor, projected: Any, text_mask: Tensor) -> Tensor:
        """[z_t | z_s | m] (B, 2C+1, T') at times (B,) -> velocity (B, C, T')."""


def add_noise(z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Put data on the straight line to noise: `z_t = (1 - t) z + t eps` (paper section 3.5).

    Args:
        z: clean latents, (B, C, T').
        eps: standard normal noise, (B, C, T').
        t: flow time in [0, 1], (B,).

    Returns:
        z_t, (B, C, T').
    """
    return torch.lerp(z, eps, t[:, None, None].to(z.dtype))


def target_velocity(z: Tensor, eps: Tensor) -> Tensor:
    """The velocity of the straight line, `u = eps - z`, for all t.

    Args:
        z: clean latents, (B, C, T').
        eps: noise, (B, C, T').

    Returns:
        u, (B, C, T').
    """
    return eps - z


def sample_t(batch: int, generator: torch.Generator, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Draw flow times for training from a logit-normal distribution.

    Args:
        batch: how many.
        generator: on the CPU.
        mean: mean of logit(t).
        std: standard deviation of logit(t).

    Returns:
        t in (0, 1), (B,), on the CPU.
    """
    return torch.sigmoid(mean + std * torch.randn(batch, generator=generator))


def flow_loss(v: Tensor, z: Tensor, eps: Tensor, loss_mask: Tensor | None = None) -> Tensor:
    """Mean squared error of the velocity over the frames that count (paper section 3.5).

    Args:
        v: predicted velocity, (B, C, T').
        z: clean latents, (B, C, T').
        eps: the noise that was added, (B, C, T').
        loss_mask: M_loss, (B, 1, T'), true (or 1) on frames that count; None counts all.

    Returns:
        A scalar, float32: the mean over all elements of counted frames.
    """
    error = (v.float() - target_velocity(z, eps).float()).square()
    if loss_mask is None:
        return error.mean()
    weight = loss_mask.to(error.dtype)
    return (error * weight).sum() / (weight.sum() * error.shape[1])


def draw_dropped(batch: int, generator: torch.Generator, probability: float = 0.1) -> Tensor:
    """Draw which rows of a batch are trained without text.

    Args:
        batch: how many rows.
        generator: on the CPU.
        probability: of a row being dropped.

    Returns:
        (B,) booleans on the CPU, True where the text is to be dropped.
    """
    return torch.rand(batch, generator=generator) < probability


def remove_text(rows: Tensor, states: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Take all text from some rows: states zeroed and every token masked.

    This is the one definition of "no text": dropout in training and v0 of guidance both use it.

    Args:
        rows: (B,) booleans, True where the text goes.
        states: hidden states (B, D, N, text_dim) or penultimate states (B, N, text_dim).
        text_mask: (B, N) booleans.

    Returns:
        states and text_mask, as new tensors.
    """
    rows = rows.to(states.device)
    kept_states = states.masked_fill(rows.view(-1, *[1] * (states.ndim - 1)), 0.0)
    return kept_states, text_mask & ~rows[:, None]


def drop_text(
    hidden_states: Tensor,
    text_mask: Tensor,
    generator: torch.Generator,
    probability: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Drop the text of random rows, so that guidance has its v0 (paper section 3.5).

    Args:
        hidden_states: (B, D, N, text_dim), or penultimate states (B, N, text_dim).
        text_mask: (B, N) booleans.
        generator: on the CPU.
        probability: of a row losing its text.

    Returns:
        hidden_states and text_mask, as new tensors.
    """
    rows = draw_dropped(len(text_mask), generator, probability)
    return remove_text(rows, hidden_states, text_mask)


@torch.no_grad()
def sample(
    backbone: VelocityField,
    z_s: Tensor,
    m: Tensor,
    hidden_states: Tensor | None,
    text_mask: Tensor,
    *,
    noise: Tensor,
    steps: int = 100,
    guidance_scale: float = 4.5,
    on_step: Callable[[int, int], None] | None = None,
    penultimate: Tensor | None = None,
) -> Tensor:
    """Follow the flow from noise to data with the Euler method (paper section 3.5).

    The guided velocity is `v0 + guidance_scale * (v1 - v0)`: v1 has the text, v0 none; both keep
    z_s and m. One pass of 2B gives both; at a scale of 1 a pass of B gives v1, which is all.

    Args:
        backbone: the velocity field.
        z_s: source or reference latents, zeros where there is none, (B, C, T').
        m: task tag of each frame, (B, 1, T').
        hidden_states: (B, D, N, text_dim); None where the fusion reads none.
        text_mask: (B, N) booleans, True where a token is real.
        noise: where to start, (B, C, T'); drawn on the CPU, the same on every device.
        steps: Euler steps.
        guidance_scale: w.
        on_step: called after each step with the steps done and the steps in all.
        penultimate: (B, N, text_dim); None where the fusion reads none.

    Returns:
        z, (B, C, T'), float32.

    Raises:
        InputError: if there is not at least one step, or the shapes of latents do not agree.
    """
    if steps < 1:
        raise InputError(f"steps is {steps}; it must be at least 1.")
    batch, channels, frames = noise.shape
    if z_s.shape != noise.shape or m.shape != (batch, 1, frames):
        raise InputError(
            f"z_s {tuple(z_s.shape)} and m {tuple(m.shape)} do not fit noise "
            f"{tuple(noise.shape)}; give z_s of the same shape and m of {(batch, 1, frames)}."
        )
    text_mask = text_mask.bool()
    guided = guidance_scale != 1
    if guided:
        hidden_states, penultimate, text_mask = _append_without_text(
            hidden_states, penultimate, text_mask
        )
    projected = backbone.project_text(hidden_states, penultimate)

    passes = 2 if guided else 1
    z = noise.float()
    x = torch.cat((noise, z_s, m.to(noise.dtype)), dim=1).repeat(passes, 1, 1)  # (., 2C+1, T')
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(steps)
    for step, timestep in enumerate(scheduler.timesteps):
        x[:, :channels] = z.to(x.dtype).repeat(passes, 1, 1)
        t = scheduler.sigmas[step].to(x.device).expand(len(x))
        v = backbone.velocity(x, t, projected, text_mask).float()
        if guided:
            v1, v0 = v.chunk(2)
            v = torch.lerp(v0, v1, guidance_scale)
        z = scheduler.step(v, timestep, z, return_dict=False)[0]
        if on_step is not None:
            on_step(step + 1, steps)
    return z


def _append_without_text(
    hidden_states: Tensor | None, penultimate: Tensor | None, text_mask: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """Append to a batch the same batch without text: (B, ...) -> (2B, ...)."""
    rows = torch.arange(2 * len(text_mask), device=text_mask.device) >= len(text_mask)
    doubled = [
        None if states is None else states.repeat(2, *[1] * (states.ndim - 1))
        for states in (hidden_states, penultimate)
    ]
    text_mask = text_mask.repeat(2, 1) & ~rows[:, None]
    hidden_states, penultimate = (
        None if states is None else remove_text(rows, states, text_mask)[0] for states in doubled
    )
    return hidden_states, penultimate, text_mask

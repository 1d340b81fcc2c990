"""The flow between noise and data as training sees it: noising, loss and text dropout.

Flow time t runs from 1 (noise) to 0 (data); shapes and symbols as in `backbone.py`.
"""

import torch
from torch import Tensor


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

"""The flow between noise and data in training: noising, loss and text dropout (paper section 3.5).

Flow time t runs from 1 (noise) to 0 (data). Shapes and symbols are those of `backbone.py`.
"""

import torch
from torch import Tensor


def add_noise(z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Interpolate between data and noise: `z_t = (1 - t) z + t eps`.

    Args:
        z: Clean latents, (B, C, T').
        eps: Standard normal noise, (B, C, T').
        t: Flow time in [0, 1], (B,).

    Returns:
        z_t, (B, C, T').
    """
    # One kernel instead of two products and a sum; exact at both ends.
    return torch.lerp(z, eps, t[:, None, None].to(z.dtype))


def target_velocity(z: Tensor, eps: Tensor) -> Tensor:
    """Return the velocity dz_t/dt of the straight path, `u = eps - z`, which is the same for all t.

    Args:
        z: Clean latents, (B, C, T').
        eps: Noise, (B, C, T').

    Returns:
        u, (B, C, T').
    """
    return eps - z


def sample_t(batch: int, generator: torch.Generator, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Draw flow times for training from a logit-normal distribution.

    Args:
        batch: Number of times B.
        generator: A CPU generator.
        mean: Mean of logit(t).
        std: Standard deviation of logit(t).

    Returns:
        t in (0, 1), (B,), on the CPU.
    """
    # Most draws fall in the middle, where the velocity is hard to predict. At t = 0 and t = 1 the
    # best prediction is only a mean, of the noise or of the data (Esser et al. 2024). The density
    # replaces a weight by time in the loss.
    return torch.sigmoid(mean + std * torch.randn(batch, generator=generator))


def flow_loss(v: Tensor, z: Tensor, eps: Tensor, loss_mask: Tensor | None = None) -> Tensor:
    """Compute the mean squared error of the velocity over unmasked frames (paper equation 3).

    Args:
        v: Predicted velocity, (B, C, T').
        z: Clean latents, (B, C, T').
        eps: The added noise, (B, C, T').
        loss_mask: M_loss, (B, 1, T'), 1 or True on frames of the loss; None for all frames.

    Returns:
        The mean over all elements of unmasked frames, a float32 scalar.
    """
    error = (v.float() - target_velocity(z, eps).float()).square()
    if loss_mask is None:
        return error.mean()
    # Divided by the unmasked elements, not by all: otherwise a batch with long references would
    # weigh less than one with short ones. The paper leaves the normalization open.
    weight = loss_mask.to(error.dtype)  # (B, 1, T')
    return (error * weight).sum() / (weight.sum() * error.shape[1])


def draw_dropped(batch: int, generator: torch.Generator, probability: float = 0.1) -> Tensor:
    """Draw the rows of a batch whose text is dropped in training.

    Args:
        batch: Number of rows B.
        generator: A CPU generator.
        probability: Probability that a row's text is dropped.

    Returns:
        (B,) booleans on the CPU, True where the text is dropped.
    """
    return torch.rand(batch, generator=generator) < probability


def remove_text(rows: Tensor, states: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Remove the text of some rows: zero its states and mask every token.

    This is the only definition of "no text". Dropout in training and v0 of guidance must agree: the
    model never saw another kind of v0. z_s and m are kept: guidance strengthens the text, not the
    source.

    Args:
        rows: (B,) booleans, True where the text is removed.
        states: Hidden states (B, D, N, text_dim) or penultimate states (B, N, text_dim).
        text_mask: (B, N) booleans.

    Returns:
        New states and text_mask.
    """
    rows = rows.to(states.device)
    kept_states = states.masked_fill(rows.view(-1, *[1] * (states.ndim - 1)), 0.0)
    return kept_states, text_mask & ~rows[:, None]

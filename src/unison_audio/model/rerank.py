"""Best of n: ranks the candidates of a sound by the model's own denoising error.

A candidate that fits its instruction badly, with a slurred word or a missing sound, is hard to
denoise for the model itself. So each candidate is noised again, and the one with the lowest
velocity error is kept. This error is the training loss of the candidate. The loss bounds its
negative log-likelihood, and ranks as in the diffusion classifier (Li et al. 2023). The paper
samples one candidate.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.flow import add_noise, target_velocity
from unison_audio.model.sampling import ModelInputs

TIMES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.35)
"""Flow times at which candidates are noised."""

DRAWS = 2
"""Draws of noise at each time, the same for every candidate."""

EVALUATIONS = DRAWS * len(TIMES)
"""Velocity evaluations for one candidate."""


@torch.no_grad()
def denoising_error(
    backbone: UnisonBackbone,
    inputs: ModelInputs,
    z: Tensor,
    *,
    loss_mask: Tensor,
    on_evaluation: Callable[[int], None] | None = None,
) -> Tensor:
    """Measure the mean squared velocity error of each row, given its instruction and source.

    Args:
        backbone: The model, in evaluation mode.
        inputs: Conditioning and text of the candidates.
        z: Candidates, (B, C, T').
        loss_mask: (B, 1, T'), true (or 1) on generated frames, which alone are compared.
        on_evaluation: Called after each velocity evaluation with the number done.

    Returns:
        (B,) float32; lower is better.
    """
    run = inputs.prepare(backbone, torch.tensor(TIMES))
    lengths = [z.shape[2]] * len(z) if inputs.frames is None else list(inputs.frames)
    weight = loss_mask.to(z.dtype)
    total = z.new_zeros(len(z))
    for draw in range(DRAWS):
        eps = torch.zeros(z.shape)
        for row, length in enumerate(lengths):
            # One seed for all rows: candidates of equal length meet the same noise, so that the
            # difference of their errors does not come from the noise.
            generator = torch.Generator().manual_seed(draw)
            eps[row, :, :length] = torch.randn(z.shape[1], length, generator=generator)
        eps = eps.to(z)
        for step, t in enumerate(TIMES):
            noised = add_noise(z, eps, z.new_full((len(z),), t))
            v, _ = run.velocities(noised, step, guided=False)
            error = (v - target_velocity(z, eps)).square() * weight
            total += error.sum(dim=(1, 2)) / (weight.sum(dim=(1, 2)) * z.shape[1])
            if on_evaluation is not None:
                on_evaluation(draw * len(TIMES) + step + 1)
    return total / EVALUATIONS

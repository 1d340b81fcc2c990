"""Choosing among several candidates by the model's own error on them.

What fits its instruction badly, a word slurred or a sound left out, the model itself finds hard to
denoise. So each candidate is noised again, and the one whose velocity is told best is kept: the
error is the training loss of the candidate, which bounds its negative log-likelihood, and ranks as
in the diffusion classifier (Li et al. 2023). The paper draws one candidate.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.flow import add_noise, target_velocity
from unison_audio.model.prepared import PreparedRun

TIMES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.35)
"""Flow times at which candidates are noised."""

DRAWS = 2
"""Draws of noise at each time, the same for every candidate."""

PASSES = DRAWS * len(TIMES)
"""Velocities that one candidate's misfit takes."""


@torch.no_grad()
def misfit(
    backbone: UnisonBackbone,
    z: Tensor,
    z_s: Tensor,
    m: Tensor,
    hidden_states: Tensor | None,
    text_mask: Tensor,
    *,
    loss_mask: Tensor,
    penultimate: Tensor | None = None,
    frames: Sequence[int] | None = None,
    on_pass: Callable[[int], None] | None = None,
) -> Tensor:
    """Measure how badly the model tells each row's velocity, given its instruction and source.

    Args:
        backbone: The model.
        z: What was sampled, (B, C, T').
        z_s: Source or reference latents, zeros where there is none, (B, C, T').
        m: Task tag of each frame, (B, 1, T').
        hidden_states: (B, D, N, text_dim); None where the fusion reads none.
        text_mask: (B, N) booleans, True where a token is real.
        loss_mask: (B, 1, T'), true (or 1) on frames that are asked for.
        penultimate: (B, N, text_dim); None where the fusion reads none.
        frames: Frames of each row that count, up to T'; None if all do.
        on_pass: Called after each velocity with those done.

    Returns:
        (B,) float32: the mean squared error over the frames that are asked for; less is better.
    """
    run = PreparedRun(
        backbone,
        z_s,
        m,
        hidden_states,
        text_mask,
        times=torch.tensor(TIMES),
        penultimate=penultimate,
        frames=frames,
    )
    weight = loss_mask.to(z.dtype)
    total = z.new_zeros(len(z))
    for draw in range(DRAWS):
        eps = torch.zeros(z.shape)
        for row, length in enumerate([z.shape[2]] * len(z) if frames is None else frames):
            generator = torch.Generator().manual_seed(draw)  # rows of one length share the noise
            eps[row, :, :length] = torch.randn(z.shape[1], length, generator=generator)
        eps = eps.to(z)
        for step, t in enumerate(TIMES):
            noised = add_noise(z, eps, z.new_full((len(z),), t))
            v, _ = run.velocities(noised, step, guided=False)
            error = (v - target_velocity(z, eps)).square() * weight
            total += error.sum(dim=(1, 2)) / (weight.sum(dim=(1, 2)) * z.shape[1])
            if on_pass is not None:
                on_pass(draw * len(TIMES) + step + 1)
    return total / PASSES

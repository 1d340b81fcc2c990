"""Sampling of a gap between known frames: Euler's method with repeated noising at each step.

The known frames are set to their noised latents on the flow's path before each evaluation. Then the
frames of the gap are noised again from the model's estimate of the data, and evaluated again
(RePaint, Lugmayr et al. 2022), so that they and the known frames grow together. Without the
repeats, the model sees the known frames only as far as they have been denoised, and fills the gap
with a sound of its own.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.flow import add_noise
from unison_audio.model.guidance import Guidance
from unison_audio.model.sampling import ModelInputs
from unison_audio.model.solvers import Solver

REPEATS = 3
"""Evaluations at each time but the first. The distance of a gap's mean spectrum from what is around
it falls with them; `benchmarks/gaps.py` measures it."""


@torch.no_grad()
def sample_gap(
    backbone: UnisonBackbone,
    inputs: ModelInputs,
    *,
    known: Tensor,
    draw: Callable[[], Tensor],
    steps: int = 100,
    repeats: int = REPEATS,
    guidance: Guidance | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Sample the frames of gaps.

    Args:
        backbone: The model, in evaluation mode.
        inputs: Conditioning and text of the batch.
        known: (B, C, T') latents of the frames around the gaps; NaN on the frames to sample.
        draw: Gives noise, (B, C, T'), at each call.
        steps: Steps from noise to data, of equal length.
        repeats: Evaluations at each time but the first, where all is noise.
        guidance: Classifier-free guidance; the paper's if None.
        on_step: Called after each step with the number done and the total.

    Returns:
        z, (B, C, T'), float32; the known frames as they are, and 0 on frames that do not count.

    Raises:
        InputError: steps or repeats is below 1, or shapes do not agree.
    """
    if repeats < 1:
        raise InputError(f"repeats is {repeats}; it must be at least 1.")
    solver, guidance = Solver("euler-even", steps), guidance or Guidance()
    times = solver.times.tolist()
    counted, gap = inputs.counted(), known.isnan()
    field = inputs.prepare(backbone, solver.times.to(known.device))
    values = known.float().nan_to_num()
    z = draw().float()
    for step, t in enumerate(times):
        count = repeats if step else 1
        for repeat in range(count):
            at = torch.full((len(z),), t, device=z.device)
            z_t = torch.where(gap, z, add_noise(values, draw().float(), at))
            v1, v0 = field.velocities(z_t, step, guided=guidance.at(t))
            v = v1 if v0 is None else guidance.combine(v1, v0, counted)
            if repeat + 1 < count:
                z = add_noise(z_t - t * v, draw().float(), at)
            else:
                z = z_t + (([*times, 0.0])[step + 1] - t) * v
        if on_step is not None:
            on_step(step + 1, steps)
    z = torch.where(gap, z, values)
    return z if counted is None else z * counted

"""Samples the latents of a batch: the noise of each item, its candidates, and the best of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.gap_sampling import sample_gap
from unison_audio.model.rerank import denoising_error
from unison_audio.model.sampling import ModelInputs, sample
from unison_audio.sampling_params import GroupSettings
from unison_audio.tasks.conditioning import Condition
from unison_audio.tasks.table import REFERENCE
from unison_audio.text.states import TextStates
from unison_audio.variants import Variant

OnStep = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


@dataclass(frozen=True, kw_only=True)
class LatentBatch:
    """Items that are sampled together, and how."""

    given: Condition
    """Encoded sources and references of the rows."""
    text: TextStates
    """Text states of the rows."""
    seeds: Sequence[int]
    """Seed of each row's noise."""
    frames: Sequence[int] | None = None
    """Frames of each row that count; None counts all."""
    settings: GroupSettings
    """Settings of all rows."""


@torch.no_grad()
def sample_batch(
    backbone: UnisonBackbone,
    variant: Variant,
    batch: LatentBatch,
    device: torch.device,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample a batch and keep the candidate of each row with the lowest denoising error.

    Args:
        backbone: The variant's model.
        variant: The variant.
        batch: The batch.
        device: The model's device.
        on_step: Called after each step with the steps done and the steps in all.

    Returns:
        (B, C, T') latents.
    """
    settings = batch.settings
    rows, channels, longest = batch.given.z_s.shape
    count, total = settings.num_candidates, settings.progress_steps
    lengths = [longest] * rows if batch.frames is None else list(batch.frames)
    # A generator for each item, over the item's own length: its noise, and so its sound, is the
    # same alone and in any batch.
    generators = [torch.Generator().manual_seed(seed) for seed in batch.seeds]

    def draw() -> Tensor:
        noise = torch.zeros(rows, count, channels, longest)
        for row, length in enumerate(lengths):
            for candidate in noise[row]:
                drawn = torch.randn(channels, length, generator=generators[row])
                candidate[:, :length] = drawn
        return settings.temperature * noise.flatten(0, 1).to(device)

    which = [row for row in range(rows) for _ in range(count)]  # row of each candidate
    given, text = batch.given.to(device), batch.text.select(which).to(device)
    inputs = ModelInputs(
        z_s=given.z_s[which],
        m=given.m[which],
        hidden_states=text.hidden_states if variant.read_layers else None,
        text_mask=text.mask,
        penultimate=text.penultimate,
        frames=[lengths[row] for row in which],
        voice=None if given.voice is None else given.voice.select(which),
    )

    def report(done: int) -> None:
        if on_step is not None:
            on_step(done, total)

    if given.known is not None:
        z = sample_gap(
            backbone,
            inputs,
            known=given.known[which],
            draw=draw,
            steps=settings.steps,
            guidance=settings.guidance,
            on_step=lambda done, of: report(done),
        )
    else:
        held = (given.m == REFERENCE) & variant.hold_reference
        z = sample(
            backbone,
            inputs,
            noise=draw(),
            steps=settings.steps,
            solver=settings.solver,
            guidance=settings.guidance,
            fixed=held[which],
            on_step=lambda done, of: report(done),
        )
    if count == 1:
        return z
    error = denoising_error(
        backbone,
        inputs,
        z,
        loss_mask=given.loss_mask[which],
        on_evaluation=lambda done: report(settings.steps + done),
    )
    best = error.view(rows, count).argmin(dim=1)
    return z.view(rows, count, channels, longest)[torch.arange(rows), best.cpu()]

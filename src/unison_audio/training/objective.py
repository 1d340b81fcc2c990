"""What a batch's loss is: the paper's flow matching; distillation has another one."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from unison_audio.model import flow
from unison_audio.model.guidance import Guidance
from unison_audio.training.batches import EncodedBatch
from unison_audio.training.recipes import BackboneRecipe
from unison_audio.variants import Variant

SAMPLE_STEPS = 16
SAMPLE_GUIDANCE = 3.0


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How a run makes the samples that it writes."""

    steps: int
    """Sampling steps."""
    guidance: Guidance
    """Classifier-free guidance."""
    solver: str = "euler"
    """Name of the solver."""


class Objective(Protocol):
    """The loss of a batch, and how a model trained with it is sampled."""

    def loss(
        self,
        model: nn.Module,
        batch: EncodedBatch,
        generator: torch.Generator,
        recipe: BackboneRecipe,
        step: int,
    ) -> Tensor:
        """The loss of one batch.

        Args:
            model: The backbone, or its wrapper over several processes.
            batch: The batch.
            generator: Source of all randomness of the batch.
            recipe: The run's recipe.
            step: The training step.

        Returns:
            A scalar.
        """
        ...

    def sample_config(self, variant: Variant) -> SampleConfig:
        """How the run's samples are made."""
        ...


class FlowMatching:
    """The paper's objective: masked regression of the velocity (Eq. 3)."""

    def loss(
        self,
        model: nn.Module,
        batch: EncodedBatch,
        generator: torch.Generator,
        recipe: BackboneRecipe,
        step: int,
    ) -> Tensor:
        """As in `Objective`."""
        t_mean = recipe.phase(step).t_mean_of(batch.task)
        return velocity_error(model, batch, generator, recipe.text_dropout, t_mean)

    def sample_config(self, variant: Variant) -> SampleConfig:
        """Few steps: samples show whether a run learns, not its best quality."""
        return SampleConfig(steps=SAMPLE_STEPS, guidance=Guidance(scale=SAMPLE_GUIDANCE))


def velocity_error(
    model: nn.Module,
    batch: EncodedBatch,
    generator: torch.Generator,
    text_dropout: float,
    t_mean: float = 0.0,
) -> Tensor:
    """The flow-matching loss of one batch (paper Eq. 3), in training and in validation.

    Args:
        model: The backbone, or its wrapper over several processes.
        batch: The batch.
        generator: Source of the noise, the flow times and the text dropout.
        text_dropout: Probability that an item loses its text.
        t_mean: Mean of logit(t).

    Returns:
        A scalar.
    """
    z, given, text = batch.z, batch.condition, batch.text
    device = z.device
    # Noise is drawn on the CPU: the same seed gives the same numbers on every device.
    eps = torch.randn(z.shape, generator=generator).to(device)
    t = flow.sample_t(z.shape[0], generator, mean=t_mean).to(device)
    dropped = flow.draw_dropped(z.shape[0], generator, text_dropout)
    mask = text.mask.to(device)
    states, kept = flow.remove_text(dropped, text.hidden_states.to(device), mask)
    penultimate = None
    if text.penultimate is not None:
        penultimate, _ = flow.remove_text(dropped, text.penultimate.to(device), mask)
    x = torch.cat((flow.add_noise(z, eps, t), given.z_s, given.m), dim=1)  # (B, 2C+1, T')
    v = model(x, t, states if states.shape[1] else None, kept, penultimate)
    return flow.flow_loss(v, z, eps, given.loss_mask)

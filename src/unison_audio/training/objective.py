"""What training minimises: the masked error of the velocity of a noised batch."""

import torch
from torch import Tensor

from unison_audio.model import flow
from unison_audio.training.examples import Example


def velocity_error(
    model: torch.nn.Module,
    example: Example,
    generator: torch.Generator,
    text_dropout: float,
    t_mean: float = 0.0,
) -> Tensor:
    """The loss of one batch (paper Eq. 3): training and validation both call this.

    Args:
        model: The backbone, or what spreads it over processes.
        example: The batch.
        generator: Of the noise, the times and the dropout.
        text_dropout: Probability that an item loses its text.
        t_mean: Mean of logit(t).

    Returns:
        A scalar.
    """
    z, given, text = example.z, example.condition, example.text
    device = z.device
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

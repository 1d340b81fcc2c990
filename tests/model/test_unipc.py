"""UniPC against diffusers' scheduler, bit for bit."""

import pytest
import torch
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from unison_audio.model.unipc import UniPC


@pytest.mark.parametrize("steps", range(1, 33))
def test_every_step_has_the_bits_of_diffusers(steps: int) -> None:
    theirs = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    theirs.set_timesteps(steps)
    ours = UniPC(steps)
    assert torch.equal(ours.times, theirs.sigmas[:-1])
    generator = torch.Generator().manual_seed(steps)
    z = torch.randn(3, 5, 41, generator=generator)
    for step in range(steps):
        # A field that depends on z, so that an error of one bit would grow.
        v = torch.tanh(z) + torch.randn(z.shape, generator=generator)
        (expected,) = theirs.step(v, theirs.timesteps[step], z, return_dict=False)
        assert torch.equal(ours.advance(v, step, z), expected), step
        z = expected

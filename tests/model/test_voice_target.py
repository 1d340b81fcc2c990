"""Steering toward a voice: against the mean that it must give, and inside the whole pipeline."""

import pytest
import torch
from torch import Tensor

from unison_audio import Unison
from unison_audio.model.guidance import Guidance
from unison_audio.model.sampling import integrate
from unison_audio.model.solvers import Solver
from unison_audio.model.voice_target import STEER_ABOVE, VoiceTarget

C, FRAMES = 4, 12


def latents(seed: int) -> Tensor:
    """Two utterances of other voices: speech in 8 of 12 frames, silence (zeros) in the others."""
    z = torch.randn(2, C, FRAMES, generator=torch.Generator().manual_seed(seed)) + 4
    z[:, :, [0, 5, 10, 11]] = 0
    return z


def target() -> VoiceTarget:
    row = VoiceTarget.of_latents(latents(1)[:1] + 3, torch.zeros(1, C, 5) + 3)
    joined = VoiceTarget.batch([row, None])
    assert joined is not None
    return joined


def test_the_mean_is_that_of_the_frames_with_speech() -> None:
    speech = latents(1)[:1]
    mean = speech[:, :, [1, 2, 3, 4, 6, 7, 8, 9]].mean(dim=-1)
    assert torch.allclose(VoiceTarget.of_latents(speech, torch.zeros(1, C, 5)).mean, mean)
    assert VoiceTarget.batch([None, None]) is None


@pytest.mark.parametrize("t", [1.0, 0.5, STEER_ABOVE])
def test_the_estimate_gets_the_mean_and_silence_stays(t: float) -> None:
    voice = VoiceTarget(mean=torch.full((2, C), 7.0), silence=torch.zeros(2, C))
    voice.mean[1] = torch.nan
    data = latents(2)
    z_t = torch.randn(2, C, FRAMES)
    v = (z_t - data) / t
    counted = torch.arange(FRAMES)[None, None] < torch.tensor([9, FRAMES])[:, None, None]
    steered = voice.steer(v, z_t, t, counted)
    assert torch.equal(steered[1], v[1])  # a row without a target
    estimate = z_t - t * steered
    if t <= STEER_ABOVE:
        assert torch.equal(steered, v)
        return
    spoken = [1, 2, 3, 4, 6, 7, 8]
    assert torch.allclose(estimate[0, :, spoken].mean(dim=-1), torch.full((C,), 7.0), atol=1e-4)
    others = [0, 5, 9, 10, 11]  # silence, and frames that do not count
    assert torch.equal(steered[0][:, others], v[0][:, others])


def test_integration_steers_while_the_voice_is_decided() -> None:
    solver = Solver("euler-even", 10)
    data, seen = latents(3), []

    class Straight:
        def velocities(self, z_t: Tensor, step: int, *, guided: bool) -> tuple[Tensor, None]:
            t = float(solver.times[step])
            seen.append(z_t[0].clone())
            return (z_t - data) / t, None

    noise = torch.randn(2, C, FRAMES)
    free = integrate(Straight(), noise, solver, Guidance(scale=1.0))
    before = list(seen)
    seen.clear()
    steered = integrate(Straight(), noise, solver, Guidance(scale=1.0), voice=target())
    away = [float((a - b).abs().max()) for a, b in zip(before, seen, strict=True)]
    assert away[0] == 0  # the noise
    assert min(away[1:]) > 0.1
    # A field that knows its data leads there from everywhere, once nothing steers it.
    assert torch.allclose(free, data, atol=1e-4)
    assert torch.allclose(steered, data, atol=1e-4)


def test_a_voice_changes_its_own_item_alone(tiny: Unison, stub_text: None) -> None:
    said = '[Speech] A male voice saying "the red bird is cold"'
    other = tiny.generate(said, duration=1.92, seed=3)
    free = tiny.generate(said, duration=1.92, seed=1).waveform
    in_voice = tiny.generate(said, duration=1.92, seed=1, voice=other).waveform
    assert float((in_voice - free).abs().max()) > 1e-4
    both = tiny.generate([said] * 2, duration=1.92, seed=[1, 1], voice=[None, other])
    assert torch.allclose(both[0].waveform, free, atol=1e-5)
    assert torch.allclose(both[1].waveform, in_voice, atol=1e-5)

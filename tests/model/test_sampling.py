"""Sampling against closed forms of the solvers' steps and against the schedulers' own loops."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.model import flow
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.config import FUSIONS, BackboneConfig
from unison_audio.model.guidance import Guidance
from unison_audio.model.sampling import ModelInputs, integrate, sample
from unison_audio.model.solvers import SOLVERS, Solver

B, C, FRAMES, TOKENS = 3, 4, 10, 5
FLOW: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
SCHEDULERS: dict[str, Callable[[], Any]] = {
    "euler": FlowMatchEulerDiscreteScheduler,
    "heun": FlowMatchHeunDiscreteScheduler,
    "unipc": lambda: UniPCMultistepScheduler(**FLOW),
    "dpm++": lambda: DPMSolverMultistepScheduler(**FLOW),
}


class Field:
    """A velocity field given as a function of (z_t, t, whether there is text)."""

    def __init__(self, solver: Solver, function: Callable[[Tensor, float, bool], Tensor]) -> None:
        self.function, self.times = function, solver.times.tolist()
        self.asked: list[tuple[float, bool]] = []

    def velocities(self, z_t: Tensor, step: int, *, guided: bool) -> tuple[Tensor, Tensor | None]:
        t = self.times[step]
        self.asked.append((t, guided))
        v1 = self.function(z_t, t, True)
        return v1, self.function(z_t, t, False) if guided else None


def noise(seed: int = 0) -> Tensor:
    return torch.randn(B, C, FRAMES, generator=torch.Generator().manual_seed(seed))


def euler_sigmas(steps: int) -> list[float]:
    """1 down to 0.001 evenly, then 0: the scheduler's default, from its documentation."""
    spread = [1 - 0.999 * i / (steps - 1) for i in range(steps)] if steps > 1 else [1.0]
    return [*spread, 0.0]


UNGUIDED = Guidance(scale=1.0)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("steps", [2, 7, 100])
def test_exact_on_a_constant_field(name: str, steps: int) -> None:
    z, start = noise(1), noise()
    solver = Solver(name, steps)
    field = Field(solver, lambda *_: start - z)
    sampled = integrate(field, start, solver, UNGUIDED)
    # DPM-Solver++ begins at t = 0.999, where diffusers' flow schedule of it begins.
    missed = 1e-3 * float((start - z).abs().max()) if name == "dpm++" else 0.0
    torch.testing.assert_close(sampled, z, atol=1e-4 + missed, rtol=0)
    assert len(field.asked) == (2 * steps - 1 if name == "heun" else steps)
    assert not any(guided for _, guided in field.asked)


@pytest.mark.parametrize("name", SOLVERS)
def test_what_is_known_is_led_straight_to_it(name: str) -> None:
    known, start, seen = noise(1), noise(), []
    free = torch.zeros(B, 1, FRAMES, dtype=torch.bool)
    free[:, :, 3:] = True
    solver = Solver(name, 6)

    def wild(z_t: Tensor, t: float, text: bool) -> Tensor:
        seen.append((float(t), z_t))
        return 5 * z_t.cos()

    sampled = integrate(
        Field(solver, wild), start, solver, UNGUIDED, known=known.masked_fill(free, torch.nan)
    )
    assert torch.equal(sampled[:, :, :3], known[:, :, :3])
    assert (sampled[:, :, 3:] - known[:, :, 3:]).abs().min() > 1e-4
    assert len(seen) >= 6
    for t, z_t in seen:  # as training shows them
        expected = torch.lerp(known, start, t)[:, :, :3]
        torch.testing.assert_close(z_t[:, :, :3], expected, atol=1e-2, rtol=0)
    alone = integrate(Field(solver, wild), start, Solver(name, 6), UNGUIDED)
    torch.testing.assert_close(sampled[:, :, 3:], alone[:, :, 3:])  # the field is frame by frame


def even_sigmas(steps: int) -> list[float]:
    """1 down to 0 evenly."""
    return [1 - i / steps for i in range(steps + 1)]


@pytest.mark.parametrize(("name", "times"), [("euler", euler_sigmas), ("euler-even", even_sigmas)])
@pytest.mark.parametrize("steps", [1, 4, 100])
def test_euler_is_exact_on_a_linear_field(
    name: str, times: Callable[[int], list[float]], steps: int
) -> None:
    rate, solver = 1.7, Solver(name, steps)
    field = Field(solver, lambda z_t, *_: rate * z_t)
    sampled = integrate(field, noise(), solver, UNGUIDED)
    sigmas = times(steps)
    assert [t for t, _ in field.asked] == pytest.approx(sigmas[:-1], abs=1e-6)
    factor = 1.0
    for now, then in itertools.pairwise(sigmas):
        factor *= 1 + rate * (then - now)
    torch.testing.assert_close(sampled, factor * noise(), atol=1e-5, rtol=1e-5)


def error_of(name: str, steps: int) -> float:
    """Distance from the exact end of dz/dt = cos(3 t) z: the exponential of the integral."""
    solver = Solver(name, steps)
    field = Field(solver, lambda z_t, t, _: z_t * math.cos(3 * t))
    exact = noise() * math.exp(-math.sin(3) / 3)
    return float((integrate(field, noise(), solver, UNGUIDED) - exact).abs().max())


@pytest.mark.parametrize("name", ["heun", "unipc", "dpm++"])
def test_higher_orders_come_nearer_with_fewer_steps(name: str) -> None:
    assert error_of(name, 40) < 0.35 * error_of("euler", 80)
    assert error_of(name, 20) < 0.45 * error_of(name, 10)


def test_guidance_goes_beyond_the_text() -> None:
    solver, w = Solver("euler", 6), 4.5
    field = Field(solver, lambda z_t, t, text: torch.full_like(z_t, 3.0 if text else 1.0))
    sampled = integrate(field, noise(), solver, Guidance(scale=w))
    torch.testing.assert_close(sampled, noise() - (1 + w * 2), atol=1e-4, rtol=0)
    assert all(guided for _, guided in field.asked)


def test_guidance_only_within_its_interval() -> None:
    solver = Solver("euler", 11)
    field = Field(solver, lambda z_t, t, text: torch.full_like(z_t, float(text)))
    sampled = integrate(field, noise(), solver, Guidance(scale=3.0, interval=(0.25, 0.65)))
    times = euler_sigmas(11)
    inside = [0.25 <= t <= 0.65 for t in times[:-1]]
    assert [guided for _, guided in field.asked] == inside
    assert 0 < sum(inside) < 11
    way = sum(
        (now - then) * (3.0 if within else 1.0)
        for (now, then), within in zip(itertools.pairwise(times), inside, strict=True)
    )
    torch.testing.assert_close(sampled, noise() - way, atol=1e-4, rtol=0)


def test_rescale_brings_the_deviation_back() -> None:
    v1, v0 = noise(1), noise(2)
    counted = torch.ones(B, 1, FRAMES, dtype=torch.bool)
    counted[0, :, 6:] = False
    guided = Guidance(scale=4.0).combine(v1, v0, counted)
    full = Guidance(scale=4.0, rescale=1.0).combine(v1, v0, counted)
    half = Guidance(scale=4.0, rescale=0.5).combine(v1, v0, counted)
    for row, frames in ((0, 6), (1, FRAMES)):
        part = full[row, :, :frames]
        wanted = v1[row, :, :frames].std(correction=0)
        torch.testing.assert_close(part.std(correction=0), wanted)
        ratio = wanted / guided[row, :, :frames].std(correction=0)
        torch.testing.assert_close(part, guided[row, :, :frames] * ratio)
    torch.testing.assert_close(half, (guided + full) / 2)


def tiny_backbone(fusion: str) -> UnisonBackbone:
    torch.manual_seed(0)
    backbone = UnisonBackbone(
        BackboneConfig(
            latent_channels=C, dim=32, heads=2, rope_dim=8, blocks=2, text_dim=8, fusion=fusion
        )
    )
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return backbone.eval()


def sampled_from(backbone: UnisonBackbone, given: dict[str, Tensor], **more: Any) -> Tensor:
    """`sample` of inputs by name."""
    read = {name: value for name, value in given.items() if name != "noise"}
    inputs = ModelInputs(**read, frames=more.pop("frames", None))
    return sample(backbone, inputs, noise=given["noise"], **more)


def inputs(frames: int = FRAMES) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(B, TOKENS, dtype=torch.bool)
    mask[1, 3:] = False
    mask[2] = False
    return {
        "z_s": torch.randn(B, C, frames, generator=generator),
        "m": torch.randint(3, (B, 1, frames), generator=generator).float(),
        "hidden_states": torch.randn(B, 2, TOKENS, 8, generator=generator),
        "text_mask": mask,
        "noise": torch.randn(B, C, frames, generator=generator),
        "penultimate": torch.randn(B, TOKENS, 8, generator=generator),
    }


@torch.no_grad()
def plain_loop(
    backbone: UnisonBackbone, given: dict[str, Tensor], solver: str, steps: int, w: float
) -> Tensor:
    """Guidance as two passes, each through `forward`, in diffusers' documented loop."""
    scheduler = SCHEDULERS[solver]()
    scheduler.set_timesteps(steps)
    z = given["noise"]
    for step, timestep in enumerate(scheduler.timesteps):
        x = torch.cat((z, given["z_s"], given["m"]), dim=1)
        t = scheduler.sigmas[step].float().expand(len(z))
        states, mask, penultimate = (
            given[name] for name in ("hidden_states", "text_mask", "penultimate")
        )
        v1 = backbone(x, t, states, mask, penultimate)
        everything = torch.ones(len(z), dtype=torch.bool)
        no_states, no_mask = flow.remove_text(everything, states, mask)
        v0 = backbone(x, t, no_states, no_mask, 0 * penultimate)
        z = scheduler.step(v0 + w * (v1 - v0), timestep, z).prev_sample
    return z


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("solver", SCHEDULERS)
def test_equals_the_schedulers_own_loop(fusion: str, solver: str) -> None:
    backbone, given = tiny_backbone(fusion), inputs()
    before = {name: value.clone() for name, value in given.items()}
    sampled = sampled_from(backbone, given, steps=6, solver=solver, guidance=Guidance(scale=3.0))
    expected = plain_loop(backbone, given, solver, 6, 3.0)
    torch.testing.assert_close(sampled, expected, atol=2e-5, rtol=2e-4)
    assert all(torch.equal(given[name], value) for name, value in before.items())


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_rows_of_different_lengths_are_as_if_alone(fusion: str, scale: float) -> None:
    backbone, given, frames = tiny_backbone(fusion), inputs(), [7, FRAMES, 7]
    together = sampled_from(
        backbone, given, steps=3, guidance=Guidance(scale=scale, rescale=0.3), frames=frames
    )
    for row, count in enumerate(frames):
        alone = {name: value[row : row + 1] for name, value in given.items()}
        cut = {n: v[..., :count] if n in ("z_s", "m", "noise") else v for n, v in alone.items()}
        one = sampled_from(backbone, cut, steps=3, guidance=Guidance(scale=scale, rescale=0.3))
        torch.testing.assert_close(together[row, :, :count], one[0], atol=2e-5, rtol=2e-4)
        assert not together[row, :, count:].any()


def test_fixed_frames_become_the_source() -> None:
    backbone, given = tiny_backbone("O"), inputs()
    fixed = torch.zeros(len(given["m"]), 1, FRAMES, dtype=torch.bool)
    fixed[1, :, :4] = True
    sampled = sampled_from(backbone, given, steps=4, fixed=fixed)
    plain = sampled_from(backbone, given, steps=4)
    assert torch.equal(sampled[1, :, :4], given["z_s"][1, :, :4])
    torch.testing.assert_close(sampled[[0, 2]], plain[[0, 2]])
    assert not torch.allclose(sampled[1, :, 4:], plain[1, :, 4:], atol=1e-4)


def test_batch_without_any_text() -> None:
    backbone, given = tiny_backbone("O"), inputs()
    given["text_mask"] = torch.zeros_like(given["text_mask"])
    guided = sampled_from(backbone, given, steps=3)
    torch.testing.assert_close(guided, sampled_from(backbone, given, steps=3, guidance=UNGUIDED))


def test_progress_is_reported() -> None:
    told: list[tuple[int, int]] = []
    sampled_from(
        tiny_backbone("O"),
        inputs(),
        steps=3,
        on_step=lambda done, steps: told.append((done, steps)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_what_does_not_fit_is_refused() -> None:
    backbone, given = tiny_backbone("O"), inputs()
    with pytest.raises(InputError, match="steps is 0"):
        sampled_from(backbone, given, steps=0)
    with pytest.raises(InputError, match="use one of euler, heun"):
        sampled_from(backbone, given, solver="rk4")
    with pytest.raises(InputError, match=r"z_s \(3, 4, 9\)"):
        sampled_from(backbone, {**given, "z_s": given["z_s"][..., :9]})
    with pytest.raises(InputError, match=r"m of \(3, 1, 10\)"):
        sampled_from(backbone, {**given, "m": given["m"][:, 0]})
    with pytest.raises(InputError, match=r"frames \[11, 3, 3\]"):
        sampled_from(backbone, given, frames=[11, 3, 3])
    with pytest.raises(InputError, match=r"interval is \(0.5, 0.2\)"):
        Guidance(interval=(0.5, 0.2))
    with pytest.raises(InputError, match=r"rescale is 1.5"):
        Guidance(rescale=1.5)

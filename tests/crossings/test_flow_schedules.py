"""The times of every solver against closed forms, from one step up."""

import math

import pytest
import torch
from torch import Tensor

from unison_audio.model.guidance import Guidance
from unison_audio.model.sampling import integrate
from unison_audio.model.solvers import SOLVERS, Solver

STEPS = [1, 2, 3, 4, 7, 25, 100]


def spread(first: float, last: float, count: int) -> list[float]:
    """Evenly spaced, both ends included; the first alone where one is asked for."""
    return [first + (last - first) * k / max(1, count - 1) for k in range(count)]


def euler(steps: int) -> list[float]:
    return spread(1.0, 1e-3, steps)


def even(steps: int) -> list[float]:
    return [1 - k / steps for k in range(steps)]


def heun(steps: int) -> list[float]:
    """Each time but the first is evaluated twice: at a step's end and at the next one's begin."""
    first, *rest = euler(steps)
    return [first, *(t for time in rest for t in (time, time))]


def unipc(steps: int) -> list[float]:
    return [t if t < 1 else 1 - 1e-6 for t in (1 - k * (1 - 1e-3) / steps for k in range(steps))]


def dpm(steps: int) -> list[float]:
    """From 1 - 1/1000 on."""
    return [(1 - 1e-3) * (1 - k / steps) for k in range(steps)]


CLOSED_FORMS = {"euler": euler, "euler-even": even, "heun": heun, "unipc": unipc, "dpm++": dpm}


class Constant:
    """A field of one velocity, whatever the time."""

    def __init__(self, v: Tensor) -> None:
        self.v = v

    def velocities(self, z_t: Tensor, step: int, *, guided: bool) -> tuple[Tensor, None]:
        return self.v, None


def integrated(solver: Solver, start: Tensor, v: Tensor) -> Tensor:
    return integrate(Constant(v), start, solver, Guidance(scale=1.0))


def test_every_solver_has_a_closed_form() -> None:
    assert set(CLOSED_FORMS) == set(SOLVERS)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("steps", STEPS)
def test_times(name: str, steps: int) -> None:
    times = Solver(name, steps).times.tolist()
    assert all(math.isfinite(t) for t in times)
    assert times == pytest.approx(CLOSED_FORMS[name](steps), abs=2e-6)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_end_at_the_data(name: str, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    start, data = torch.randn(2, 1, 3, 5, generator=generator)
    found = integrated(Solver(name, steps), start, start - data)
    tolerance = 1e-4 + (1e-3 * float((start - data).abs().max()) if name == "dpm++" else 0)
    torch.testing.assert_close(found, data, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_can_be_used_again(name: str) -> None:
    solver, start, v = Solver(name, 5), torch.zeros(1, 3, 5), torch.ones(1, 3, 5)
    first = integrated(solver, start, v)
    assert torch.equal(integrated(solver, start, v), first)
    solver.advance(v, 0, start)
    solver.advance(v, 1, start)
    assert torch.equal(integrated(solver, start, v), first)  # after a run that was broken off
    with pytest.raises(ValueError, match="step 2 was given where 0 comes next"):
        Solver(name, 5).advance(v, 2, start)

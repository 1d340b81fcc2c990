"""Presets and what a user asks for instead of them."""

import dataclasses
from typing import Any

import pytest

from unison_audio.errors import InputError
from unison_audio.settings import sampling_for
from unison_audio.variants import VARIANTS

NANO = VARIANTS["nano"]


def test_the_default_is_the_variants_own() -> None:
    for variant in VARIANTS.values():
        found = sampling_for(variant)
        assert (found.steps, found.solver) == (variant.steps, variant.solver)
        assert found.guidance.scale == variant.guidance_scale
        assert (found.guidance.interval, found.guidance.rescale) == ((0.0, 1.0), 0.0)
        assert sampling_for(variant, preset="default") == found
    paper = sampling_for(VARIANTS["d20-44k"])
    assert (paper.steps, paper.solver, paper.guidance.scale) == (100, "euler", 4.5)


def test_fast_takes_fewer_steps_and_what_is_asked_for_wins() -> None:
    fast = sampling_for(NANO, preset="fast")
    assert (fast.steps, fast.solver) == (NANO.fast_steps, NANO.fast_solver)
    assert fast.steps < NANO.steps
    asked: dict[str, Any] = {
        "steps": 7,
        "solver": "heun",
        "guidance_scale": 2.0,
        "guidance_interval": (0.1, 0.9),
        "guidance_rescale": 0.5,
    }
    found = sampling_for(NANO, preset="fast", **asked)
    assert (found.steps, found.solver) == (7, "heun")
    guidance = found.guidance
    assert (guidance.scale, guidance.interval, guidance.rescale) == (2.0, (0.1, 0.9), 0.5)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"preset": "slow"}, "no preset 'slow'; use one of default, fast"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"solver": "rk4"}, "no solver 'rk4'; use one of euler"),
        ({"guidance_scale": -1.0}, "guidance scale is -1.0"),
        ({"guidance_interval": (0.8, 0.2)}, "0.8 to 0.2"),
        ({"guidance_interval": (0.0, float("nan"))}, "nan"),
        ({"guidance_rescale": 2}, "rescale is 2"),
    ],
)
def test_what_cannot_be_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sampling_for(NANO, **asked)


def test_a_variant_names_solvers_that_exist() -> None:
    with pytest.raises(InputError, match="no solver 'rk4'"):
        dataclasses.replace(NANO, fast_solver="rk4")

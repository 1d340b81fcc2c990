"""Presets and what a user asks for instead of them."""

import dataclasses
from typing import Any

import pytest

from unison_audio.errors import InputError
from unison_audio.model.rerank import PASSES
from unison_audio.sampling_params import sampling_for
from unison_audio.tasks.table import TASKS
from unison_audio.variants import VARIANTS

NANO = VARIANTS["nano"]


def test_the_default_is_the_variants_own() -> None:
    for variant in VARIANTS.values():
        found = sampling_for(variant)
        assert (found.generation.steps, found.solver) == (variant.steps, variant.solver)
        for pace, scale in (
            (found.generation, variant.guidance_scale),
            (found.speech, variant.guidance_scale),
            (found.addition, variant.edit_guidance_scale),
            (found.removal, variant.removal_guidance_scale),
        ):
            guidance = pace.guidance
            assert (guidance.scale, guidance.interval, guidance.rescale) == (scale, (0.0, 1.0), 0.0)
        assert found.keep_source == variant.keep_source
        assert sampling_for(variant, preset="default") == found
    paper = sampling_for(VARIANTS["d20-44k"])
    for pace in (paper.generation, paper.addition, paper.removal):
        assert (pace.steps, paper.solver, pace.guidance.scale) == (100, "euler", 4.5)
    assert not paper.keep_source


KEPT = ("edit_add", "edit_remove", "speech_delete", "denoise")
"""Not speech_rewrite, whose words are clearer without."""


def test_each_kind_of_task_has_its_pace() -> None:
    found = sampling_for(NANO)
    for name, pace in (
        ("t2a", found.generation),
        ("timed", found.generation),
        ("tts", found.speech),
        ("zero_shot_tts", found.speech),
        ("edit_add", found.addition),
        ("speech_rewrite", found.addition),
        ("edit_remove", found.removal),
        ("speech_delete", found.removal),
        ("denoise", found.removal),
    ):
        assert found.pace(TASKS[name]) == pace
        assert found.keeps(TASKS[name]) == (name in KEPT)
        assert not sampling_for(NANO, keep_source=False).keeps(TASKS[name])
        asked = sampling_for(NANO, keep_source=True).keeps(TASKS[name])
        assert asked == (name not in ("t2a", "timed", "tts", "zero_shot_tts"))
    assert found.removal.steps == NANO.removal_steps < found.generation.steps


def test_speech_is_drawn_several_times() -> None:
    assert NANO.speech_candidates > 1 > NANO.speech_temperature > 0
    found, fast = sampling_for(NANO), sampling_for(NANO, preset="fast")
    paper = sampling_for(VARIANTS["d24-16k"])
    for name, task in TASKS.items():
        speaks = name in ("tts", "zero_shot_tts")
        own = (NANO.speech_temperature, NANO.speech_candidates) if speaks else (1.0, 1)
        pace = found.pace(task)
        assert (pace.temperature, pace.candidates) == own
        assert pace.passes == pace.steps + (PASSES if speaks else 0)
        assert (fast.pace(task).temperature, fast.pace(task).candidates) == (own[0], 1)
        assert fast.pace(task).passes == fast.pace(task).steps
        assert (paper.pace(task).temperature, paper.pace(task).candidates) == (1.0, 1)
        asked = sampling_for(NANO, temperature=0.3, candidates=2).pace(task)
        assert (asked.temperature, asked.candidates) == (0.3, 2)


def test_fast_takes_fewer_steps_and_what_is_asked_for_wins() -> None:
    fast = sampling_for(NANO, preset="fast")
    assert (fast.generation.steps, fast.solver) == (NANO.fast_steps, NANO.fast_solver)
    assert fast.generation.steps < NANO.steps
    assert fast.removal.steps == min(NANO.fast_steps, NANO.removal_steps)
    asked: dict[str, Any] = {
        "steps": 7,
        "solver": "heun",
        "guidance_scale": 2.0,
        "guidance_interval": (0.1, 0.9),
        "guidance_rescale": 0.5,
        "temperature": 0.5,
        "candidates": 3,
    }
    found = sampling_for(NANO, preset="fast", **asked)
    assert found.solver == "heun"
    for pace in (found.generation, found.speech, found.addition, found.removal):
        assert (pace.steps, pace.candidates, pace.passes) == (7, 3, 7 + PASSES)
        assert pace.temperature == 0.5
        guidance = pace.guidance
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
        ({"temperature": -0.1}, "temperature is -0.1; give a number from 0 to 2"),
        ({"candidates": 0}, "candidates is 0; give a whole number from 1 to 64"),
        ({"candidates": True}, "candidates is True"),
        ({"keep_source": 1}, "keep_source is 1; give true or false"),
    ],
)
def test_what_cannot_be_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sampling_for(NANO, **asked)


def test_a_variant_names_solvers_that_exist() -> None:
    with pytest.raises(InputError, match="no solver 'rk4'"):
        dataclasses.replace(NANO, fast_solver="rk4")

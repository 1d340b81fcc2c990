"""Sampling options: presets, ranges, old names, and one field for each option."""

import ast
import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

import unison_audio
from unison_audio.errors import InputError
from unison_audio.model.guidance import Guidance
from unison_audio.model.rerank import EVALUATIONS
from unison_audio.sampling_params import (
    OPTIONS,
    GroupSettings,
    SamplingParams,
    merge_options,
    resolve_sampling,
)
from unison_audio.tasks.table import GROUPS, TASKS
from unison_audio.variants import VARIANTS

NANO = VARIANTS["nano"]
EDITED = ("edit_add", "edit_remove", "speech_delete", "denoise")
"""Edits whose source nano preserves: not speech_rewrite, whose words are clearer without."""


@pytest.mark.parametrize("name", VARIANTS)
def test_the_default_preset_is_the_variants_own(name: str) -> None:
    variant = VARIANTS[name]
    found = resolve_sampling(variant)
    assert resolve_sampling(variant, SamplingParams(preset="default")) == found
    scales = {
        "add": variant.edit_guidance_scale,
        "add_speech": variant.edit_guidance_scale,
        "remove": variant.removal_guidance_scale,
    }
    for group in GROUPS:
        settings = found.by_group[group]
        assert settings.solver == variant.solver
        assert settings.guidance == Guidance(scale=scales.get(group, variant.guidance_scale))
        least = min(variant.steps, variant.removal_steps)
        assert settings.steps == (least if group == "remove" else variant.steps)


def test_the_source_is_preserved_by_group_or_as_asked() -> None:
    found = resolve_sampling(NANO)
    for name, task in TASKS.items():
        assert found.for_task(task).preserve_source == (
            name in (*EDITED, "edit_replace", "speech_to_audio")
        )
        for asked in (True, False):
            resolved = resolve_sampling(NANO, SamplingParams(preserve_source=asked))
            edits = "source" in task.needs
            assert resolved.for_task(task).preserve_source == (asked and edits)


def test_a_variant_may_sample_speech_several_times() -> None:
    assert NANO.speech_candidates == 1 > NANO.speech_temperature > 0
    several = dataclasses.replace(NANO, speech_candidates=4)
    found = resolve_sampling(several)
    fast = resolve_sampling(several, SamplingParams(preset="fast"))
    paper = resolve_sampling(VARIANTS["d24-16k"])
    for name, task in TASKS.items():
        speaks = name in ("tts", "zero_shot_tts")
        own = (several.speech_temperature, several.speech_candidates) if speaks else (1.0, 1)
        settings = found.for_task(task)
        assert (settings.temperature, settings.num_candidates) == own
        assert settings.progress_steps == settings.steps + (EVALUATIONS if speaks else 0)
        settings = fast.for_task(task)
        assert (settings.temperature, settings.num_candidates) == (own[0], 1)
        assert settings.progress_steps == settings.steps
        settings = paper.for_task(task)
        assert (settings.temperature, settings.num_candidates) == (1.0, 1)


def test_fast_takes_fewer_steps_and_options_come_first() -> None:
    fast = resolve_sampling(NANO, SamplingParams(preset="fast"))
    sound = fast.for_task(TASKS["t2a"])
    assert (sound.steps, sound.solver) == (NANO.fast_steps, NANO.fast_solver)
    assert sound.steps < NANO.steps
    removal = fast.for_task(TASKS["edit_remove"])
    assert removal.steps == min(NANO.fast_steps, NANO.removal_steps)
    params = SamplingParams(
        preset="fast",
        steps=7,
        solver="heun",
        guidance_scale=2.0,
        guidance_interval=(0.1, 0.9),
        guidance_rescale=0.5,
        temperature=0.5,
        num_candidates=3,
    )
    guidance = Guidance(scale=2.0, interval=(0.1, 0.9), rescale=0.5)
    for task in TASKS.values():
        settings = resolve_sampling(NANO, params).for_task(task)
        assert (settings.solver, settings.guidance) == ("heun", guidance)
        assert (settings.steps, settings.temperature, settings.num_candidates) == (7, 0.5, 3)
        assert settings.progress_steps == 7 + EVALUATIONS


BAD: list[tuple[dict[str, Any], str]] = [
    ({"preset": "slow"}, "no preset 'slow'; use one of default, fast"),
    ({"steps": 0}, "steps is 0; give a whole number from 1 to 1000"),
    ({"steps": 2.5}, "steps is 2.5"),
    ({"solver": "rk4"}, "no solver 'rk4'; use one of euler"),
    ({"solver": ["euler"]}, "no solver"),
    ({"guidance_scale": -1.0}, "guidance scale is -1.0"),
    ({"guidance_interval": (0.8, 0.2)}, r"guidance_interval is \(0.8, 0.2\)"),
    ({"clean_text": "yes"}, "clean_text"),
    ({"guidance_interval": (0.0, float("nan"))}, "nan"),
    ({"guidance_interval": [0.1]}, "give two times t"),
    ({"guidance_rescale": 2}, "rescale is 2"),
    ({"temperature": -0.1}, "temperature is -0.1; give a number from 0 to 2"),
    ({"num_candidates": 0}, "num_candidates is 0; give a whole number from 1 to 64"),
    ({"num_candidates": True}, "num_candidates is True"),
    ({"preserve_source": 1}, "preserve_source is 1; give true or false"),
    ({"strict": "yes"}, "strict is 'yes'; give true or false"),
    ({"speed": 1}, "Unknown sampling option speed; the options are preset, steps"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        merge_options(None, options)


def test_every_option_has_a_range() -> None:
    assert {name for options, _ in BAD for name in options} == {*OPTIONS, "speed"}


def test_options_lie_over_parameters() -> None:
    base = SamplingParams(steps=5, temperature=0.5)
    found = merge_options(base, {"steps": 6, "guidance_interval": [0.1, 0.9]})
    assert found == SamplingParams(steps=6, temperature=0.5, guidance_interval=(0.1, 0.9))
    assert found.given() == {"steps": 6, "temperature": 0.5, "guidance_interval": (0.1, 0.9)}
    assert merge_options(base, {}) == base
    assert merge_options(None, {}) == SamplingParams()


def test_old_names_are_accepted_with_one_warning_each() -> None:
    with pytest.warns(FutureWarning) as caught:
        found = merge_options(None, {"candidates": 2, "guidance": 3.0, "keep_source": True})
    assert found == SamplingParams(num_candidates=2, guidance_scale=3.0, preserve_source=True)
    told = [str(one.message) for one in caught]
    assert told[0] == (
        "candidates is now called num_candidates; the old name will stop working in version 0.3."
    )
    assert len(told) == 3
    for options in ({"candidates": 2, "num_candidates": 2}, {"num_candidates": 2, "candidates": 2}):
        with pytest.raises(InputError, match="candidates is the old name of num_candidates"):
            merge_options(None, options)


def test_settings_of_a_group_have_the_same_ranges() -> None:
    with pytest.raises(InputError, match="temperature is 3"):
        GroupSettings(steps=4, guidance=Guidance(), temperature=3)
    with pytest.raises(InputError, match="steps is 0"):
        GroupSettings(steps=0, guidance=Guidance())


def test_an_option_is_a_parameter_of_no_function() -> None:
    """`SamplingParams` alone spells them: no command, job or method lists them again."""
    own = {"preserve_source", "num_candidates", "guidance_rescale", "guidance_interval"}
    for folder in ("cli", "demo", "pipeline.py", "checks.py", "inputs.py", "evaluation"):
        place = Path(inspect.getfile(unison_audio)).parent / folder
        for file in place.rglob("*.py") if place.is_dir() else [place]:
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.FunctionDef):
                    names = {arg.arg for arg in (*node.args.args, *node.args.kwonlyargs)}
                    assert not names & own, f"{file.name}: {node.name}"


def test_a_variant_names_solvers_that_exist() -> None:
    with pytest.raises(InputError, match="no solver 'rk4'"):
        dataclasses.replace(NANO, fast_solver="rk4")

"""How each task is sampled: a literal table of all tasks, variants and presets.

The table was computed before `Task.group` replaced what was derived from the tasks' metrics.
"""

import dataclasses

import pytest

from unison_audio.errors import InputError
from unison_audio.sampling_params import PRESETS, Preset, SamplingParams, resolve_sampling
from unison_audio.tasks.table import GROUPS, TASKS
from unison_audio.variants import VARIANTS

SPEECH = ("tts", "zero_shot_tts")
SOUND = ("t2a", "t2a_mix", "timed")
MIXED = ("t2as",)
ADD = ("edit_add", "edit_replace", "speech_to_audio")
ADD_SPEECH = ("speech_insert", "speech_rewrite", "audio_to_speech")
REMOVE = ("edit_remove", "speech_delete", "denoise")
EDITS = ADD + ADD_SPEECH + REMOVE
EVERY = SPEECH + SOUND + MIXED + EDITS

# (tasks, solver, steps, guidance scale, temperature, candidates, source preserved)
FULL_SIZE = {
    "default": [(EVERY, "euler", 100, 4.5, 1.0, 1, False)],
    "fast": [(EVERY, "unipc", 25, 4.5, 1.0, 1, False)],
}
NANO = {
    "default": [
        (SPEECH, "unipc", 16, 6.0, 0.8, 1, False),
        (SOUND + MIXED, "unipc", 16, 6.0, 1.0, 1, False),
        (ADD, "unipc", 16, 6.0, 1.0, 1, True),
        (ADD_SPEECH, "unipc", 16, 6.0, 1.0, 1, False),
        (REMOVE, "unipc", 4, 1.0, 1.0, 1, True),
    ],
    "fast": [
        (SPEECH, "unipc", 12, 6.0, 0.8, 1, False),
        (SOUND + MIXED, "unipc", 12, 6.0, 1.0, 1, False),
        (ADD, "unipc", 12, 6.0, 1.0, 1, True),
        (ADD_SPEECH, "unipc", 12, 6.0, 1.0, 1, False),
        (REMOVE, "unipc", 4, 1.0, 1.0, 1, True),
    ],
}
BEFORE = dict.fromkeys(
    ("d20-44k", "d24-16k", "d24-16k-l", "d24-16k-ol", "s32-16k", "d24-16k-3b"), FULL_SIZE
) | {"nano": NANO}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", VARIANTS)
def test_each_task_is_sampled_as_before(name: str, preset: Preset) -> None:
    sampling = resolve_sampling(VARIANTS[name], SamplingParams(preset=preset))
    expected = {task: row[1:] for row in BEFORE[name][preset] for task in row[0]}
    assert expected.keys() == TASKS.keys()
    for task in TASKS.values():
        settings = sampling.for_task(task)
        assert (
            settings.solver,
            settings.steps,
            settings.guidance.scale,
            settings.temperature,
            settings.num_candidates,
            settings.preserve_source,
        ) == expected[task.name], task.name
        assert (settings.guidance.interval, settings.guidance.rescale) == ((0.0, 1.0), 0.0)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_user_decides_for_every_edit_whether_the_source_is_preserved(name: str) -> None:
    for asked in (True, False):
        sampling = resolve_sampling(VARIANTS[name], SamplingParams(preserve_source=asked))
        preserved = {t.name for t in TASKS.values() if sampling.for_task(t).preserve_source}
        assert preserved == (set(EDITS) if asked else set())


def test_each_task_has_the_group_that_the_table_lists() -> None:
    found = {name: TASKS[name].group for name in TASKS}
    rows = zip(GROUPS, (SPEECH, SOUND, MIXED, ADD, ADD_SPEECH, REMOVE), strict=True)
    assert found == {task: group for group, tasks in rows for task in tasks}


def test_the_metrics_do_not_decide_how_a_task_is_sampled() -> None:
    sampling = resolve_sampling(VARIANTS["nano"])
    for task in TASKS.values():
        for metrics in ((), ("wer",), ("clap",), ("wer", "clap")):
            other = dataclasses.replace(task, metrics=metrics)
            assert sampling.for_task(other) == sampling.for_task(task)


def test_a_group_that_does_not_suit_the_tag_is_refused() -> None:
    with pytest.raises(InputError, match="group 'loud'; use one of speech, sound, mixed"):
        dataclasses.replace(TASKS["tts"], group="loud")
    with pytest.raises(InputError, match="group 'add' and the tag 0"):
        dataclasses.replace(TASKS["t2a"], group="add")
    with pytest.raises(InputError, match="group 'speech' and the tag 1"):
        dataclasses.replace(TASKS["edit_add"], group="speech")

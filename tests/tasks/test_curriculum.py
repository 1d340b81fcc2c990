from collections import Counter

import pytest

from unison_audio.errors import InputError
from unison_audio.tasks.curriculum import Stage, TaskSampler, default_stages
from unison_audio.tasks.table import TASKS

DRAWS = 10_000


def within_three_standard_errors(counts, probabilities):
    for name, share in probabilities.items():
        error = (share * (1 - share) / DRAWS) ** 0.5
        assert abs(counts[name] / DRAWS - share) < 3 * error, name


@pytest.mark.parametrize("step", [0, 149_999])
def test_stage_1_renormalizes_generation(step):
    sampler = TaskSampler(default_stages(), seed=1)
    counts = Counter(sampler.draw(step) for _ in range(DRAWS))
    # spec §6, the six generation rows over their sum 0.70
    shares = {"tts": 15, "zero_shot_tts": 25, "t2a": 10, "t2a_mix": 8, "t2as": 8, "timed": 4}
    assert set(counts) == set(shares)
    within_three_standard_errors(counts, {name: n / 70 for name, n in shares.items()})


def test_stage_2_follows_the_table():
    sampler = TaskSampler(default_stages(), seed=2)
    counts = Counter(sampler.draw(150_000) for _ in range(DRAWS))
    assert set(counts) == set(TASKS)
    within_three_standard_errors(
        counts, {name: task.stage2_probability for name, task in TASKS.items()}
    )


def test_the_switch_happens_at_its_step():
    stages = (
        Stage(until_step=10, probabilities={"tts": 1.0}),
        Stage(until_step=20, probabilities={"t2a": 1.0}),
        Stage(until_step=None, probabilities={"denoise": 0.5, "timed": 0.5, "t2as": 0.0}),
    )
    sampler = TaskSampler(stages, seed=0)
    drawn = [sampler.draw(step) for step in range(100)]
    assert drawn[:20] == ["tts"] * 10 + ["t2a"] * 10
    assert set(drawn[20:]) == {"denoise", "timed"}


def test_draws_continue_from_a_saved_state():
    sampler = TaskSampler(default_stages(5), seed=3)
    for step in range(7):
        sampler.draw(step)
    state = sampler.state_dict()
    ahead = [sampler.draw(step) for step in range(7, 200)]
    other = TaskSampler(default_stages(5), seed=99)
    other.load_state_dict(state)
    assert [other.draw(step) for step in range(7, 200)] == ahead


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ((), "last stage"),
        ((Stage(until_step=5, probabilities={"tts": 1.0}),), "last stage"),
        ((Stage(until_step=None, probabilities={"sing": 1.0}),), "Unknown task sing"),
        ((Stage(until_step=None, probabilities={"tts": 0.9}),), "sum"),
        ((Stage(until_step=None, probabilities={}),), "sum"),
        ((Stage(until_step=None, probabilities={"tts": 1.5, "t2a": -0.5}),), "at least 0"),
        (
            (
                Stage(until_step=9, probabilities={"tts": 1.0}),
                Stage(until_step=5, probabilities={"tts": 1.0}),
                Stage(until_step=None, probabilities={"tts": 1.0}),
            ),
            "increasing",
        ),
    ],
)
def test_impossible_stages_are_refused(stages, words):
    with pytest.raises(InputError, match=words):
        TaskSampler(stages, seed=0)

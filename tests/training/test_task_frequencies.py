"""How often a run trains on each task, over all its processes, against the table (spec, 6)."""

import dataclasses
import itertools
from collections import Counter

import pytest

from unison_audio.training.batches import BatchStream, CorpusInMemory
from unison_audio.training.recipes import base_recipe
from unison_audio.variants import VARIANTS

DRAWS, RANKS = 10_000, 2
GENERATION = {"tts": 15, "zero_shot_tts": 25, "t2a": 10, "t2a_mix": 8, "t2as": 8, "timed": 4}
EDITING = {
    "edit_add": 4,
    "edit_remove": 4,
    "edit_replace": 3,
    "speech_insert": 4,
    "speech_delete": 3,
    "speech_rewrite": 4,
    "denoise": 4,
    "audio_to_speech": 2,
    "speech_to_audio": 2,
}


class Tasks(BatchStream):
    """Gives the tasks of a process' batches instead of the batches."""

    def make(self, step, number, task):
        return step, number, task


def drawn(first_step: int) -> list[list[tuple[int, int, str]]]:
    """What each of two processes trains on, with two batches a step in all."""
    variant = VARIANTS["d24-16k"]
    recipe = base_recipe(variant, lambda seconds: int(seconds * variant.latent_fps))
    # Of 60 seeds' 900 shares of the second stage 3 are further off than three standard errors, as
    # is to be expected; one of them is seed 0's.
    recipe = dataclasses.replace(recipe, batches_per_step=RANKS, seed=1)
    found = []
    for rank in range(RANKS):
        source = CorpusInMemory([], variant.sample_rate)
        stream = Tasks(variant, recipe, source, None, None, rank=rank, world=RANKS)
        stream.first = first_step
        found.append(list(itertools.islice(stream, DRAWS // RANKS)))
    return found


@pytest.mark.parametrize(
    ("first_step", "shares"),
    [(0, GENERATION), (150_000 - DRAWS // RANKS, GENERATION), (150_000, GENERATION | EDITING)],
)
def test_tasks_are_as_frequent_as_the_table_says(first_step, shares):
    by_rank = drawn(first_step)
    places = [(step, number) for rows in by_rank for step, number, _ in rows]
    assert len(set(places)) == DRAWS  # no batch is made twice
    counts = Counter(task for rows in by_rank for _, _, task in rows)
    assert set(counts) == set(shares)
    total = sum(shares.values())
    for task, share in shares.items():
        expected = share / total
        error = (expected * (1 - expected) / DRAWS) ** 0.5
        assert abs(counts[task] / DRAWS - expected) < 3 * error, task

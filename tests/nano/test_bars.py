import dataclasses
import math

import pytest

from unison_audio.evaluation.metrics.measure import Score
from unison_audio.evaluation.report.render import plain_html, plain_markdown
from unison_audio.nano import bars
from unison_audio.nano.bars import (
    EVERY_TASK,
    THRESHOLDS,
    BarRow,
    Threshold,
    bars_table,
    verdict,
    with_thresholds,
)
from unison_audio.nano.metrics import NANO_METRICS
from unison_audio.nano.results import (
    FIGURES,
    MODEL,
    SOURCE,
    SOURCE_CODEC,
    TRUTH,
    SetScores,
    mean,
    rows_of,
)
from unison_audio.tasks.table import TASKS


def row(**about):
    return BarRow(**{"task": "tts", "measure": "words", "items": 4, "value": 0.5, **about})


@pytest.mark.parametrize(
    ("about", "threshold", "bar", "met"),
    [
        ({}, None, "", None),
        ({}, Threshold(at_least=0.5), "at least 50.0 %", True),
        ({}, Threshold(at_least=0.51), "at least 51.0 %", False),
        ({"truth": 0.25}, Threshold(above_truth=0.25), "at most 50.0 %", True),
        ({"truth": 0.2}, Threshold(above_truth=0.25), "at most 45.0 %", False),
        ({}, Threshold(above_truth=0.25), "", None),
        ({"truth": 0.6}, Threshold(below_truth=0.1), "at least 50.0 %", True),
        ({"truth": 0.62}, Threshold(below_truth=0.1), "at least 52.0 %", False),
        ({}, Threshold(below_truth=0.1), "", None),
        ({}, Threshold(at_most=0.5), "at most 50.0 %", True),
        ({}, Threshold(at_most=0.4), "at most 40.0 %", False),
        ({"value": math.nan}, Threshold(at_least=0.1), "at least 10.0 %", False),
    ],
)
def test_thresholds(about, threshold, bar, met):
    found = row(threshold=threshold, **about)
    assert (found.bar, found.met) == (bar, met)


def test_the_table_shows_every_figure():
    rows = [
        row(truth=0.25, codec=0.3, source=1.0, model="asr", threshold=Threshold(at_least=0.6)),
        row(value=1.2345, percent=False),
    ]
    lines = plain_markdown(bars_table(rows, ["A note."])).splitlines()
    assert lines[:3] == ["### Nano's bars", "", "A note."]
    assert lines[6] == (
        "| tts | words | asr | 4 | 50.0 % | 25.0 % | 30.0 % | 100.0 % | at least 60.0 % | no |"
    )
    assert lines[7] == "| tts | words |  | 4 | 1.234 |  |  |  |  |  |"
    page = plain_html(bars_table(rows, ["<A note>"]))
    assert "<td>at least 60.0 %</td><td>no</td>" in page
    assert "&lt;A note&gt;" in page


def test_mean_of_nothing_is_unknown():
    assert math.isnan(mean([]))
    assert mean([True, False]) == 0.5


def test_every_bar_is_one_threshold_over_a_figure():
    for threshold in THRESHOLDS.values():
        assert sum(limit is not None for limit in dataclasses.asdict(threshold).values()) == 1
    shown = {(task, spec.measure) for task, specs in FIGURES.items() for spec in specs}
    assert {key for key in THRESHOLDS if key[0] != EVERY_TASK} <= shown


def test_what_is_added_counts_only_if_the_rest_is_kept():
    """Of four items, one lacks the event and one is farther than the codec makes it."""

    def score(values):
        whole = {"value": 0.0, "low": 0.0, "high": 0.0, "count": len(values)}
        return Score(metric="", model="", failed=(), per_item=values, **whole)

    added = dict.fromkeys("abcd", 1.0)
    distances = {"edit_distance": score({})}
    scores = SetScores(
        scores={
            MODEL: distances
            | {
                "added_event_in_top": score(added | {"d": 0.0}),
                "unedited_distance": score({"a": 0.89, "b": 0.91, "c": 0.1, "d": 0.1}),
            },
            TRUTH: distances
            | {
                "added_event_in_top": score(added),
                "unedited_distance": score(dict.fromkeys("abcd", 0.0)),
            },
            SOURCE: distances
            | {
                "added_event_in_top": score(dict.fromkeys("abcd", 0.0)),
                "unedited_distance": score(dict.fromkeys("abcd", 0.0)),
            },
            SOURCE_CODEC: distances | {"unedited_distance": score(dict.fromkeys("abcd", 0.6))},
        },
        texts={},
    )
    (found,) = (row for row in rows_of("edit_add", scores) if row.measure == bars.ADDED_AND_KEPT)
    assert (found.value, found.truth, found.source, found.items) == (0.5, 1.0, 0.0, 4)


def test_every_task_has_figures_of_known_metrics():
    assert set(FIGURES) == {"codec", "sequences", *TASKS}
    used = {name for specs in FIGURES.values() for spec in specs for name in spec.metrics}
    assert used == set(NANO_METRICS)
    assert {task for task, _ in THRESHOLDS} == {*FIGURES, EVERY_TASK}


def test_thresholds_go_to_their_rows_alone():
    rows = [
        row(measure=measure, value=0.3, truth=0.1) for measure in ("word error rate", "another")
    ]
    limits = {("tts", "word error rate"): Threshold(above_truth=0.25)}
    barred, free = with_thresholds(rows, limits)
    assert (barred.bar, barred.met) == ("at most 35.0 %", True)
    assert (free.bar, free.met) == ("", None)


def test_the_verdict_names_what_is_missed():
    rows = with_thresholds(
        [
            row(measure="word error rate", value=0.3, truth=0.1),
            row(measure="gender", value=0.8),
            row(measure="another", value=0.0),
        ],
        {
            ("tts", "word error rate"): Threshold(above_truth=0.25),
            ("tts", "gender"): Threshold(at_least=0.9),
            ("t2a", "not measured"): Threshold(at_least=0.5),
        },
    )
    assert verdict(rows) == (
        "Of 2 bars measured, 1 are met; missed: tts, gender (80.0 %; at least 90.0 %)."
    )
    assert verdict(rows[:1]) == "Of 1 bars measured, 1 are met."

import pytest
import torch

from unison_audio.evaluation.bars import BARS, FINAL, FIRST, Bar, with_bars
from unison_audio.evaluation.report import Row
from unison_audio.evaluation.scores import SCORERS, window_contrasts
from unison_audio.tasks.table import TASKS

RATE = 1000


def test_windows_stand_above_what_is_outside():
    wave = torch.full((4 * RATE,), 0.01)
    wave[RATE : 2 * RATE] = 0.1
    wave[2 * RATE : 3 * RATE] = 0.01 * 10**0.25
    contrasts = window_contrasts(wave, [(1.0, 2.0), (2.0, 3.0)], RATE)
    assert contrasts == pytest.approx([20.0, 5.0], abs=1e-3)


def test_windows_over_everything_have_nothing_to_stand_above():
    assert window_contrasts(torch.ones(RATE), [(0.0, 0.95)], RATE) == []


def test_every_task_has_a_scorer_and_final_bars():
    assert set(SCORERS) == {"codec", *TASKS}
    assert {task for task, _ in FINAL} == set(SCORERS)
    assert set(BARS) == {"first", "final"}


def test_final_bars_are_never_below_the_first():
    for key in set(FIRST) & set(FINAL):
        first, final = FIRST[key], FINAL[key]
        if first.at_least is not None:
            assert final.at_least is not None
            assert final.at_least > first.at_least
        else:
            assert final.above_truth is not None
            assert final.above_truth < first.above_truth
    assert all((bar.at_least is None) != (bar.above_truth is None) for bar in FINAL.values())


def test_bars_are_put_to_their_rows_alone():
    rows = [
        Row(task="tts", measure=measure, items=1, value=0.3, truth=0.1, at_least=0.9)
        for measure in ("word error rate", "another")
    ]
    barred, free = with_bars(rows, {("tts", "word error rate"): Bar(above_truth=0.25)})
    assert (barred.bar, barred.met) == ("at most 35.0 %", True)
    assert (free.bar, free.met) == ("", None)

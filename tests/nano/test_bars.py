import json
import math

import pytest

from unison_audio.nano.bars import Row, markdown, mean, write_report


def row(**about):
    return Row(**{"task": "tts", "measure": "words", "items": 4, "value": 0.5, **about})


@pytest.mark.parametrize(
    ("about", "bar", "met"),
    [
        ({}, "", None),
        ({"at_least": 0.5}, "at least 50.0 %", True),
        ({"at_least": 0.51}, "at least 51.0 %", False),
        ({"truth": 0.25, "above_truth": 0.25}, "at most 50.0 %", True),
        ({"truth": 0.2, "above_truth": 0.25}, "at most 45.0 %", False),
        ({"above_truth": 0.25}, "", None),
        ({"at_most": 0.5}, "at most 50.0 %", True),
        ({"at_most": 0.4}, "at most 40.0 %", False),
        ({"value": math.nan, "at_least": 0.1}, "at least 10.0 %", False),
    ],
)
def test_bars(about, bar, met):
    assert (row(**about).bar, row(**about).met) == (bar, met)


def test_markdown_shows_every_figure():
    table = markdown(
        [
            row(truth=0.25, codec=0.3, source=1.0, judge="ear", at_least=0.6),
            row(value=1.2345, percent=False),
        ]
    )
    lines = table.splitlines()
    assert lines[2] == (
        "| tts | words | ear | 4 | 50.0 % | 25.0 % | 30.0 % | 100.0 % | at least 60.0 % | **no** |"
    )
    assert lines[3] == "| tts | words |  | 4 | 1.234 |  |  |  |  |  |"
    assert len({line.count("|") for line in lines}) == 1


def test_files_agree_with_the_result(tmp_path):
    rows = [row(at_least=0.4), row(value=math.nan)]
    result = write_report(tmp_path, "nano", "Title", ["A note."], rows, {"seed": 0})
    stored = json.loads((tmp_path / "nano.json").read_text())
    assert stored["rows"][0] == result["rows"][0]
    assert stored["rows"][0]["met"] is True
    assert stored["rows"][1]["value"] is None  # JSON has no NaN
    page = (tmp_path / "nano.md").read_text()
    assert page.startswith("# Title\n\nA note.\n")
    assert markdown(rows) in page
    assert not list(tmp_path.glob("*.partial"))


def test_mean_of_nothing_is_unknown():
    assert math.isnan(mean([]))
    assert mean([True, False]) == 0.5

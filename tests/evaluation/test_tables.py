"""The report: rows beside the paper's, best figures, notes, formats and escaping."""

import csv
import html.parser
import io
import json
import math

import pytest

from unison_audio.errors import InputError
from unison_audio.evaluation.report.figures import Drawn
from unison_audio.evaluation.report.layouts import FACTS, paper_results
from unison_audio.evaluation.report.render import (
    table_csv,
    table_html,
    table_markdown,
    write_report,
)
from unison_audio.evaluation.report.tables import fill_tables

NAMES = {
    "fad": "VGGish, AudioSet",
    "fd": "PANNs Cnn14 16k",
    "clap": "LAION-CLAP 630k-audioset",
    "wer": "Whisper large-v3",
    "cer": "Paraformer-zh",
    "lsd": "no model",
}


def score(metric, value, *, count=40, failed=(), model=None, spread=0.1, **more):
    return {
        "metric": metric,
        "value": value,
        "low": value * (1 - spread),
        "high": value * (1 + spread),
        "count": count,
        "failed": list(failed),
        "model": NAMES.get(metric, "a model") if model is None else model,
        "per_item": None,
        **more,
    }


def row(set_, task, *scores, system="nano", language="", **more):
    return {
        "system": system,
        "set": set_,
        "task": task,
        "language": language,
        "scores": {entry["metric"]: entry for entry in scores},
        **more,
    }


def table(tables, number):
    (found,) = [entry for entry in tables if entry.number == number]
    return found


def line(filled, system, block=""):
    (found,) = [entry for entry in filled.lines if (entry.system, entry.block) == (system, block)]
    return found


def figures(filled, system, block=""):
    """(metric, task, label) -> figure of a row."""
    cells = line(filled, system, block).cells
    return {(c.metric, c.task, c.label): cell.value for c, cell in cells.items()}


def best(filled, metric, block=""):
    return {
        entry.system
        for entry in filled.lines
        for column, cell in entry.cells.items()
        if entry.block == block and column.metric == metric and cell.best
    }


class Page(html.parser.HTMLParser):
    """What a page holds, and whether its tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.cells = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


def test_every_entry_of_the_paper_is_in_its_table():
    tables = fill_tables([])
    assert [entry.number for entry in tables] == list(range(1, 9))
    for filled in tables:
        theirs = [e.value for e in paper_results() if e.table == filled.number]
        shown = [cell.printed for entry in filled.lines for cell in entry.cells.values()]
        facts = [e.value for e in paper_results() if e.table == filled.number and e.metric in FACTS]
        assert sorted(shown + facts) == sorted(theirs)
        assert {text for entry in filled.lines for text in entry.facts.values()} == set(facts)


def test_best_is_among_the_papers_comparison():
    tables = fill_tables([])
    d24, d20 = "UNISON (D24, 16kHz)", "UNISON (D20, 44kHz)"
    assert best(table(tables, 1), "fad") == {d24}
    assert best(table(tables, 1), "fd") == {d20}
    assert best(table(tables, 1), "clap") == {d24}  # neither the ground truth nor GenAU-L
    assert best(table(tables, 3), "gender") == {d24, d20}
    assert best(table(tables, 5), "lsd", "Remove") == {"ZETA"}
    assert best(table(tables, 5), "fd", "Overall") == {d24}
    assert best(table(tables, 8), "wer") == {"D24-O"}


def test_measured_rows_stand_beside_the_papers():
    ours = [
        row(
            "audiocaps",
            "t2a",
            score("fad", 1.5, count=881),
            score("clap", 0.4),
            about={"parameters": "13.4M"},
        ),
        row("audiocaps", "t2a", score("fad", 0.1), system="through-codec"),
    ]
    filled = table(fill_tables(ours), 1)
    assert [entry.origin for entry in filled.lines] == ["paper"] * 11 + ["here"] * 2
    assert figures(filled, "nano")["fad", "t2a", ""] == 1.5
    assert line(filled, "nano").facts == {"parameters": "13.4M"}
    assert best(filled, "fad") == {"nano"}  # the codec alone is a yardstick
    assert best(filled, "clap") == {"UNISON (D24, 16kHz)"}


def test_shares_are_shown_in_percent_like_the_papers():
    ours = [
        row("seed-tts", "tts", score("wer", 0.0142), language="en"),
        row(
            "seed-tts",
            "zero_shot_tts",
            score("wer", 0.021),
            score("similarity", 0.8),
            language="en",
        ),
        row("seed-tts", "tts", score("cer", 0.0091), language="zh"),
    ]
    filled = table(fill_tables(ours), 2)
    assert figures(filled, "nano") == {
        ("wer", "tts", "pure, EN"): pytest.approx(1.42),
        ("wer", "zero_shot_tts", "zero-shot, EN"): pytest.approx(2.1),
        ("cer", "tts", "pure, ZH"): pytest.approx(0.91),
        ("similarity", "zero_shot_tts", "EN"): 0.8,
    }
    markdown = table_markdown(filled)
    assert (
        "| nano | here |  | 1.42 [1.28, 1.56] | 2.10 [1.89, 2.31] | **0.91** [0.82, 1.00] |"
        in markdown
    )
    assert "| MaskGCT | paper | 1.05B |  | 2.62 |  | 2.27 |  |  |  |" in markdown


def test_halves_and_whole_sets_find_their_columns():
    ours = [
        row("gender-tts", "tts", score("gender", 0.5), score("wer", 0.3), score("cer", 0.2)),
        row("gender-tts", "tts", score("wer", 0.4), language="en", part="male"),
        row("t2as", "", score("clap", 0.3), score("wer", 0.3), score("lsd", 2.0), language="en"),
        row("timed", "", score("segment_clap", 0.3)),
    ]
    tables = fill_tables(ours)
    assert figures(table(tables, 3), "nano") == {
        ("gender", "tts", ""): 50.0,
        ("wer", "tts", "EN"): pytest.approx(30.0),
        ("cer", "tts", "ZH"): pytest.approx(20.0),
        ("wer", "tts", "male"): pytest.approx(40.0),
    }
    assert figures(table(tables, 4), "nano")["clap", "t2as", ""] == 0.3
    assert figures(table(tables, 7), "nano") == {("segment_clap", "timed", ""): 0.3}
    assert tables[-1].number == 8  # nothing is left over


def test_sub_tasks_are_blocks():
    ours = [
        row("audio-editing", task, score("fd", value), score("clap", 0.9))
        for task, value in (("edit_add", 10.0), ("edit_remove", 90.0), ("", 30.0))
    ]
    filled = table(fill_tables(ours), 5)
    assert best(filled, "fd", "Add") == {"nano"}
    assert best(filled, "fd", "Remove") == {"UNISON (D24, 16kHz)"}
    assert figures(filled, "nano", "Overall")["fd", None, ""] == 30.0
    assert not [e for e in filled.lines if e.block == "Replace" and e.origin == "here"]


def test_ablations_are_the_rows_of_table_8():
    ablations = [
        row("audiocaps", "t2a", score("fd", 20.0), system="nano-l", about={"conditioning": "L"}),
        row("seed-tts", "tts", score("wer", 0.5), system="nano-l", language="en"),
    ]
    tables = fill_tables([], ablations=ablations)
    filled = table(tables, 8)
    assert figures(filled, "nano-l") == {("fd", "t2a", ""): 20.0, ("wer", "tts", "EN"): 50.0}
    assert line(filled, "nano-l").facts == {"conditioning": "L"}
    assert not [e for e in table(tables, 1).lines if e.origin == "here"]


def test_other_metric_models_are_named_and_not_ranked_against_the_papers():
    ours = [
        row(
            "seed-tts",
            "tts",
            score("wer", value, model="Whisper tiny.en"),
            language="en",
            system=name,
        )
        for name, value in (("nano", 0.2), ("other", 0.001))
    ]
    filled = table(fill_tables(ours), 2)
    assert best(filled, "wer") == {"UNISON (D24, 16kHz)", "other"}
    assert "Metric models here: WER: Whisper tiny.en." in filled.notes
    assert any("by Whisper tiny.en, in the paper by Whisper-large-v3" in n for n in filled.notes)
    same = table(fill_tables([row("seed-tts", "tts", score("wer", 0.2), language="en")]), 2)
    assert not any("not with the paper's" in note for note in same.notes)
    turbo = [
        row("seed-tts", "tts", score("wer", 0.2, model="whisper-large-v3-turbo"), language="en")
    ]
    assert any("not with the paper's" in note for note in table(fill_tables(turbo), 2).notes)


def test_lsd_is_not_set_against_a_formula_that_is_not_known():
    ours = [row("t2as", "t2as", score("lsd", 1.0, model="log-spectral distance"))]
    filled = table(fill_tables(ours), 4)
    assert best(filled, "lsd") == {"UNISON (D20, 44kHz)"}
    assert any(note.startswith("LSD here is by log-spectral distance") for note in filled.notes)


def test_failed_items_and_what_cannot_be_measured():
    failed = [f"item-{k:02d}" for k in range(12)]
    ours = [
        row(
            "audiocaps",
            "t2a",
            score("fad", math.nan, count=0, failed=failed),
            score("clap", 0.4, count=39, failed=failed[:1]),
        )
    ]
    filled = table(fill_tables(ours), 1)
    assert line(filled, "nano").failed == tuple(failed)
    assert any(
        "of nano: item-00," in note and "item-09 and 2 more" in note for note in filled.notes
    )
    (text,) = [entry for entry in table_markdown(filled).splitlines() if "| nano |" in entry]
    assert "| not measurable |" in text
    assert text.endswith("| 0 / 39 | 12 |")
    assert "nano" not in best(filled, "fad")


def test_figures_of_small_sets_get_a_remark():
    each = {"a": 0.1, "b": 0.3}
    few = [
        row(
            "audiocaps",
            "t2a",
            score("fad", 0.0, count=1),
            score("fad_inf", -4.2, count=3),
            score("clap", 0.2, count=2, per_item=each),
        ),
        row("audiocaps", "t2a", score("fad", 1.0, count=881), system="large"),
    ]
    (note,) = [n for n in table(fill_tables(few), 1).notes if n.startswith("Fewer than 50 items")]
    assert "FAD (1)" in note
    assert "CLAP" not in note
    many = [row("audiocaps", "t2a", score("fad", 1.0, count=881))]
    assert not any(note.startswith("Fewer") for note in table(fill_tables(many), 1).notes)


def test_without_the_paper_only_what_was_measured_remains():
    ours = [
        row("seed-tts", "tts", score("wer", 0.2), language="en"),
        row("seed-tts", "tts", score("wer", 0.1), language="en", system="ground-truth"),
        row("other", "denoise", score("lsd", 1.0)),
    ]
    speech, further = fill_tables(ours, paper=False)
    assert [(c.metric, c.label) for c in speech.columns] == [("wer", "pure, EN")]
    assert speech.facts == ()
    assert {entry.origin for entry in speech.lines} == {"here"}
    assert not best(speech, "wer")  # one system and a yardstick
    assert (further.number, further.lines[0].block) == (None, "other, denoise")


def test_rows_that_cannot_be_read():
    with pytest.raises(InputError, match="lacks the key 'scores'"):
        fill_tables([{"system": "nano", "set": "timed", "task": ""}])
    with pytest.raises(InputError, match="nano / timed"):
        fill_tables([row("timed", ""), row("timed", "")])


def test_formats_hold_the_same_table():
    ours = [row("speech-editing", "speech_insert", score("wer", 0.123456), score("clap", 0.4))]
    filled = table(fill_tables(ours), 6)
    rows = list(csv.reader(io.StringIO(table_csv(filled))))
    assert {len(entry) for entry in rows} == {3 + 5 * 5 + 1}
    mine = dict(zip(rows[0], next(entry for entry in rows if entry[1] == "nano"), strict=True))
    assert mine["sub-task"] == "Insert"
    assert mine["WER %, EN"] == "12.3456"
    assert mine["WER %, EN: low"] == "11.111"
    assert mine["CLAP: items"] == "40"
    assert mine["LSD"] == ""
    theirs = [entry for entry in rows if entry[2] == "paper"]
    assert theirs[2][3:] == [
        "0.429",
        *[""] * 4,
        "1.66",
        *[""] * 4,
        "1.70",
        *[""] * 4,
        "1.08",
        *[""] * 10,
    ]
    markdown = table_markdown(filled).splitlines()
    body = [entry for entry in markdown if entry.startswith("|")]
    assert len(body) == len(rows) + 1
    assert len({entry.count("|") for entry in body}) == 1
    page = Page(table_html(filled))
    assert page.open == []
    assert page.tags.count("tr") == len(rows)
    assert "12.35 [11.11, 13.58]" in page.cells


def test_names_are_escaped(tmp_path):
    name = '<script>alert(1)</script> a|b *c* [d](e) & "f"'
    ours = [
        row("audiocaps", "t2a", score("fad", 1.0, model=name, failed=[name]), system=name),
        row(name, name, score("lsd", 1.0), system=name),
    ]
    picture = tmp_path / "p.png"
    picture.write_bytes(b"\x89PNG")
    drawn = Drawn(path=picture, title=name, caption=f"{name}\n{name}")
    page = write_report(ours, tmp_path / "out", title=name, figures=[drawn]).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert Page(page).open == []
    markdown = (tmp_path / "out" / "tables.md").read_text()
    assert "<script" not in markdown
    body = [entry for entry in markdown.splitlines() if "a\\|b" in entry and entry[0] == "|"]
    assert {entry.replace("\\|", "").count("|") for entry in body} == {
        12,
        7,
    }  # eleven columns and six
    rows = list(csv.reader(io.StringIO((tmp_path / "out" / "table-1.csv").read_text())))
    assert (rows[-1][0], rows[-1][-1]) == (name, name)


def test_the_report_is_one_page_that_needs_nothing_else(tmp_path):
    picture = tmp_path / "p.png"
    picture.write_bytes(b"\x89PNG")
    ours = [row("audiocaps", "t2a", score("fad", math.nan), score("clap", 0.4))]
    page = write_report(
        ours,
        tmp_path / "out",
        title="Nano",
        figures=[Drawn(path=picture, title="A figure", caption="Its caption")],
    )
    found = Page(page.read_text())
    assert found.tags.count("table") == 8
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in found.links)
    assert "data:image/png;base64,iVBORw==" in found.links
    assert {p.name for p in page.parent.iterdir()} == {
        "report.html",
        "tables.md",
        *(f"table-{k}.{suffix}" for k in range(1, 9) for suffix in ("md", "csv", "html")),
    }
    stored = json.loads(json.dumps(ours).replace("NaN", "null"))  # results as JSON holds them
    again = write_report(stored, tmp_path / "again", title="Nano")
    assert "not measurable" in again.read_text()


def test_metrics_are_shown_in_their_own_direction():
    from unison_audio.evaluation.metrics import table as metric_table
    from unison_audio.evaluation.report.layouts import SHOWN

    assert set(metric_table.METRICS) <= set(SHOWN)
    for name, shown in SHOWN.items():
        assert metric_table.METRICS[name].better == shown.better

"""Figures of edits and timelines, drawn from tiny sets on disk."""

import pytest
import torch

from unison_audio import audio
from unison_audio.errors import InputError
from unison_audio.evaluation.report.figures import (
    draw_edits,
    draw_timelines,
    edit_items,
    timed_items,
    write_figures,
)
from unison_audio.evaluation.test_sets.manifest import (
    Event,
    RenderedItem,
    TestItem,
    TestSetAbout,
    write_test_set,
)
from unison_audio.spectrogram import FLOOR_DB, TOP_DB

RATE = 16_000


def sound(seconds=0.5, seed=0):
    noise = torch.randn(int(seconds * RATE), generator=torch.Generator().manual_seed(seed))
    return 0.1 * noise.clamp(-5, 5)


def event(caption, start, end):
    return Event(caption=caption, start=start, end=end)


@pytest.fixture(scope="module")
def edits(tmp_path_factory):
    """Two items a sub-task, the first Chinese; all but the removals have outputs."""
    folder = tmp_path_factory.mktemp("edits")
    pieces = [
        RenderedItem(
            item=TestItem(
                id=f"{task}-{k}",
                set="audio-editing",
                task=task,
                language=("zh", "en")[k],
                instruction=f"[Edit][Audio] Add a coin worth $5 & <b>$6</b>, {task}",
                seconds=0.5,
            ),
            sounds={"source": sound(0.5), "target": sound(0.8, 1)},
        )
        for task in ("edit_replace", "edit_remove", "edit_add")
        for k in (0, 1)
    ]
    test_set = write_test_set(
        folder / "set", TestSetAbout(name="audio-editing", sample_rate=RATE, seed=0), pieces
    )
    outputs = folder / "outputs"
    outputs.mkdir()
    for item in test_set.items:
        if item.task != "edit_remove":
            audio.save(outputs / f"{item.id}.flac", sound(0.6, 2), RATE)
    return test_set, outputs


@pytest.fixture(scope="module")
def timelines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("timed")
    apart = (event("a bell", 0.0, 0.4), event("rain " * 30, 0.4, 0.9))
    across = (event("wind", 0.5, 0.9), event("a bell", 0.1, 0.6))
    pieces = [
        RenderedItem(
            item=TestItem(
                id=f"timed-{k}",
                set="timed",
                task="timed",
                instruction="a bell, then rain",
                seconds=1.0,
                events=events,
            ),
            sounds={"target": sound(1.0, k)},
        )
        for k, events in enumerate((across, apart, apart, apart))
    ]
    test_set = write_test_set(
        folder / "set", TestSetAbout(name="timed", sample_rate=RATE, seed=0), pieces
    )
    outputs = folder / "outputs"
    outputs.mkdir()
    for item in test_set.items:
        audio.save(outputs / f"{item.id}.flac", sound(1.0, 9), RATE)
    return test_set, outputs


def panels(figure):
    """The axes that hold a spectrogram, by row."""
    return [[axes for axes in row.axes if axes.images] for row in figure.subfigs]


def texts(artist):
    return {text.get_text() for text in artist.findobj(lambda a: hasattr(a, "get_text"))}


def test_a_row_a_sub_task_in_the_papers_order(edits):
    test_set, outputs = edits
    assert [item.id for item in edit_items(test_set, outputs)] == ["edit_add-1", "edit_replace-1"]


def test_edits_have_one_scale(edits):
    test_set, outputs = edits
    items = edit_items(test_set, outputs)
    figure = draw_edits(test_set, outputs, items, system="nano")
    rows = panels(figure)
    assert [len(row) for row in rows] == [3, 3]
    for row, item in zip(rows, items, strict=True):
        assert {axes.images[0].get_clim() for axes in row} == {(FLOOR_DB, TOP_DB)}
        assert {axes.get_xlim() for axes in row} == {(0.0, 0.8)}  # of the longest of the three
        assert len({axes.get_ylim() for axes in row}) == 1
        ends = [axes.images[0].get_extent()[1] for axes in row]
        assert ends == pytest.approx([0.5, 0.6, 0.8])
        assert [axes.get_title() for axes in row] == ["source", "nano", "ground truth"]
        assert item.instruction in row[0].get_figure().get_supxlabel()
    assert {"Add", "Replace"} <= texts(figure)


def test_windows_stand_where_they_were_asked_for(timelines):
    test_set, outputs = timelines
    items = timed_items(test_set, outputs)
    assert [item.id for item in items] == ["timed-1", "timed-2", "timed-0"]  # the last overlaps
    figure = draw_timelines(test_set, outputs, items, system="nano")
    for row, item in zip(panels(figure), items, strict=True):
        assert len(row) == 2  # output and ground truth
        for axes in row:
            assert [line.get_xdata()[0] for line in axes.lines] == [
                edge for e in item.events for edge in (e.start, e.end)
            ]
            assert [edge for p in axes.patches for edge in (p.get_x(), p.get_width())] == (
                pytest.approx([edge for e in item.events for edge in (e.start, e.end - e.start)])
            )
    words = texts(figure)
    assert "a bell" in words
    assert any(word.startswith("rain rain") and word.endswith("…") for word in words)


def test_files_are_the_same_each_time(edits, tmp_path):
    test_set, outputs = edits
    system = "a/b c"
    drawn = [
        write_figures(test_set, outputs, tmp_path / name, system=system) for name in ("1", "2")
    ]
    first, second = (entry[0] for entry in drawn)
    assert first.path == tmp_path / "1" / "audio-editing-a-b-c.png"
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    lines = first.caption.splitlines()
    assert lines[0] == "Add edit_add-1: [Edit][Audio] Add a coin worth $5 & <b>$6</b>, edit_add"
    assert lines[-1] == "No output of: Remove."
    assert not list((tmp_path / "1").glob("*.partial"))


def test_sets_without_a_figure_or_outputs(edits, tmp_path):
    test_set, outputs = edits
    assert write_figures(test_set, tmp_path, tmp_path / "f", system="nano") == []
    with pytest.raises(InputError, match="no output of item edit_remove-0"):
        draw_edits(
            test_set, outputs, [i for i in test_set.items if i.id == "edit_remove-0"], system=""
        )


def test_drawing_leaves_no_global_state(edits):
    import matplotlib
    import matplotlib.pyplot as plt

    before, open_figures = dict(matplotlib.rcParams), plt.get_fignums()
    test_set, outputs = edits
    draw_edits(test_set, outputs, edit_items(test_set, outputs)[:1], system="nano")
    assert plt.get_fignums() == open_figures
    assert dict(matplotlib.rcParams) == before

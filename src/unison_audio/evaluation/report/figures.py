"""Figures like the paper's 3-8: mel spectrograms of edits, and of timelines with their windows."""

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unison_audio.audio import load
from unison_audio.errors import InputError
from unison_audio.evaluation.engine import output_path
from unison_audio.evaluation.report.layouts import LAYOUTS
from unison_audio.evaluation.test_sets.manifest import TestItem, TestSet
from unison_audio.spectrogram import draw_mel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

EDITS = {
    layout.sets[0]: {task: title for task, title in layout.blocks.items() if task}
    for layout in LAYOUTS
    if len(layout.blocks) > 1
}
"""Set -> its sub-tasks (paper, Figures 3-6)."""

TIMED = "timed"
"""The set of timelines (paper, Figures 7 and 8)."""

PANELS_OF_A_KIND = 2
"""So many timelines without and with overlap are drawn."""

INK, DOTS_PER_INCH = "black", 130

LINE_LETTERS = 130
"""Of an instruction's line, about the width of a figure."""

LANE_LETTERS = 84
"""Of a caption as long as a panel."""

WINDOW_COLORS = ("#4cc9f0", "#9ef01a", "#ffca3a", "#ff70a6", "#c8b6ff")

CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Microsoft YaHei",
)
"""Where one of them is installed, Chinese instructions are drawn with it."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure on disk, a PNG file."""

    path: Path
    title: str
    caption: str
    """The items and their whole instructions, one paragraph for each line."""


def write_figures(test_set: TestSet, outputs: Path, out: Path, *, system: str) -> list[Drawn]:
    """Draw the figure of a test set that has one: both kinds of edits, and timelines.

    The first item of each sub-task that has an output is shown, an English one if there is one. The
    choice is not by hand.

    Args:
        test_set: The set.
        outputs: Folder with ``<id>.flac`` of each output.
        out: Folder for the PNG file; made if missing.
        system: Name of the system.

    Returns:
        The figure; none if the set has none, or if it has no outputs at all.

    Raises:
        InputError: A sound cannot be read.
    """
    if test_set.name in EDITS:
        rows = edit_items(test_set, outputs)
        missing = [
            title
            for task, title in EDITS[test_set.name].items()
            if task not in {item.task for item in rows}
        ]
        draw, title = draw_edits, f"{test_set.name}: {system}"
        letters = [EDITS[test_set.name][item.task] for item in rows]
        remark = f"No output of: {', '.join(missing)}." if missing else ""
    elif test_set.name == TIMED:
        rows, draw, title = timed_items(test_set, outputs), draw_timelines, f"timed: {system}"
        letters, remark = [f"({chr(97 + k)})" for k in range(len(rows))], ""
    else:
        return []
    if not rows:
        return []
    figure = draw(test_set, outputs, rows, system=system)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{test_set.name}-{_file_name(system)}.png"
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    partial.replace(path)
    lines = [
        f"{letter} {item.id}: {item.instruction}"
        for letter, item in zip(letters, rows, strict=True)
    ]
    return [Drawn(path=path, title=title, caption="\n".join(filter(None, [*lines, remark])))]


def edit_items(test_set: TestSet, outputs: Path) -> list[TestItem]:
    """The items shown of a set of edits: at most one a sub-task, in the paper's order."""
    there = [item for item in test_set.items if output_path(outputs, item).is_file()]
    picked = []
    for task in EDITS[test_set.name]:
        of_task = sorted((i for i in there if i.task == task), key=lambda i: i.language != "en")
        picked += of_task[:1]
    return picked


def timed_items(test_set: TestSet, outputs: Path) -> list[TestItem]:
    """The timelines shown: those whose events follow one another, then overlapping ones."""
    there = [i for i in test_set.items if i.events and output_path(outputs, i).is_file()]
    apart = [item for item in there if not _overlap(item)]
    across = [item for item in there if _overlap(item)]
    return apart[:PANELS_OF_A_KIND] + across[:PANELS_OF_A_KIND]


def draw_edits(
    test_set: TestSet, outputs: Path, items: Sequence[TestItem], *, system: str
) -> "Figure":
    """Draw a row for each item: source, output and ground truth, the instruction beneath.

    Args:
        test_set: The set.
        outputs: Folder with ``<id>.flac`` of each output.
        items: Those to draw, one at least.
        system: Who made the outputs: heading of the middle column.

    Returns:
        The figure; all panels have the same colors and frequencies, those of a row the same time.

    Raises:
        InputError: A sound is missing or cannot be read.
    """
    figure, rows = _figure(len(items), width=11.0, height=2.75)
    for row, item in zip(rows, items, strict=True):
        files = (
            test_set.path(item, "source"),
            _required_output(outputs, item),
            test_set.path(item, "target"),
        )
        sounds = [load(file, sample_rate=test_set.sample_rate) if file else None for file in files]
        panels = row.subplots(1, 3, sharex=True, sharey=True)
        _draw_sounds(row, panels, sounds, test_set.sample_rate)
        for panel, heading in zip(panels, ("source", system, "ground truth"), strict=True):
            _write(panel.set_title, heading, fontsize=9)
            panel.set_facecolor("white")
        _head(row, EDITS[test_set.name].get(item.task, item.task), item)
    return figure


def draw_timelines(
    test_set: TestSet, outputs: Path, items: Sequence[TestItem], *, system: str
) -> "Figure":
    """Draw a row for each item: output and ground truth, with the requested windows over them.

    Args:
        test_set: The set.
        outputs: Folder with ``<id>.flac`` of each output.
        items: Those to draw, one at least; they have events.
        system: Who made the outputs: heading of the left column.

    Returns:
        The figure. Above each spectrogram the events stand on lanes of their own.

    Raises:
        InputError: A sound is missing or cannot be read.
    """
    figure, rows = _figure(len(items), width=11.0, height=3.3)
    for k, (row, item) in enumerate(zip(rows, items, strict=True)):
        files = {system: _required_output(outputs, item)}
        target = test_set.path(item, "target")
        if target is not None:
            files["ground truth"] = target
        sounds = [load(file, sample_rate=test_set.sample_rate) for file in files.values()]
        latest = max(event.end for event in item.events)
        panels = row.subplots(
            2,
            len(sounds),
            squeeze=False,
            sharex=True,
            height_ratios=(0.16 * len(item.events), 1.0),
        )
        seconds = _draw_sounds(row, panels[1], sounds, test_set.sample_rate, latest)
        for heading, lanes, panel in zip(files, *panels, strict=True):
            _write(lanes.set_title, heading, fontsize=9)
            _draw_windows(lanes, panel, item, seconds)
        _head(row, f"({chr(97 + k)})", item)
    return figure


def _draw_sounds(
    row: "SubFigure",
    panels: Sequence["Axes"],
    sounds: Sequence[Tensor | None],
    sample_rate: int,
    seconds: float = 0.0,
) -> float:
    """Draws sounds side by side over one span of time of at least so many seconds; returns it."""
    lengths = (len(sound) / sample_rate for sound in sounds if sound is not None)
    seconds = max(seconds, *lengths)
    image: Any = None
    for panel, sound in zip(panels, sounds, strict=True):
        if sound is None:
            panel.text(0.5, 0.5, "none", transform=panel.transAxes, ha="center")
            continue
        image = draw_mel(panel, sound, sample_rate, label_color=INK, seconds=seconds)
    for panel in panels[1:]:
        panel.set_ylabel("")
    row.colorbar(image, ax=list(panels), label="dB", pad=0.01)
    return seconds


def _draw_windows(lanes: "Axes", panel: "Axes", item: TestItem, seconds: float) -> None:
    """Draws each event as a bar on a lane with its caption, and as a window over the mel."""
    lanes.set_ylim(len(item.events) - 0.5, -0.5)
    lanes.set_axis_off()
    for lane, event in enumerate(item.events):
        color = WINDOW_COLORS[lane % len(WINDOW_COLORS)]
        lanes.barh(lane, event.end - event.start, left=event.start, height=0.9, color=color)
        # The caption may be longer than its bar: it then extends to the side that has more room.
        rightwards = event.start <= seconds - event.end
        room = (seconds - event.start if rightwards else event.end) / seconds
        text = textwrap.shorten(event.caption, max(int(room * LANE_LETTERS), 8), placeholder="…")
        edge = event.start if rightwards else event.end
        shift = 0.005 * seconds * (1 if rightwards else -1)
        lanes.text(
            edge + shift,
            lane,
            text,
            ha="left" if rightwards else "right",
            va="center",
            fontsize=7,
            family=_fonts(),
            parse_math=False,
        )
        panel.axvspan(event.start, event.end, color=color, alpha=0.1, linewidth=0)
        for edge in (event.start, event.end):
            panel.axvline(edge, color=color, linestyle="--", linewidth=1.2)


def _figure(rows: int, *, width: float, height: float) -> tuple["Figure", list["SubFigure"]]:
    """A white figure without global state, and its rows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height * rows), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subfigures(rows, 1, squeeze=False)[:, 0])


def _head(row: "SubFigure", label: str, item: TestItem) -> None:
    """Writes a row's label above it and the instruction beneath it."""
    _write(row.suptitle, label, x=0.005, ha="left", fontsize=11, fontweight="bold")
    wrapped = "\n".join(textwrap.wrap(item.instruction, LINE_LETTERS))
    _write(row.supxlabel, wrapped, fontsize=9)


def _write(place: Callable[..., Any], text: str, **style: Any) -> None:
    """Writes a text as it is: dollar signs are no formulas."""
    place(text, family=_fonts(), parse_math=False, **style)


def _fonts() -> list[str]:
    """The fonts to look for letters in, one after another."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in CJK_FONTS if name in installed)]


def _overlap(item: TestItem) -> bool:
    """Whether two of an item's events sound at once."""
    events = sorted(item.events, key=lambda event: event.start)
    return any(later.start < earlier.end for earlier, later in pairwise(events))


def _required_output(outputs: Path, item: TestItem) -> Path:
    file = output_path(outputs, item)
    if not file.is_file():
        raise InputError(f"{outputs} holds no output of item {item.id}; generate it first.")
    return file


def _file_name(system: str) -> str:
    """A system's name, fit for a file."""
    return re.sub(r"[^\w.-]+", "-", system).strip("-.") or "system"

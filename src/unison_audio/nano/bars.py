"""The bars that nano is measured against: which figure must reach, or may exceed, how much."""

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLUMNS = ("value", "truth", "codec", "source")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured quantity."""

    task: str
    """The task, or ``codec``."""
    measure: str
    """What is measured."""
    judge: str = ""
    """Who judges."""
    items: int
    """How many items."""
    value: float
    """Of the model's outputs."""
    truth: float | None = None
    """Of the ground truth."""
    codec: float | None = None
    """Of the ground truth through the codec."""
    source: float | None = None
    """Of the source as it is, in edits."""
    percent: bool = True
    """Whether the figures are shares, shown in percent."""
    at_least: float | None = None
    """The bar, if the value must reach it."""
    above_truth: float | None = None
    """The bar, if the value may exceed the ground truth's by so much."""
    at_most: float | None = None
    """The bar, if the value may not exceed it."""

    @property
    def bar(self) -> str:
        """The bar in words; empty where there is none."""
        if self.at_least is not None:
            return f"at least {self.show(self.at_least)}"
        if self.at_most is not None:
            return f"at most {self.show(self.at_most)}"
        if self.above_truth is not None and self.truth is not None:
            return f"at most {self.show(self.truth + self.above_truth)}"
        return ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is none."""
        if self.at_least is not None:
            return self.value >= self.at_least
        if self.at_most is not None:
            return self.value <= self.at_most
        if self.above_truth is not None and self.truth is not None:
            return self.value <= self.truth + self.above_truth + 1e-12
        return None

    def show(self, figure: float | None) -> str:
        """Writes one of the row's figures."""
        if figure is None or math.isnan(figure):
            return ""
        return f"{100 * figure:.1f} %" if self.percent else f"{figure:.3f}"


def mean(values: Iterable[float]) -> float:
    """Averages; NaN of nothing."""
    listed = list(values)
    return statistics.fmean(listed) if listed else math.nan


def markdown(rows: Sequence[Row]) -> str:
    """Writes rows as a Markdown table."""
    head = (
        "task",
        "measure",
        "judge",
        "items",
        "model",
        "ground truth",
        "through the codec",
        "source",
        "bar",
        "met",
    )
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        figures = [row.show(getattr(row, column)) for column in COLUMNS]
        met = {True: "yes", False: "**no**", None: ""}[row.met]
        cells = (row.task, row.measure, row.judge, str(row.items), *figures, row.bar, met)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_report(
    folder: Path, name: str, title: str, notes: Sequence[str], rows: Sequence[Row], about: Any
) -> dict[str, Any]:
    """Writes ``name.md`` and ``name.json``.

    Args:
        folder: Where.
        name: Of both files.
        title: The Markdown page's.
        notes: Its paragraphs above the table.
        rows: The table.
        about: What was measured: settings and the like, for the JSON.

    Returns:
        What the JSON holds.
    """
    result = {
        "about": about,
        "notes": list(notes),
        "rows": [{**dataclasses.asdict(row), "bar": row.bar, "met": row.met} for row in rows],
    }
    page = "\n".join([f"# {title}", "", *(f"{note}\n" for note in notes), markdown(rows)])
    for suffix, text in ((".md", page), (".json", json.dumps(_finite(result), indent=1) + "\n")):
        partial = folder / f"{name}{suffix}.partial"
        partial.write_text(text)
        partial.replace(folder / f"{name}{suffix}")
    return result


def print_rows(rows: Sequence[Row]) -> None:
    """Prints rows as a table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in ("task", "measure", "model", "truth", "codec", "source", "bar", "met"):
        table.add_column(name)
    for row in rows:
        met = {True: "yes", False: "NO", None: ""}[row.met]
        figures = [row.show(getattr(row, column)) for column in COLUMNS]
        table.add_row(row.task, row.measure, *figures, row.bar, met)
    Console(width=130).print(table)


def _finite(value: Any) -> Any:
    """Replaces NaN, which JSON lacks, by None."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar; exactly one of the three is set."""

    at_least: float | None = None
    """What the value must reach."""
    above_truth: float | None = None
    """By how much the value may exceed the ground truth's."""
    at_most: float | None = None
    """What the value may not exceed."""


WORDS = "word error rate"

NEARER = "nearer to the target than the source"

NEARER_THROUGH_CODEC = "nearer to the target than the source through the codec"

GENDER = "gender"

CLASS = "asked class in the top 3"

ALL_CLASSES = "every asked class in the top 3"

ADDED = "added class in the top 3 of what is new"

HALF = "at least half of the words"

QUALITY_LOST = "DNSMOS lost"

OWN_VOICE = "voice nearest to its own reference"

CONTRAST = "dB of windows above pauses"

IN_WINDOW = "class in the top 3 in its window"

REMOVED = "removed speech"

SDR_GAIN = "dB of SI-SDR gained"

BOTH = "both halves"

REST = "distance where nothing is to change"

LEAK = "words of the reference that were not asked for"

SLOWEST = "computing per second of sound, the slowest task"

SIZE = "megabytes of weights in float16"

SEQUENCES = "sequences"
"""Stands for a task: `tts` of random sequences of words alone."""

EVERY_TASK = "every task"
"""Stands for a task in rows that are about all of them."""

FINAL: dict[tuple[str, str], Bar] = {
    ("codec", WORDS): Bar(above_truth=0.015),
    ("codec", QUALITY_LOST): Bar(above_truth=0.3),
    ("tts", WORDS): Bar(above_truth=0.05),
    (SEQUENCES, WORDS): Bar(above_truth=0.05),
    (SEQUENCES, GENDER): Bar(at_least=0.99),
    ("zero_shot_tts", WORDS): Bar(above_truth=0.08),
    ("zero_shot_tts", LEAK): Bar(above_truth=0.0),
    ("zero_shot_tts", OWN_VOICE): Bar(at_least=0.85),
    ("t2as", WORDS): Bar(above_truth=0.12),
    ("t2as", CLASS): Bar(at_least=0.8),
    ("t2a", CLASS): Bar(at_least=0.9),
    ("t2a_mix", ALL_CLASSES): Bar(at_least=0.7),
    ("timed", CONTRAST): Bar(at_least=10.0),
    ("timed", IN_WINDOW): Bar(at_least=0.75),
    ("edit_add", ADDED): Bar(at_least=0.85),
    ("edit_add", NEARER): Bar(at_least=0.95),
    ("edit_replace", ADDED): Bar(at_least=0.85),
    ("edit_replace", NEARER): Bar(at_least=0.95),
    ("edit_remove", NEARER): Bar(at_least=0.97),
    ("speech_delete", NEARER): Bar(at_least=0.97),
    ("speech_delete", REMOVED): Bar(at_least=0.95),
    ("denoise", NEARER): Bar(at_least=0.97),
    ("denoise", SDR_GAIN): Bar(at_least=6.0),
    ("speech_insert", WORDS): Bar(above_truth=0.1),
    ("speech_insert", NEARER): Bar(at_least=0.95),
    ("speech_rewrite", WORDS): Bar(above_truth=0.1),
    ("speech_rewrite", NEARER): Bar(at_least=0.95),
    ("audio_to_speech", BOTH): Bar(at_least=0.75),
    ("speech_to_audio", BOTH): Bar(at_least=0.75),
    (EVERY_TASK, SLOWEST): Bar(at_most=1.0),
    (EVERY_TASK, SIZE): Bar(at_most=40.0),
}
"""What nano is meant to reach."""


def with_bars(rows: Iterable[Row], bars: dict[tuple[str, str], Bar]) -> list[Row]:
    """Puts bars to the rows that have one, by task and measure."""
    return [
        dataclasses.replace(row, **dataclasses.asdict(bars.get((row.task, row.measure), Bar())))
        for row in rows
    ]


def verdict(rows: Iterable[Row], bars: dict[tuple[str, str], Bar]) -> str:
    """Says in a sentence which bars are met, and which are missed by which figures.

    Args:
        rows: What was measured, whatever bars it has.
        bars: The bars.
    """
    judged = [row for row in with_bars(rows, bars) if row.met is not None]
    missed = [
        f"{row.task}, {row.measure} ({row.show(row.value)}; {row.bar})"
        for row in judged
        if not row.met
    ]
    sentence = f"Of {len(judged)} bars measured, {len(judged) - len(missed)} are met"
    return f"{sentence}; missed: {'; '.join(missed)}." if missed else f"{sentence}."

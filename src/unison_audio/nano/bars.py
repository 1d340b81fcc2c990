"""Nano's bars: thresholds over the evaluation's results, and the table that shows them."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unison_audio.evaluation.report.render import PlainTable
from unison_audio.nano.items import SEQUENCES

COLUMNS = ("value", "truth", "codec", "source")


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """One bar; exactly one of the four is set."""

    at_least: float | None = None
    """Minimum value."""
    below_truth: float | None = None
    """Maximum shortfall from the ground truth's value, where recordings themselves miss any fixed
    minimum worth asking for."""
    above_truth: float | None = None
    """Maximum excess over the ground truth's value."""
    at_most: float | None = None
    """Maximum value."""

    @property
    def is_minimum(self) -> bool:
        """Whether more is better."""
        return self.at_least is not None or self.below_truth is not None

    @property
    def is_fixed(self) -> bool:
        """Whether it does not depend on the ground truth's figure."""
        return self.above_truth is None and self.below_truth is None


@dataclass(frozen=True, kw_only=True)
class BarRow:
    """One measured quantity."""

    task: str
    """The task, or ``codec``."""
    measure: str
    """What is measured."""
    model: str = ""
    """The metric model."""
    items: int
    """Number of items in the figures."""
    value: float
    """Figure of the model's outputs."""
    truth: float | None = None
    """Figure of the ground truth."""
    codec: float | None = None
    """Figure of the ground truth through the codec."""
    source: float | None = None
    """Figure of the unedited source, in edits."""
    percent: bool = True
    """Whether the figures are shares, shown in percent."""
    threshold: "Threshold | None" = None
    """Threshold of the model's figure."""

    @property
    def bar(self) -> str:
        """The threshold in words; empty where there is none."""
        limit = self._limit
        if self.threshold is None or limit is None:
            return ""
        return f"at {'least' if self.threshold.is_minimum else 'most'} {self.show(limit)}"

    @property
    def met(self) -> bool | None:
        """Whether the threshold is met; None where there is none."""
        limit = self._limit
        if self.threshold is None or limit is None:
            return None
        slack = 0.0 if self.threshold.is_fixed else 1e-12  # sums of floats
        if self.threshold.is_minimum:
            return self.value >= limit - slack
        return self.value <= limit + slack

    @property
    def _limit(self) -> float | None:
        threshold = self.threshold
        if threshold is None:
            return None
        if threshold.is_fixed:
            return threshold.at_most if threshold.at_least is None else threshold.at_least
        if self.truth is None:
            return None
        return self.truth + (threshold.above_truth or 0.0) - (threshold.below_truth or 0.0)

    def show(self, figure: float | None) -> str:
        """One of the row's figures as text."""
        if figure is None or math.isnan(figure):
            return ""
        return f"{100 * figure:.1f} %" if self.percent else f"{figure:.3f}"


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

ADDED_AND_KEPT = "added, and the rest kept"

KEPT = 1.5
"""The rest counts as kept where an output is farther from the source there by at most this factor
than the source through the codec is."""

REST = "distance where nothing is to change"

LEAK = "words of the reference that were not asked for"

SLOWEST = "computing per second of sound, the slowest task"

SIZE = "megabytes of weights in float16"

EVERY_TASK = "every task"
"""Task name in rows about all tasks."""

THRESHOLDS: dict[tuple[str, str], Threshold] = {
    ("codec", WORDS): Threshold(above_truth=0.015),
    ("codec", QUALITY_LOST): Threshold(above_truth=0.3),
    ("tts", WORDS): Threshold(above_truth=0.05),
    (SEQUENCES, WORDS): Threshold(above_truth=0.05),
    (SEQUENCES, GENDER): Threshold(at_least=0.99),
    ("zero_shot_tts", WORDS): Threshold(above_truth=0.15),
    ("zero_shot_tts", LEAK): Threshold(above_truth=0.0),
    ("zero_shot_tts", OWN_VOICE): Threshold(at_least=0.85),
    ("t2as", WORDS): Threshold(above_truth=0.12),
    ("t2as", CLASS): Threshold(at_least=0.8),
    ("t2a", CLASS): Threshold(at_least=0.9),
    ("t2a_mix", ALL_CLASSES): Threshold(at_least=0.7),
    ("timed", CONTRAST): Threshold(at_least=10.0),
    ("timed", IN_WINDOW): Threshold(below_truth=0.05),
    ("edit_add", ADDED): Threshold(at_least=0.85),
    ("edit_add", ADDED_AND_KEPT): Threshold(below_truth=0.05),
    ("edit_replace", ADDED): Threshold(at_least=0.85),
    ("edit_replace", ADDED_AND_KEPT): Threshold(below_truth=0.05),
    ("edit_remove", NEARER): Threshold(at_least=0.95),
    ("speech_delete", NEARER): Threshold(at_least=0.97),
    ("speech_delete", REMOVED): Threshold(at_least=0.95),
    ("denoise", NEARER): Threshold(at_least=0.97),
    ("denoise", SDR_GAIN): Threshold(at_least=6.0),
    ("speech_insert", WORDS): Threshold(above_truth=0.1),
    ("speech_insert", ADDED_AND_KEPT): Threshold(below_truth=0.05),
    ("speech_rewrite", WORDS): Threshold(above_truth=0.1),
    ("speech_rewrite", ADDED_AND_KEPT): Threshold(below_truth=0.05),
    ("audio_to_speech", BOTH): Threshold(at_least=0.6),
    ("speech_to_audio", BOTH): Threshold(below_truth=0.05),
    (EVERY_TASK, SLOWEST): Threshold(at_most=1.0),
    (EVERY_TASK, SIZE): Threshold(at_most=80.0),
}
"""(Task, measure) -> threshold for nano."""


def with_thresholds(
    rows: Iterable[BarRow], thresholds: Mapping[tuple[str, str], Threshold]
) -> list[BarRow]:
    """Adds the thresholds to the rows, by task and measure."""
    return [
        dataclasses.replace(row, threshold=thresholds.get((row.task, row.measure))) for row in rows
    ]


def verdict(rows: Sequence[BarRow]) -> str:
    """One sentence with the bars that are met, and those that are missed with their figures."""
    barred = [row for row in rows if row.met is not None]
    missed = [
        f"{row.task}, {row.measure} ({row.show(row.value)}; {row.bar})"
        for row in barred
        if not row.met
    ]
    sentence = f"Of {len(barred)} bars measured, {len(barred) - len(missed)} are met"
    return f"{sentence}; missed: {'; '.join(missed)}." if missed else f"{sentence}."


def bars_table(rows: Sequence[BarRow], notes: Sequence[str]) -> PlainTable:
    """The rows as a table of the report."""
    return PlainTable(
        name="bars",
        heading="Nano's bars",
        columns=(
            *("task", "measure", "metric model", "items", "model", "ground truth"),
            *("through the codec", "source", "bar", "met"),
        ),
        rows=tuple(
            (
                *(row.task, row.measure, row.model, str(row.items)),
                *(row.show(figure) for figure in (row.value, row.truth, row.codec, row.source)),
                row.bar,
                {True: "yes", False: "no", None: ""}[row.met],
            )
            for row in rows
        ),
        notes=tuple(notes),
    )


def stored(row: BarRow) -> dict[str, Any]:
    """A row as ``results.json`` holds it."""
    return {**dataclasses.asdict(row), "bar": row.bar, "met": row.met}


def print_rows(rows: Sequence[BarRow]) -> None:
    """Prints rows as a table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in ("task", "measure", "model", *COLUMNS[1:], "bar", "met"):
        table.add_column(name)
    for row in rows:
        met = {True: "yes", False: "NO", None: ""}[row.met]
        figures = [row.show(figure) for figure in (row.value, row.truth, row.codec, row.source)]
        table.add_row(row.task, row.measure, *figures, row.bar, met)
    Console(width=130).print(table)

"""Tables of measured results: rows with their bars, as Markdown, JSON and on the terminal."""

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

"""A filled table: its cells and rows, and the sentences below it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from unison_audio.evaluation.report.layouts import Column, as_in_paper, shown

PAPER, HERE = "paper", "here"
"""Origin of a row."""

NAMED_FAILURES = 10
"""Maximum number of failed items that are listed below a table; the CSV file lists all."""

FEW_ITEMS = 50
"""Items below which a figure of a whole set, such as FAD, gets a remark. Of a few files FAD can be
0, and its extrapolation below 0."""


@dataclass(kw_only=True)
class Cell:
    """A figure of a table; a share is in percent."""

    value: float
    """The figure; NaN if nothing could be measured."""
    printed: str = ""
    """The figure as the paper prints it; "" for measured figures."""
    low: float = math.nan
    """Lower end of the 95 % interval; NaN if there is none, and so `high`."""
    high: float = math.nan
    count: int | None = None
    """Number of items behind it; None in the paper's rows."""
    failed: tuple[str, ...] = ()
    """Items that could not be measured."""
    model: str = ""
    """Metric model; "" in the paper's rows."""
    of_set: bool = False
    """Whether it is a figure of the whole set, which no item has by itself."""
    best: bool = False
    """Whether it is the best among comparable figures."""


@dataclass(kw_only=True)
class Line:
    """A row of a table."""

    system: str
    origin: str
    """`PAPER` or `HERE`."""
    block: str = ""
    """Title of its sub-task."""
    facts: dict[str, str] = field(default_factory=dict)
    cells: dict[Column, Cell] = field(default_factory=dict)
    """Figures by column; a column without a figure is missing."""
    ranked: bool = True
    """Whether it takes part in the ranking."""

    @property
    def failed(self) -> tuple[str, ...]:
        """Items of which any figure could not be measured."""
        return tuple(sorted({name for cell in self.cells.values() for name in cell.failed}))


@dataclass(kw_only=True)
class Table:
    """A filled table."""

    number: int | None
    """Table number in the paper; None for a table that the paper lacks."""
    title: str
    facts: tuple[str, ...]
    """Columns about the systems."""
    columns: tuple[Column, ...]
    lines: list[Line]
    """Rows, those of a sub-task together."""
    remarks: tuple[str, ...] = ()
    """Sentences below it, after those on metric models and failed items."""

    @property
    def name(self) -> str:
        """Name of its files."""
        return "further-results" if self.number is None else f"table-{self.number}"

    @property
    def heading(self) -> str:
        """Number and title."""
        return self.title if self.number is None else f"Table {self.number}. {self.title}"

    @property
    def blocks(self) -> bool:
        """Whether its rows belong to sub-tasks."""
        return any(line.block for line in self.lines)

    @property
    def notes(self) -> list[str]:
        """The sentences below it."""
        return [*_notes(self), *self.remarks]


def _notes(table: Table) -> list[str]:
    """The sentences on a table's metric models and failed items."""
    notes = []
    models: dict[str, dict[str, None]] = {}
    for line in table.lines:
        for column, cell in line.cells.items():
            if line.origin == HERE and cell.model:
                models.setdefault(column.metric, {}).setdefault(cell.model)
    if models:
        named = _by_model((metric, " and ".join(who)) for metric, who in models.items())
        notes.append(f"Metric models here: {named}.")
    if any(line.origin == PAPER for line in table.lines):
        metrics = dict.fromkeys(column.metric for column in table.columns)
        named = _by_model((name, shown(name).paper) for name in metrics if shown(name).paper)
        if named:
            notes.append(f"Metric models in the paper: {named}.")
    for metric, names in models.items():
        other = [model for model in names if not as_in_paper(metric, model)]
        if other and shown(metric).paper:
            notes.append(
                f"{shown(metric).name} here is by {' and '.join(other)}, in the paper by "
                f"{shown(metric).paper}: compare such figures with each other, not with the "
                "paper's."
            )
    notes += _few_items(table)
    for line in table.lines:
        if line.failed:
            rest = len(line.failed) - NAMED_FAILURES
            more = f" and {rest} more, named in {table.name}.csv" if rest > 0 else ""
            where = f" ({line.block})" if line.block else ""
            notes.append(
                f"Failed items of {line.system}{where}: "
                f"{', '.join(line.failed[:NAMED_FAILURES])}{more}."
            )
    return notes


def _few_items(table: Table) -> list[str]:
    """The sentence on figures of sets with few items."""
    few: dict[str, int] = {}
    for line in table.lines:
        for column, cell in line.cells.items():
            if cell.of_set and cell.count is not None and 0 < cell.count < FEW_ITEMS:
                name = shown(column.metric).name
                few[name] = min(cell.count, few.get(name, FEW_ITEMS))
    if not few:
        return []
    named = ", ".join(f"{name} ({count})" for name, count in few.items())
    return [
        f"Fewer than {FEW_ITEMS} items are behind {named}. A figure of so small a set is biased, "
        "and 0 or less says nothing: compare it at equal counts only, or measure more items."
    ]


def _by_model(named: Iterable[tuple[str, str]]) -> str:
    """(metric, model) pairs as text, the metrics of one model together."""
    metrics: dict[str, list[str]] = {}
    for metric, model in named:
        metrics.setdefault(model, []).append(shown(metric).name)
    return "; ".join(f"{', '.join(names)}: {model}" for model, names in metrics.items())

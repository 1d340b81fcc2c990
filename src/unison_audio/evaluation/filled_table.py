"""A filled table: its figures, its rows, and the sentences below it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from unison_audio.evaluation.table_layouts import Column, as_in_paper, shown

PAPER, HERE = "paper", "here"
"""Where a row is from."""
NAMED_FAILURES = 10
"""So many failed items are named below a table; its CSV file names all."""


@dataclass(kw_only=True)
class Cell:
    """A figure of a table, as shown: percent where it is a share."""

    value: float
    """NaN where nothing could be measured."""
    printed: str = ""
    """As the paper prints it; "" for measured figures."""
    low: float = math.nan
    """Of the 95 % interval; NaN if there is none."""
    high: float = math.nan
    """Likewise."""
    count: int | None = None
    """Items it is made of; None in the paper's rows."""
    failed: tuple[str, ...] = ()
    """Items that could not be judged."""
    model: str = ""
    """Who judged; "" in the paper's rows."""
    best: bool = False
    """Whether it is the best among those it can be compared with."""


@dataclass(kw_only=True)
class Line:
    """A row of a table."""

    system: str
    """Whose."""
    origin: str
    """`PAPER` or `HERE`."""
    block: str = ""
    """Title of its sub-task."""
    facts: dict[str, str] = field(default_factory=dict)
    """What is said of the system."""
    cells: dict[Column, Cell] = field(default_factory=dict)
    """Its figures; columns without one are missing."""
    ranked: bool = True
    """Whether it can be the best."""

    @property
    def failed(self) -> tuple[str, ...]:
        """Items of which any figure could not be measured."""
        return tuple(sorted({name for cell in self.cells.values() for name in cell.failed}))


@dataclass(kw_only=True)
class Table:
    """A filled table."""

    number: int | None
    """In the paper; None for what the paper has no table of."""
    title: str
    """What it is about."""
    facts: tuple[str, ...]
    """Columns about the systems."""
    columns: tuple[Column, ...]
    """Columns of figures."""
    lines: list[Line]
    """Rows, those of a sub-task together."""
    notes: list[str]
    """Sentences below it."""

    @property
    def name(self) -> str:
        """Of its files."""
        return "further-results" if self.number is None else f"table-{self.number}"

    @property
    def heading(self) -> str:
        """Number and title."""
        return self.title if self.number is None else f"Table {self.number}. {self.title}"

    @property
    def blocks(self) -> bool:
        """Whether its rows belong to sub-tasks."""
        return any(line.block for line in self.lines)


def write_notes(table: Table, remarks: Sequence[str]) -> list[str]:
    """Write the sentences below a table.

    Args:
        table: Filled.
        remarks: What there is to say besides judges and failed items; comes last.
    """
    notes = []
    judges: dict[str, dict[str, None]] = {}
    for line in table.lines:
        for column, cell in line.cells.items():
            if line.origin == HERE and cell.model:
                judges.setdefault(column.metric, {}).setdefault(cell.model)
    if judges:
        here: dict[str, list[str]] = {}
        for metric, who in judges.items():
            here.setdefault(" and ".join(who), []).append(shown(metric).name)
        named = (f"{', '.join(metrics)}: {who}" for who, metrics in here.items())
        notes.append(f"Judges here: {'; '.join(named)}.")
    if any(line.origin == PAPER for line in table.lines):
        theirs: dict[str, list[str]] = {}
        for metric in dict.fromkeys(column.metric for column in table.columns):
            if shown(metric).paper:
                theirs.setdefault(shown(metric).paper, []).append(shown(metric).name)
        if theirs:
            named = (f"{', '.join(metrics)}: {who}" for who, metrics in theirs.items())
            notes.append(f"Judges in the paper: {'; '.join(named)}.")
    for metric, models in judges.items():
        other = [model for model in models if not as_in_paper(metric, model)]
        if other and shown(metric).paper:
            notes.append(
                f"{shown(metric).name} here is by {' and '.join(other)}, in the paper by "
                f"{shown(metric).paper}: compare such figures with each other, not with the "
                "paper's."
            )
    for line in table.lines:
        if line.failed:
            rest = len(line.failed) - NAMED_FAILURES
            more = f" and {rest} more, named in {table.name}.csv" if rest > 0 else ""
            where = f" ({line.block})" if line.block else ""
            notes.append(
                f"Failed items of {line.system}{where}: "
                f"{', '.join(line.failed[:NAMED_FAILURES])}{more}."
            )
    return [*notes, *remarks]

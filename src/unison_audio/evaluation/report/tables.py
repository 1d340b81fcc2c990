"""Fills tables: the paper's rows beside measured ones, with best figures and metric models."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unison_audio.errors import InputError
from unison_audio.evaluation.report.filled_table import HERE, PAPER, Cell, Line, Table
from unison_audio.evaluation.report.layouts import (
    ABLATIONS,
    FACTS,
    GROUND_TRUTH,
    LARGER,
    LAYOUTS,
    REMARKS,
    SHOWN,
    SOLE_TASKS,
    TASK_WORDS,
    Column,
    TableLayout,
    as_in_paper,
    paper_results,
    shown,
)

REFERENCES = ("ground-truth", "through-codec", "copy-source")
"""Reference systems: they are shown but not ranked."""


@dataclass(eq=False, kw_only=True)
class _Row:
    """A row of results: the figures of a system on a subset of a test set."""

    system: str
    set: str
    task: str
    language: str
    part: str
    about: dict[str, str]
    scores: dict[str, Mapping[str, Any]]


def fill_tables(
    results: Sequence[Mapping[str, Any]],
    *,
    ablations: Sequence[Mapping[str, Any]] = (),
    paper: bool = True,
) -> list[Table]:
    """Fill the paper's tables.

    Args:
        results: Rows with the keys "system", "set", "task" ("" for the whole set), "language"
            ("" for all), "scores" (metric -> `measure.Score` as a dict), and if wanted "part"
            ("male" or "female") and "about" ("architecture", "parameters", "conditioning").
        ablations: Rows of the same form for Table 8.
        paper: Whether the paper's rows stand in the tables. Without them, tables and columns for
            which there is no figure are left out.

    Returns:
        Tables 1-8, then one of all figures for which the paper has no place, if there are any.

    Raises:
        InputError: A row lacks a key, or two rows describe the same figures.
    """
    measured, ablated = _read(results), _read(ablations)
    tables, used = [], set[tuple[int, str]]()
    for layout in LAYOUTS:
        rows = ablated if layout.number == ABLATIONS else measured
        table = _fill(layout, [row for row in rows if row.set in layout.sets], paper, used)
        if paper or table.lines:
            tables.append(table)
    further = _further([*measured, *ablated], used)
    return [*tables, further] if further else tables


def _read(results: Iterable[Mapping[str, Any]]) -> list[_Row]:
    """Reads rows of results.

    Raises:
        InputError: A key is missing, or two rows are equal.
    """
    rows: list[_Row] = []
    seen: set[tuple[str, ...]] = set()
    for result in results:
        try:
            row = _Row(
                system=result["system"],
                set=result["set"],
                task=result.get("task", ""),
                language=result.get("language", ""),
                part=result.get("part", ""),
                about=dict(result.get("about", {})),
                scores=dict(result["scores"]),
            )
        except KeyError as error:
            raise InputError(
                f"A row of results lacks the key {error} (it has {', '.join(result)}); a row is "
                "made of system, set, task, language and scores."
            ) from error
        key = (row.system, row.set, row.task, row.language, row.part)
        if key in seen:
            raise InputError(
                f"Two rows of results describe {' / '.join(filter(None, key))}; give one of them."
            )
        seen.add(key)
        rows.append(row)
    tasks = {(row.system, row.set): row.task for row in rows if row.task}
    for row in rows:
        if not row.task and (row.system, row.set) not in tasks:
            row.task = SOLE_TASKS.get(row.set, "")
    return rows


def _fill(
    layout: TableLayout, rows: Sequence[_Row], paper: bool, used: set[tuple[int, str]]
) -> Table:
    """Fills one table; adds the figures that it shows to `used`."""
    columns = [*layout.columns, *_beyond(layout, rows)]
    lines: list[Line] = []
    systems = list(dict.fromkeys(row.system for row in rows))
    for task, title in layout.blocks.items():
        of_block: list[Line] = []
        if paper:
            of_block += _paper_lines(layout, task, title)
        for system in systems:
            of_system = [row for row in rows if row.system == system]
            line = Line(
                system=system,
                origin=HERE,
                block=title,
                facts={key: text for row in of_system for key, text in row.about.items()},
                ranked=system not in REFERENCES,
            )
            for column in columns:
                row = _find(column, column.task or task, of_system)
                if row is not None:
                    line.cells[column] = _cell(column.metric, row.scores[column.metric])
                    used.add((id(row), column.metric))
            if line.cells:
                of_block.append(line)
        _mark_best(of_block, columns)
        lines += of_block
    if not paper:
        columns = [column for column in columns if any(column in line.cells for line in lines)]
    facts = tuple(fact for fact in layout.facts if any(line.facts.get(fact) for line in lines))
    return Table(
        number=layout.number,
        title=", ".join(filter(None, (layout.title, layout.benchmark if paper else ""))),
        facts=facts,
        columns=tuple(columns),
        lines=lines,
        remarks=REMARKS.get(layout.number, ()) if paper else (),
    )


def _paper_lines(layout: TableLayout, task: str, title: str) -> list[Line]:
    """The paper's rows of a table, in its order."""
    lines: dict[str, Line] = {}
    entries = [entry for entry in paper_results() if entry.table == layout.number]
    facts = [entry for entry in entries if entry.metric in FACTS]
    places = {
        (column.metric, column.task or task, column.language, column.part): column
        for column in layout.columns
    }
    for entry in entries:
        column = places.get((entry.metric, entry.task, entry.language, entry.part))
        if column is not None:
            line = Line(
                system=entry.system,
                origin=PAPER,
                block=title,
                facts={fact.metric: fact.value for fact in facts if fact.system == entry.system},
                ranked=entry.group not in (GROUND_TRUTH, LARGER),
            )
            cell = Cell(value=entry.number, printed=entry.value)
            lines.setdefault(entry.system, line).cells[column] = cell
    return list(lines.values())


def _find(column: Column, task: str, rows: Sequence[_Row]) -> _Row | None:
    """The row of a system's results that a column shows.

    Where only the set as a whole has been measured, an error rate of it is that of its language;
    where only one language has, its figure is that of all.
    """
    fits = [
        row
        for row in rows
        if row.task == task and row.part == column.part and column.metric in row.scores
    ]
    exact = [row for row in fits if row.language == column.language]
    if exact:
        return exact[0]
    if column.language:
        return next((row for row in fits if not row.language), None)
    return fits[0] if len(fits) == 1 else None


def _beyond(layout: TableLayout, rows: Sequence[_Row]) -> list[Column]:
    """Columns for metrics of the table's tasks that the paper's table does not have."""
    tasks = {column.task or task for column in layout.columns for task in layout.blocks}
    in_paper = {column.metric for column in layout.columns}
    found = dict.fromkeys(
        (metric, "" if len(layout.blocks) > 1 else row.task, row.language)
        for row in rows
        if row.task in tasks and not row.part
        for metric in row.scores
        if metric not in in_paper and layout.number != ABLATIONS
    )
    ordered = sorted(found, key=lambda key: list(SHOWN).index(key[0]) if key[0] in SHOWN else 99)
    several_tasks = len({task for _, task, _ in ordered}) > 1
    columns = []
    for metric, task, language in ordered:
        whole = (metric, task, "")
        if language and whole in found:
            continue  # the same items once more, by language
        words = [TASK_WORDS.get(task, task) if several_tasks else "", language.upper()]
        columns.append(
            Column(
                metric=metric,
                task=task or None,
                language=language,
                label=", ".join(filter(None, words)),
            )
        )
    return columns


def _cell(metric: str, score: Mapping[str, Any]) -> Cell:
    """A `measure.Score` as it is shown."""
    factor = 100.0 if shown(metric).percent else 1.0

    def figure(name: str) -> float:
        value = score.get(name)
        return math.nan if value is None else factor * float(value)

    return Cell(
        value=figure("value"),
        low=figure("low"),
        high=figure("high"),
        count=score.get("count"),
        failed=tuple(score.get("failed", ())),
        model=score.get("model", ""),
        of_set="per_item" in score and score["per_item"] is None,
    )


def _mark_best(lines: Sequence[Line], columns: Sequence[Column]) -> None:
    """Marks the best of each column for each metric model; the paper's kind counts as one."""
    for column in columns:
        # Figures by different metric models are not comparable, so each model has its own best.
        by_model: dict[str, list[Cell]] = {}
        for line in lines:
            cell = line.cells.get(column)
            if line.ranked and cell is not None and not math.isnan(cell.value):
                by_model.setdefault(_metric_model(column.metric, line, cell), []).append(cell)
        how = shown(column.metric)
        sign = 1.0 if how.better == "higher" else -1.0
        for cells in by_model.values():
            # Rounded first: figures that a reader sees as equal are both the best.
            top = max(sign * round(cell.value, how.digits) for cell in cells)
            for cell in cells:
                # A single figure has nothing to be better than.
                cell.best = len(cells) > 1 and sign * round(cell.value, how.digits) == top


def _metric_model(metric: str, line: Line, cell: Cell) -> str:
    """The metric model; figures by the paper's kind of model compare with the paper's."""
    return PAPER if line.origin == PAPER or as_in_paper(metric, cell.model) else cell.model


def _further(rows: Sequence[_Row], used: set[tuple[int, str]]) -> Table | None:
    """A table of the figures that no other table shows; None if there are none."""
    columns: dict[str, Column] = {}
    lines = []
    for row in rows:
        left = [metric for metric in row.scores if (id(row), metric) not in used]
        if not left:
            continue
        where = (row.set, row.task.replace("_", " "), row.language.upper(), row.part)
        line = Line(system=row.system, origin=HERE, block=", ".join(filter(None, where)))
        for metric in left:
            column = columns.setdefault(metric, Column(metric=metric))
            line.cells[column] = _cell(metric, row.scores[metric])
        lines.append(line)
    if not lines:
        return None
    order = list(dict.fromkeys(line.block for line in lines))
    lines.sort(key=lambda line: order.index(line.block))
    return Table(
        number=None,
        title="Further results",
        facts=(),
        columns=tuple(columns.values()),
        lines=lines,
    )

"""Filled tables as Markdown, CSV and HTML; whatever names hold is escaped."""

import csv
import html
import io
import math
import re

from unison_audio.evaluation.filled_table import HERE, Cell, Line, Table
from unison_audio.evaluation.table_layouts import Column, shown

ARROWS = {"higher": "↑", "lower": "↓"}
"""Direction in which a figure is better."""
NOT_MEASURED = "not measurable"
"""What stands for NaN."""


def table_markdown(table: Table) -> str:
    """Write a table with its heading and its notes as Markdown."""
    lines = [f"### {_markdown(table.heading)}", ""]
    head = [_markdown(text) for text in _heads(table)]
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    block = ""
    for line in table.lines:
        cells = [] if not table.blocks else [_markdown(line.block if line.block != block else "")]
        block = line.block
        cells += [_markdown(line.system), line.origin]
        cells += [_markdown(line.facts.get(fact, "")) for fact in table.facts]
        for column in table.columns:
            cell = line.cells.get(column)
            figure = figure_text(column, cell)
            if cell is not None and cell.best:
                figure = f"**{figure}**"
            cells.append(f"{figure} {interval_text(column, cell)}".strip())
        cells += [items_text(line, table.columns), _failed_text(line)]
        lines.append(f"| {' | '.join(cells)} |")
    for note in table.notes:
        lines += ["", _markdown(note)]
    return "\n".join(lines) + "\n"


def table_csv(table: Table) -> str:
    """Write a table as CSV (RFC 4180), a figure's interval and counts in columns of their own.

    Measured figures have six digits, the paper's are as printed; empty cells are missing. The last
    column holds the ids of all failed items, with spaces between.
    """
    head = ["sub-task"] if table.blocks else []
    head += ["system", "from", *table.facts]
    for column in table.columns:
        title = _title(column)
        head += [title, *(f"{title}: {name}" for name in ("low", "high", "items", "failed"))]
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow([*head, "failed items"])
    for line in table.lines:
        row = [line.block] if table.blocks else []
        row += [line.system, line.origin, *(line.facts.get(fact, "") for fact in table.facts)]
        for column in table.columns:
            cell = line.cells.get(column)
            if cell is None:
                row += [""] * 5
                continue
            row += [cell.printed or _number(cell.value), _number(cell.low), _number(cell.high)]
            row.append("" if cell.count is None else str(cell.count))
            row.append("" if line.origin != HERE else str(len(cell.failed)))
        writer.writerow([*row, " ".join(line.failed)])
    return file.getvalue()


def table_html(table: Table) -> str:
    """Write a table with its heading and its notes as a piece of HTML, a section."""
    escape = html.escape
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in _heads(table))
    rows = []
    for k, line in enumerate(table.lines):
        cells = []
        first = k == 0 or table.lines[k - 1].block != line.block
        if table.blocks and first:
            span = 0
            while k + span < len(table.lines) and table.lines[k + span].block == line.block:
                span += 1
            cells.append(f'<th scope="rowgroup" rowspan="{span}">{escape(line.block)}</th>')
        cells.append(f'<th scope="row">{escape(line.system)}</th>')
        cells.append(f"<td>{escape(line.origin)}</td>")
        cells += [f"<td>{escape(line.facts.get(fact, ''))}</td>" for fact in table.facts]
        for column in table.columns:
            cell = line.cells.get(column)
            figure = escape(figure_text(column, cell))
            if cell is not None and cell.best:
                figure = f"<strong>{figure}</strong>"
            interval = escape(interval_text(column, cell))
            small = f" <small>{interval}</small>" if interval else ""
            cells.append(f'<td class="figure">{figure}{small}</td>')
        cells.append(f'<td class="figure">{escape(items_text(line, table.columns))}</td>')
        cells.append(f'<td class="figure">{escape(_failed_text(line))}</td>')
        classes = " ".join(
            name
            for name, so in (("here", line.origin == HERE), ("first", table.blocks and first))
            if so
        )
        rows.append(f'<tr class="{classes}">{"".join(cells)}</tr>')
    notes = "\n".join(f"<p>{escape(note)}</p>" for note in table.notes)
    body = "\n".join(rows)
    return f"""<section id="{table.name}">
<h2>{escape(table.heading)}</h2>
<div class="wide"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>
{notes}
</section>
"""


def figure_text(column: Column, cell: Cell | None) -> str:
    """A figure as a table shows it; "" for a missing one."""
    if cell is None:
        return ""
    if cell.printed:
        return cell.printed
    return _rounded(cell.value, column) if math.isfinite(cell.value) else NOT_MEASURED


def interval_text(column: Column, cell: Cell | None) -> str:
    """A figure's interval in brackets; "" if there is none."""
    if cell is None or not (math.isfinite(cell.low) and math.isfinite(cell.high)):
        return ""
    return f"[{_rounded(cell.low, column)}, {_rounded(cell.high, column)}]"


def items_text(line: Line, columns: tuple[Column, ...]) -> str:
    """How many items a row's figures are made of, in the columns' order, each number once."""
    counts = (line.cells[column].count for column in columns if column in line.cells)
    return " / ".join(dict.fromkeys(str(count) for count in counts if count is not None))


def _heads(table: Table) -> list[str]:
    heads = ["Sub-task"] if table.blocks else []
    heads += ["System", "From", *(fact.capitalize() for fact in table.facts)]
    heads += [f"{_title(column)} {ARROWS[shown(column.metric).better]}" for column in table.columns]
    return [*heads, "Items", "Failed"]


def _title(column: Column) -> str:
    title = shown(column.metric).title
    return f"{title}, {column.label}" if column.label else title


def _failed_text(line: Line) -> str:
    return str(len(line.failed)) if line.origin == HERE else ""


def _rounded(value: float, column: Column) -> str:
    return f"{value:.{shown(column.metric).digits}f}"


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _markdown(text: str) -> str:
    """Escapes what Markdown or HTML would read as more than letters."""
    escaped = re.sub(r"([\\`*_{}\[\]|~])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

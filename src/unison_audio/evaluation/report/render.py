"""Filled tables as Markdown, CSV and HTML; whatever names hold is escaped."""

import base64
import csv
import html
import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unison_audio.evaluation.report.figures import Drawn
from unison_audio.evaluation.report.filled_table import HERE, Cell, Line, Table
from unison_audio.evaluation.report.layouts import Column, shown
from unison_audio.evaluation.report.tables import fill_tables
from unison_audio.files import write_whole

ARROWS = {"higher": "↑", "lower": "↓"}
"""Direction in which a figure is better."""

NOT_MEASURED = "not measurable"
"""What stands for NaN."""


@dataclass(frozen=True, kw_only=True)
class PlainTable:
    """A table of texts, with its anchor's name and with paragraphs above it."""

    name: str
    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def plain_markdown(table: PlainTable) -> str:
    """Write a table of texts with its heading and its notes as Markdown."""
    notes = [line for note in table.notes for line in (_markdown(note), "")]
    rows = [[_markdown(cell) for cell in row] for row in table.rows]
    return "\n".join([*_markdown_grid(table.heading, notes, table.columns, rows), ""])


def plain_html(table: PlainTable) -> str:
    """Write a table of texts with its heading and its notes as a section of HTML."""
    cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in table.rows)
    rows = [f"<tr>{row}</tr>" for row in cells]
    return _section(table.name, table.heading, table.columns, rows, _paragraphs(table.notes), "")


def table_markdown(table: Table) -> str:
    """Write a table with its heading and its notes as Markdown."""
    rows, block = [], ""
    for line in table.lines:
        row = [] if not table.blocks else [_markdown(line.block if line.block != block else "")]
        block = line.block
        for text, interval, best in _cells(table, line):
            mark = "**" if best else ""
            row.append(f"{mark}{_markdown(text)}{mark} {interval}".strip())
        rows.append(row)
    lines = _markdown_grid(table.heading, [], [_markdown(text) for text in _heads(table)], rows)
    for note in table.notes:
        lines += ["", _markdown(note)]
    return "\n".join([*lines, ""])


def _markdown_grid(
    heading: str, notes: Sequence[str], head: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[str]:
    """Lines of a Markdown table; heads and rows are Markdown already."""
    grid = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [f"### {_markdown(heading)}", "", *notes, *grid, *(f"| {' | '.join(r)} |" for r in rows)]


def _cells(table: Table, line: Line) -> list[tuple[str, str, bool]]:
    """Text, interval and whether it is the best of each cell of a row, but for its sub-task."""
    texts = [line.system, line.origin, *(line.facts.get(fact, "") for fact in table.facts)]
    figures = [(column, line.cells.get(column)) for column in table.columns]
    counts = [items_text(line, table.columns), _failed_text(line)]
    return [
        *((text, "", False) for text in texts),
        *(
            (figure_text(column, cell), interval_text(column, cell), cell is not None and cell.best)
            for column, cell in figures
        ),
        *((text, "", False) for text in counts),
    ]


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
    escape, rows = html.escape, []
    for k, line in enumerate(table.lines):
        cells = ""
        first = table.blocks and (k == 0 or table.lines[k - 1].block != line.block)
        # One head cell spans all rows of its sub-task; screen readers then name it for each row.
        if first:
            same = (other.block == line.block for other in table.lines[k:])
            span = len(list(itertools.takewhile(bool, same)))
            cells = f'<th scope="rowgroup" rowspan="{span}">{escape(line.block)}</th>'
        for number, (text, interval, best) in enumerate(_cells(table, line)):
            shown_text = f"<strong>{escape(text)}</strong>" if best else escape(text)
            small = f" <small>{escape(interval)}</small>" if interval else ""
            start, end = ("td", "td") if number else ('th scope="row"', "th")
            cells += f"<{start}>{shown_text}{small}</{end}>"
        names = (("here", line.origin == HERE), ("first", first))
        rows.append(f'<tr class="{" ".join(name for name, so in names if so)}">{cells}</tr>')
    return _section(table.name, table.heading, _heads(table), rows, "", _paragraphs(table.notes))


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f"<p>{html.escape(text)}</p>\n" for text in texts)


def _section(
    name: str, heading: str, heads: Sequence[str], rows: Sequence[str], above: str, below: str
) -> str:
    """A section with a table; heading and heads are text, all else is HTML."""
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
    body = "\n".join(rows)
    return f"""<section id="{name}">
<h2>{html.escape(heading)}</h2>
{above}<div class="wide"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>
{below}</section>
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
    # Names come from users' files. HTML is escaped too, since Markdown passes it through.
    escaped = re.sub(r"([\\`*_{}\[\]|~])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


REPORT = "report.html"

INTRODUCTION = (
    "Rows from “here” were measured by this run, with 95 % intervals in brackets: a bootstrap over "
    "the items."
)

WITH_PAPER = (
    "Rows from “paper” are as printed in the paper (arXiv:2605.31530v2), which gives no intervals."
)

BEST = (
    "The best figure of a column is bold, among systems measured by the same model; ground truth, "
    "controls and rows outside the paper's comparison are not ranked. An empty cell is a figure "
    "that was not measured."
)

_STYLE = """
:root { color-scheme: light dark; --page: #f6f5f2; --card: #fff; --ink: #1d2126; --soft: #5d6570;
  --line: #e2e0da; --ours: #fdf1e7; --accent: #a33b20; }
@media (prefers-color-scheme: dark) { :root { --page: #14161a; --card: #1c1f25; --ink: #e8eaed;
  --soft: #a2a9b4; --line: #2e333b; --ours: #33291f; --accent: #ff9b7a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main, header { max-width: 84rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2rem; } h1 { margin: 0; font-size: 1.8rem; }
header p { margin: 0.4rem 0 0; color: var(--soft); max-width: 60rem; }
nav { display: flex; flex-wrap: wrap; gap: 0.4rem; margin: 1rem 0 0.5rem; }
nav a { color: var(--ink); text-decoration: none; font-size: 0.85rem; padding: 0.15rem 0.65rem;
  border: 1px solid var(--line); border-radius: 1rem; background: var(--card); }
nav a:hover, nav a:focus-visible { border-color: var(--accent); color: var(--accent); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 0.75rem;
  padding: 1.25rem; margin: 1.25rem 0; }
h2 { margin: 0 0 0.8rem; font-size: 1.15rem; }
section p { margin: 0.5rem 0 0; font-size: 0.85rem; color: var(--soft); max-width: 70rem;
  overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.3rem 0.7rem; border-bottom: 1px solid var(--line);
  vertical-align: top; font-weight: 400; }
thead th { font-weight: 600; white-space: nowrap; }
th[scope=rowgroup] { font-weight: 600; background: var(--card); }
tr.here > * { background: var(--ours); } tr.here > th[scope=row] { font-weight: 600; }
tr.here > th[scope=rowgroup] { background: var(--card); }
tr.first > * { border-top: 2px solid var(--line); }
td, th[scope=row] { white-space: nowrap; } td small { color: var(--soft); }
strong { color: var(--accent); }
img { width: 100%; height: auto; display: block; background: #fff; border-radius: 0.4rem; }
"""


def write_report(
    results: Sequence[Mapping[str, Any]],
    out: Path,
    *,
    title: str,
    paper: bool = True,
    ablations: Sequence[Mapping[str, Any]] = (),
    figures: Sequence[Drawn] = (),
    extra: Sequence[PlainTable] = (),
) -> Path:
    """Write the report of an evaluation.

    Besides the page there are ``table-1.md``, ``.csv`` and ``.html`` and so on for each table, and
    ``tables.md`` with all of them.

    Args:
        results: Rows as `fill_tables` takes them.
        out: The folder; made if missing.
        title: The page's.
        paper: Whether the paper's rows stand beside the measured ones.
        ablations: Rows of Table 8.
        figures: Pictures; they are put into the page itself.
        extra: Tables before the others, also in ``tables.md``.

    Returns:
        The page, one file which opens from disk.

    Raises:
        InputError: A row lacks a key, or two rows describe the same figures.
    """
    tables = fill_tables(results, ablations=ablations, paper=paper)
    out.mkdir(parents=True, exist_ok=True)
    for table in tables:
        write_whole(out / f"{table.name}.md", table_markdown(table))
        write_whole(out / f"{table.name}.csv", table_csv(table))
        write_whole(out / f"{table.name}.html", _page(table.heading, [], [table_html(table)], []))
    words = [INTRODUCTION, *([WITH_PAPER] if paper else []), BEST]
    write_whole(
        out / "tables.md",
        "\n".join(
            [
                *(plain_markdown(table) for table in extra),
                *([f"{word}\n" for word in words] if tables else []),
                *(table_markdown(table) for table in tables),
            ]
        ),
    )
    # The page embeds its figures and has no link outside itself, so that it can be sent as one
    # file.
    sections = [*map(plain_html, extra), *map(table_html, tables)]
    links = [(table.name, table.heading) for table in extra]
    links += [(table.name, table.heading) for table in tables]
    for k, figure in enumerate(figures, 1):
        sections.append(_figure(f"figure-{k}", figure))
        links.append((f"figure-{k}", figure.title))
    write_whole(out / REPORT, _page(title, words, sections, links))
    return out / REPORT


def _page(
    title: str,
    words: Sequence[str],
    sections: Sequence[str],
    links: Sequence[tuple[str, str]],
) -> str:
    """A whole page; the sections are HTML, all else is text."""
    anchors = "\n".join(f'<a href="#{name}">{html.escape(text)}</a>' for name, text in links)
    body = "\n".join(sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{html.escape(title)}</h1>
{_paragraphs(words)}<nav>
{anchors}
</nav>
</header>
<main>
{body}
</main>
</body>
</html>
"""


def _figure(name: str, figure: Drawn) -> str:
    data = base64.b64encode(figure.path.read_bytes()).decode()
    heading = html.escape(figure.title)
    return f"""<section id="{name}">
<h2>{heading}</h2>
<img src="data:image/png;base64,{data}" alt="Mel spectrograms: {heading}">
{_paragraphs(figure.caption.splitlines())}</section>
"""

"""Prints the mean words a sentence of the README and of every page under docs/.

`python benchmarks/prose.py` prints one row a page and ends with 1 if a page is above `--most`.
Code blocks, tables, headings and HTML are not prose. A list item ends a sentence.
"""

import re
import sys
from pathlib import Path

import cyclopts

ROOT = Path(__file__).parents[1]
MOST = 18.0
"""The target for a page's mean."""
LONG = 25
"""Words from which a sentence counts as long."""
_NO_PROSE = re.compile(r"^\s*(?:\||#|!\[|<|:::|!!!|\d+\.\s*$|-{3,}$)")
_LIST_ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|et al|vs|cf|approx|no)\.", re.IGNORECASE)


def sentences(markdown: str) -> list[str]:
    """The sentences of a page's prose, in order."""
    text = re.sub(r"^\s*```.*?^\s*```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "code", text)  # a name, whatever stands in it
    paragraphs, now = [], []
    for line in [*text.splitlines(), ""]:
        begins = _LIST_ITEM.match(line)
        if now and (begins or not line.strip() or _NO_PROSE.match(line)):
            paragraphs.append(" ".join(now))
            now = []
        if line.strip() and not _NO_PROSE.match(line):
            now.append(_LIST_ITEM.sub("", line).strip())
    found = []
    for paragraph in paragraphs:
        plain = _ABBREVIATION.sub(r"\1", paragraph)
        found += [part for part in re.split(r"(?<=[.!?])[*_\")\]]*\s+", plain) if words(part)]
    return found


def words(sentence: str) -> int:
    """Words and numbers of a sentence; signs by themselves do not count."""
    return sum(any(sign.isalnum() for sign in word) for word in sentence.split())


def mean_words(markdown: str) -> float:
    """Mean words a sentence of a page; 0 for a page without prose."""
    counts = [words(sentence) for sentence in sentences(markdown)]
    return sum(counts) / len(counts) if counts else 0.0


def pages(root: Path) -> list[Path]:
    """The pages that are held to the target."""
    top = [root / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md")]
    return [page for page in (*top, *sorted((root / "docs").rglob("*.md"))) if page.is_file()]


def main(*, root: Path = ROOT, most: float = MOST, show_long: bool = False) -> int:
    """Print the table.

    Args:
        root: The checkout to read.
        most: Mean words a sentence that a page may have.
        show_long: Print each sentence of more than `LONG` words.
    """
    above = 0
    print(f"{'page':<28} {'sentences':>9} {'mean words':>10} {f'over {LONG}':>8}")
    for page in pages(root):
        found = sentences(page.read_text("utf-8"))
        counts = [words(sentence) for sentence in found]
        mean = sum(counts) / max(1, len(counts))
        above += mean > most
        long = [sentence for sentence in found if words(sentence) > LONG]
        name = page.relative_to(root).as_posix()
        print(f"{name:<28} {len(counts):>9} {mean:>10.1f} {len(long):>8}")
        if show_long:
            print("".join(f"    {words(sentence)}: {sentence}\n" for sentence in long), end="")
    return int(above > 0)


if __name__ == "__main__":
    app = cyclopts.App(help=__doc__)
    app.default(main)
    sys.exit(app())

"""Prints files, lines and comment density of src, side by side with another checkout.

`python benchmarks/source_size.py --against ../other-checkout` adds its figures and the ratio.
Comments are `#` comments, counted by line; docstrings are not comments. Code lines are lines with
a token that is neither a comment nor part of a docstring.
"""

import ast
import dataclasses
import io
import tokenize
from pathlib import Path

import cyclopts

ROOT = Path(__file__).parents[1]
_NO_CODE = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """What was counted in one or several Python files."""

    files: int = 0
    lines: int = 0
    code: int = 0
    comments: int = 0
    longest: int = 0
    """Lines of the longest file."""

    @property
    def density(self) -> float:
        """Comment lines per 100 code lines."""
        return 100 * self.comments / max(1, self.code)

    def __add__(self, other: "Size") -> "Size":
        return Size(
            files=self.files + other.files,
            lines=self.lines + other.lines,
            code=self.code + other.code,
            comments=self.comments + other.comments,
            longest=max(self.longest, other.longest),
        )


def size_of(text: str) -> Size:
    """Count one file's text."""
    documented = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):  # docstrings, of attributes too
                documented |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    comments, code = set(), set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        lines = range(token.start[0], token.end[0] + 1)
        if token.type == tokenize.COMMENT:
            comments |= set(lines)
        elif token.type not in _NO_CODE:
            code |= set(lines) - documented
    lines = len(text.splitlines())
    return Size(files=1, lines=lines, code=len(code), comments=len(comments), longest=lines)


def measure(folder: Path) -> dict[str, Size]:
    """Sizes by folder below `folder`, and of all under "together"."""
    found: dict[str, Size] = {}
    for path in sorted(folder.rglob("*.py")):
        size = size_of(path.read_text("utf-8"))
        parts = path.relative_to(folder).parts
        name = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
        for key in (name, "together"):
            found[key] = found.get(key, Size()) + size
    found["together"] = found.pop("together", Size())
    return found


def main(*, root: Path = ROOT, against: Path | None = None, folder: str = "src") -> None:
    """Print the table.

    Args:
        root: The checkout to measure.
        against: Another checkout to compare with.
        folder: What to measure in both.
    """
    sides = [root] if against is None else [against, root]
    head = f"{'folder':<32} {'files':>6} {'lines':>7} {'code':>7} {'comments':>8} {'per 100':>7}"
    totals = []
    for side in sides:
        found = measure(side / folder)
        totals.append(found["together"])
        print(f"{side.resolve()}/{folder}\n{head}")
        for name, size in found.items():
            counts = f"{size.files:>6} {size.lines:>7} {size.code:>7} {size.comments:>8}"
            print(f"{name:<32} {counts} {size.density:>7.1f}")
        print(f"longest file: {totals[-1].longest} lines\n")
    if against is not None:
        before, now = totals
        for name in ("files", "lines", "code", "comments", "density"):
            old, new = getattr(before, name), getattr(now, name)
            print(f"{name:<10} {old:>9.1f} -> {new:>9.1f}  x {new / max(old, 1e-9):.2f}")


if __name__ == "__main__":
    app = cyclopts.App(help=__doc__)
    app.default(main)
    app()

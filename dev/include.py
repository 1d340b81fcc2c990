"""Copies parts of the scripts in examples/ into the pages that explain them.

A page marks where a part goes by a comment, `<!-- examples/custom_task.py: 2 -->`; the code block
after it is replaced. A part is what stands below a numbered comment, `# 2. ...`, up to the next
one, or the function `run`. `python dev/include.py` writes; a test fails where a page is behind.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_MARK = re.compile(
    r"(<!-- (?P<file>examples/\w+\.py): (?P<part>\w+) -->)\s*(?:```py\n.*?\n```)?\s*", re.DOTALL
)
_BEGINS = re.compile(r"# (\d+)\. |def (run)\(|(if __name__)")


def parts(script: str) -> dict[str, str]:
    """The parts of a script by name."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in script.splitlines():
        begins = _BEGINS.match(line)
        if begins:
            name = next(group for group in begins.groups() if group)
        found.setdefault(name, []).append(line)
    return {name: "\n".join(lines).strip() for name, lines in found.items()}


def included(page: str) -> str:
    """A page's text with its parts as the scripts have them now."""

    def fill(mark: re.Match[str]) -> str:
        code = parts((ROOT / mark["file"]).read_text("utf-8"))[mark["part"]]
        return f"{mark[1]}\n\n```py\n{code}\n```\n\n"

    return _MARK.sub(fill, page).rstrip() + "\n"


if __name__ == "__main__":
    for path in sorted((ROOT / "docs").glob("*.md")):
        before = path.read_text("utf-8")
        after = included(before)
        if after != before:
            path.write_text(after, "utf-8")
            print(f"{path.relative_to(ROOT)} was behind and is written again.")

"""Writes what `test_invariants.py` compares with.

    python tests/invariants/record.py [--machine] [area ...]

Without areas, of all. With `--machine` the figures stay as they are, and the bits of this machine
are added to those of others.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from invariants.areas import AREAS
from invariants.pins import check, fingerprint, one_thread


def text_of(content: dict[str, Any], depth: int = 0) -> str:
    """JSON with a line for each row."""
    if depth == 3 or not isinstance(content, dict):
        return json.dumps(content, ensure_ascii=False)
    pad = " " * (depth + 1)
    lines = [f"{pad}{json.dumps(key)}: {text_of(content[key], depth + 1)}" for key in content]
    return "{\n" + ",\n".join(lines) + f"\n{' ' * depth}}}" + ("" if depth else "\n")


def main(words: list[str]) -> None:
    names = [word for word in words if not word.startswith("-")]
    unknown = set(names) - {area.name for area in AREAS}
    if unknown:
        sys.exit(f"There is no area {', '.join(unknown)}; use {', '.join(a.name for a in AREAS)}.")
    for area in AREAS:
        if names and area.name not in names:
            continue
        with one_thread():
            found = {row: area.compute(row) for row in area.rows()}
        bits = {row: one.bits for row, one in found.items()}
        rows = {row: one.values for row, one in found.items()}
        content = {"rows": rows, "bits": {fingerprint(): bits}}
        if "--machine" in words:
            before = json.loads(area.path.read_text("utf-8"))
            before["bits"].pop(fingerprint(), None)
            for row in area.rows():
                check(area, row)
            content = {"rows": before["rows"], "bits": {**before["bits"], fingerprint(): bits}}
        area.path.write_text(text_of(content), "utf-8")
        print(f"{area.path.name}: {len(rows)} rows")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Imports point one way, and the package's own import loads nothing heavy."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import unison_audio

SOURCE = Path(unison_audio.__file__).parent
ORDER = (
    {"errors"},
    {"audio", "audio_files", "jsonl", "keeping"},
    {"model", "frozen", "tasks", "data"},
    {"variants"},
    {"checkpoint", "checkpoint_files"},
    {"release"},
    {"checks", "sound", "settings", "parts", "request", "pipeline"},
    {"training", "evaluation"},
    {"app"},
)
"""Each may import from its own set and from those before it (design.md)."""
RANKS = {part: rank for rank, parts in enumerate(ORDER) for part in parts}
FILES = [file for file in SOURCE.rglob("*.py") if file != SOURCE / "__init__.py"]


def part_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_parts(file: Path) -> set[str]:
    """Parts of the package that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("unison_audio.")}


def test_every_part_has_its_place() -> None:
    assert {part_of(file) for file in FILES} <= set(RANKS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_point_one_way(file: Path) -> None:
    back = {name for name in imported_parts(file) & set(RANKS) if RANKS[name] > _rank(file)}
    assert not back, f"{part_of(file)} comes before {back}"


def test_no_part_imports_one_that_imports_it() -> None:
    graph: dict[str, set[str]] = {}
    for file in FILES:
        graph.setdefault(part_of(file), set()).update(imported_parts(file) & set(RANKS))
    TopologicalSorter({part: used - {part} for part, used in graph.items()}).prepare()


def test_imports_load_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "transformers", "diffusers", "matplotlib", "soundfile", "webdataset"}
    for module in ("unison_audio", "unison_audio.app.cli"):
        code = f"import sys, {module}; print(*{heavy!r} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stdout.strip()) == (0, ""), done.stdout + done.stderr


def test_public_names() -> None:
    assert set(unison_audio.__all__) <= set(dir(unison_audio))
    assert unison_audio.Unison.__name__ == "Unison"
    assert unison_audio.Audio.__name__ == "Audio"
    assert unison_audio.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="nothing"):
        unison_audio.nothing  # noqa: B018


def _rank(file: Path) -> int:
    return RANKS[part_of(file)]

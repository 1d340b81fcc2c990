"""Commands import no library that they do not run."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from unison_audio.cli import main as cli

RUNNER = """
import json, sys
from unison_audio.cli.main import main
heavy = set(json.loads(sys.argv[1]))
for arguments in json.loads(sys.argv[2]):
    try:
        code = main(arguments)
    except SystemExit as exit:
        code = exit.code
    found = sorted(heavy & set(sys.modules))
    print(json.dumps([arguments, code, found]), file=sys.stderr)
"""
HEAVY = ("torch", "diffusers", "transformers", "scipy", "matplotlib")
UNUSED = ("diffusers", "transformers", "scipy", "sympy", "matplotlib", "torch._dynamo")
EDIT = "[Edit][Speech] Remove the speech"
REFUSED = (
    ("generate", "rain", "-o", "x.wav"),
    ("generate", "[Song] rain", "-o", "x.wav"),
    ("generate", "", "-o", "x.wav"),
    ("generate", "[Audio] rain", "-o", "x.txt"),
    ("generate", "[Audio] rain", "-o", "x.wav", "--duration", "99"),
    ("generate", "[Audio] rain", "-o", "x.wav", "--duration", "long"),
    ("generate", "[Audio] rain", "-o", "x.wav", "--seed", "-1"),
    ("generate", "[Audio] rain", "-o", "x.wav", "--steps", "0"),
    ("generate", "[Audio] rain", "-o", "x.wav", "--guidance-scale", "1000"),
    ("generate", "[Audio] rain", "-o", "x.wav", "--temperature", "3"),
    ("generate", "[Audio] rain", "-o", "x.wav", "--solver", "none"),
    ("generate", "[Audio] rain", "-o", "x.wav", "--preset", "slow"),
    ("generate", "[Audio] rain", "-o", "x.wav", "--variant", "none"),
    ("generate", "[Audio] rain", "-o", "x.wav", "--variant", "d20-44k"),
    ("generate", "[Audio] rain", "-o", "x.wav", "--reference-text", "red dog"),
    ("generate", "[Audio] rain"),
    ("generate", "[Audio] a violin", "-o", "x.wav", "--strict"),
    ("generate", '[Speech] "hello Peter", spoken by a voice', "-o", "x.wav", "--strict"),
    ("generate", f'[Speech] Say "{"red " * 20}"', "-o", "x.wav", "--duration", "2"),
    ("generate", EDIT, "-o", "x.wav"),
    ("generate", EDIT, "-o", "x.wav", "--source", "none.wav"),
    ("generate", EDIT, "-o", "x.wav", "--source", "."),
    ("generate", EDIT, "-o", "x.wav", "--source", "text.wav"),
    ("generate", EDIT, "-o", "x.wav", "--source", "long.wav", "--duration", "2"),
    ("generate", "[Speech with voice] red dog", "-o", "x.wav", "--reference", "long.wav"),
    ("batch", "none.jsonl", "-o", "out"),
    ("batch", "jobs.jsonl", "-o", "out"),
    ("demo", "--steps", "0"),
    ("plan", "none"),
    ("nothing",),
)


def run(commands: list[tuple[str, ...]], heavy: tuple[str, ...], folder: Path) -> list[Any]:
    """Run commands one after the other in a fresh process: each with its code and its imports."""
    given = (json.dumps(heavy), json.dumps(commands))
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *given], cwd=folder, capture_output=True, text=True
    )
    rows = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("[[")]
    assert len(rows) == len(commands), done.stderr
    return rows


def every_help(app: Any = cli.app, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield (*path, "--help")
    for name in app:
        if not name.startswith("-"):
            yield from every_help(app[name], (*path, name))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text.wav").write_text("not a sound")
    soundfile.write(tmp_path / "long.wav", [0.1] * 8_000 * 60, 8_000)
    (tmp_path / "jobs.jsonl").write_text('{"instruction": "rain"}\n')
    return tmp_path


def test_listings_and_help_import_no_torch(folder: Path) -> None:
    commands = [("tasks",), ("variants",), ("variants", "nano"), ("--version",), *every_help()]
    assert ("plan", "--help") in commands
    assert len(commands) > 15
    for arguments, code, found in run(commands, HEAVY, folder):
        assert (code, found) == (0, []), arguments


def test_refused_inputs_import_no_torch(folder: Path) -> None:
    for arguments, code, found in run(list(REFUSED), HEAVY, folder):
        assert (code, found) == (2, []), arguments


def test_generate_on_nano_imports_only_what_it_runs(folder: Path) -> None:
    commands = [
        ("generate", "[Audio] rain", "-o", "rain.wav"),
        ("generate", '[Speech] A male voice saying "red dog"', "-o", "speech.wav"),
        ("generate", EDIT, "-o", "edit.wav", "--source", "rain.wav"),
    ]
    for arguments, code, found in run(commands, UNUSED, folder):
        assert (code, found) == (0, []), arguments
        assert (folder / arguments[3]).is_file()

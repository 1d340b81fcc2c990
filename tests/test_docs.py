"""The README and the docs are run: every command and every Python example in them."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from unison_audio.cli import main as cli

ROOT = Path(__file__).parents[1]
ELSEWHERE = ("full-size.md", "training.md")
"""Pages whose commands a test of their own runs, with models that the others do not need."""
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in ELSEWHERE),
]
LONG = tuple(f"unison-audio {name}" for name in ("data", "train", "evaluate", "demo", "finetune"))
"""Minutes to hours each, with tests of their own: here only their flags are read."""


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def commands(page):
    for block in blocks(page, "console"):
        for line in block.splitlines():
            command = line.split(" # ")[0].strip()
            if command:
                yield command


def test_the_readme_opens_with_the_two_commands():
    first = blocks(ROOT / "README.md", "console")[0]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make demo", "make test"]
    for target in ("demo", "test"):
        plan = ["make", "--dry-run", "--always-make", target]
        run = subprocess.run(plan, cwd=ROOT, capture_output=True, text=True, check=True)
        assert ".venv/bin" in run.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_works(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        words = shlex.split(command)
        if words[0] == "make":
            subprocess.run([*words, "--dry-run"], cwd=ROOT, check=True, capture_output=True)
        elif words[0] == "python":  # minutes each: the script is there and knows the flags
            script = (ROOT / words[1]).read_text()
            assert all(word.strip("-") in script for word in words if word.startswith("-")), command
        elif command.startswith(LONG) or any(word.startswith("runs/") for word in words):
            cli.app.parse_args(words[1:], exit_on_error=False, print_error=False)
        elif words[0] == "unison-audio" and "JOBS.jsonl" not in words:
            assert cli.main(words[1:]) == 0, (command, capsys.readouterr().err)
            if "-o" in words:
                assert Path(words[words.index("-o") + 1]).stat().st_size > 1000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_example_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})

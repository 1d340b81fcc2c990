"""Every refused command line: exit code 2, one sentence, nothing left behind."""

from pathlib import Path

import pytest
from rows import ROWS, Row

from unison_audio.cli import main as cli

LOADS_ITS_OWN = ("evaluate", "plan", "variants", "download", "export", "data", "import-release")
"""Commands that do not take the tiny checkpoint."""


def with_weights(words: tuple[str, ...], checkpoint: Path) -> list[str]:
    named = any(word.startswith("--variant") for word in words)
    takes = words[:1] in (("generate",), ("batch",), ("demo",), ("finetune",))
    return [*words, *(() if named or not takes else (f"--variant={checkpoint}",))]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_refused(
    row: Row,
    there: Path,
    tiny_checkpoint: Path,
    stub_text: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = cli.main(with_weights(row.words, tiny_checkpoint))
    said = capfd.readouterr()
    assert code == 2, said
    lines = said.err.splitlines()
    last = lines[-1] if lines else ""
    assert last.startswith("unison-audio: "), said.err
    assert all(line.startswith("unison-audio: note: ") for line in lines[:-1]), said.err
    assert any(part.lower() in last.lower() for part in row.says.split("|")), last
    assert len(last) < 1500
    assert said.out == ""


def test_the_table_is_large_enough() -> None:
    assert len({row.words for row in ROWS}) >= 300
    commands = {row.words[0] for row in ROWS}
    named = {name for name in cli.app if not name.startswith("-")}
    assert named <= commands

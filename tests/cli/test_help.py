"""Every command and every parameter explains itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from unison_audio.cli import main as cli
from unison_audio.cli.corpora import CORPUS_HELP, data
from unison_audio.data.corpora import CORPORA

BUILT_IN = {"--help", "-h", "--version"}


def walk(app: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, App]]:
    """A command line's name and each command below it."""
    for name in app:
        if name not in BUILT_IN:
            command = app[name]
            yield " ".join((*path, name)), command
            yield from walk(command, (*path, name))


COMMANDS = dict(walk(cli.app))


def missing_help(command: App) -> list[str]:
    """Parameters of a command without help."""
    if command.default_command is None:
        return []
    arguments = command.assemble_argument_collection(parse_docstring=True)
    return [
        str(argument.name)
        for argument in arguments
        if argument.show and not (argument.parameter.help or "").strip()
    ]


def shown(command: App) -> list[str]:
    """Names of a command's parameters."""
    return [one.name for one in command.assemble_argument_collection() if one.show]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_parameter_has_help(name: str) -> None:
    assert COMMANDS[name].help.strip()
    assert missing_help(COMMANDS[name]) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_page_shows_the_first_sentence_and_every_flag(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*name.split(), "--help"]) == 0
    page = capsys.readouterr().out
    words = "".join(page.replace("│", " ").split())
    assert "".join(COMMANDS[name].help.split("\n")[0].split()) in words
    if COMMANDS[name].default_command is not None:
        for flag in shown(COMMANDS[name]):
            assert flag.upper() in words or flag in words


def test_the_commands_are_found() -> None:
    assert {"generate", "batch", "finetune", "plan", "train nano", "evaluate paper"} <= set(
        COMMANDS
    )
    assert {"--steps", "--device", "--source"} <= set(shown(COMMANDS["generate"]))
    assert shown(COMMANDS["finetune"])[0] == "EXAMPLES"


def test_a_parameter_without_help_is_noticed() -> None:
    app = App()

    @app.command
    def silent(*, told: int = 0, untold: int = 0) -> None:
        """Do nothing.

        Args:
            told: Explained.
        """

    assert missing_help(app["silent"]) == ["--untold"]


def test_every_corpus_is_a_command() -> None:
    assert list(CORPUS_HELP) == list(CORPORA)
    assert {name for name in data if name not in BUILT_IN} == {*CORPORA, "nano"}
    assert len({tuple(shown(data[name])) for name in CORPORA}) == 1


def test_docstrings_of_commands_have_one_style() -> None:
    for path in (Path(cli.__file__).parent).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                text = ast.get_docstring(node) or ""
                assert "\n----" not in text, f"{path.name}: {node.name}"
                assert ":param" not in text, f"{path.name}: {node.name}"


def test_an_unknown_corpus_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "librits", "--root", "a", "--out", "b"]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert "librits" in error
    assert "libritts" in error
    assert error.count("\n") == 1

"""Commands import no library that they do not run."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import soundfile

from unison_audio.checkpoint_files import CODEC_FILES
from unison_audio.cli import main as cli
from unison_audio.cli.corpora import CORPUS_HELP
from unison_audio.cli.evaluate import NAMES
from unison_audio.cli.train_ablations import ABLATIONS
from unison_audio.training.configs import RecipeChanges, WeightsType

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
LONG = ("train", "finetune", "evaluate", "data", "import-release")
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
    ("generate", '[Speech] "hello Zoë", spoken by a voice', "-o", "x.wav", "--strict"),
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


CORPUS = ("--corpus", "corpus", "--run", "run")
REFUSED_TRAINING = (
    ("train", "nano-codec", "--corpus", "none", "--run", "run"),
    ("train", "nano-codec", *CORPUS, "--steps", "0"),
    ("train", "nano-codec", *CORPUS, "--init", "none"),
    ("train", "nano", *CORPUS, "--codec", "none"),
    ("train", "nano", *CORPUS, "--codec", "codec", "--init", "none"),
    ("train", "nano", *CORPUS, "--codec", "codec", "--workers", "-1"),
    ("train", "nano", *CORPUS, "--codec", "codec", "--dtype", "int8"),
    ("train", "nano", "--corpus", "empty", "--run", "run", "--codec", "codec"),
    ("train", "backbone", "--variant", "none", "--corpora", "corpus", "--run", "run"),
    ("train", "backbone", "--variant", "d20-44k", "--corpora", "none", "--run", "run"),
    ("train", "backbone", "--variant", "d20-44k", "--corpora", "empty", "--run", "run"),
    *(
        ("train", "backbone", "--variant", "d20-44k", "--corpora", "corpus", "--run", "run", *bad)
        for bad in (
            ("--recipe", "none"),
            ("--items", "0"),
            ("--init", "none"),
            ("--held-out", "corpus"),
            ("--codec-files", "none"),
            ("--system-prompt-file", "none"),
        )
    ),
    ("train", "distill", "none", *CORPUS),
    ("train", "distill", "--corpus", "none", "--run", "run"),
    ("train", "distill", *CORPUS, "--updates", "0"),
    ("train", "ablations", "--out", "out"),
    ("train", "ablations", "--out", "out", "--corpus", "corpus", "--codec", "none"),
    (
        "train",
        "ablations",
        "--out",
        "out",
        "--corpus",
        "corpus",
        "--codec",
        "codec",
        "--variants",
        "D24-O",
    ),
    ("train", "ablations", "--out", "out", "--recipe", "base", "--corpora", "none"),
    ("finetune", "none.jsonl", "--run", "run"),
    ("finetune", "empty.jsonl", "--run", "run"),
    ("finetune", "clips.jsonl", "--run", "run"),
    ("finetune", "jobs.jsonl", "--run", "run"),
    ("finetune", "good.jsonl", "--run", "run", "--variant", "none"),
    ("finetune", "good.jsonl", "--run", "run", "--corpus", "none"),
    ("finetune", "good.jsonl", "--run", "run", "--learning-rate", "7"),
    ("finetune", "good.jsonl", "--run", "run", "--own-share", "2"),
    ("evaluate", "nano", "--corpus", "none", "--out", "out"),
    ("evaluate", "nano", "--corpus", "corpus", "--out", "out"),
    ("evaluate", "nano", "--corpus", "corpus", "--out", "out", "--variant", "none"),
    ("evaluate", "nano", "--corpus", "corpus", "--out", "out", "--tasks", "none"),
    ("evaluate", "nano", "--corpus", "corpus", "--out", "out", "--items", "0"),
    ("evaluate", "paper", "--data", "none", "--out", "out"),
    *(
        ("evaluate", "paper", "--data", "corpus", "--out", "out", *bad)
        for bad in (
            ("--sets", "none"),
            ("--systems", "none"),
            ("--metrics", "none"),
            ("--stages", "none"),
            ("--counts", "timed"),
            ("--counts", "timed=few"),
            ("--batch", "0"),
            ("--outputs", "none"),
            ("--metric-models", "whisper=none"),
            ("--variant", "none"),
        )
    ),
    ("data", "nano", "--out", "out", "--scale", "0"),
    ("data", "nano", "--out", "out", "--packages", "none"),
    ("data", "nano", "--out", "corpus"),
    *(("data", name, "--root", "none", "--out", "out") for name in CORPUS_HELP),
    *(("data", name, "--root", "corpus", "--out", f"out-{name}") for name in CORPUS_HELP),
    ("data", "folder", "--root", "corpus", "--out", "corpus/shards"),
    ("data", "folder", "--root", "corpus", "--out", "out", "--workers", "0"),
    ("import-release", "none.pt", "--variant", "d20-44k", "-o", "out"),
    ("import-release", "corpus", "--variant", "d20-44k", "-o", "out"),
    ("import-release", "text.wav", "--variant", "none", "-o", "out"),
    ("import-release", "text.wav", "--variant", "d20-44k", "-o", "out", "--seconds", "0"),
    ("import-release", "text.wav", "--variant", "d20-44k", "-o", "out", "--dtype", "int8"),
    *(
        ("import-release", "text.wav", "--variant", "d20-44k", "-o", "out", option, "none")
        for option in ("--system-prompt-file", "--text-files")
    ),
)
"""Bad input of each command that trains, measures or prepares data."""


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
    (tmp_path / "empty.jsonl").write_text("")
    soundfile.write(tmp_path / "short.wav", [0.1] * 8_000, 8_000)
    for name, audio in (("clips", "none.wav"), ("good", "short.wav")):
        row = {"audio": audio, "caption": "rain"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    for name, split in (("corpus", "train"), ("empty", "heldout")):
        shard = {"name": "a.tar", "clips": 3, "kinds": ["sound"], "splits": [split]}
        (tmp_path / name).mkdir()
        index = {"format": 1, "corpus": name, "shards": [shard]}
        (tmp_path / name / "index.json").write_text(json.dumps(index))
    (tmp_path / "codec").mkdir()
    for name in CODEC_FILES:
        (tmp_path / "codec" / name).write_text("{}")
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


def test_refused_inputs_of_the_long_commands_import_no_torch(folder: Path) -> None:
    named = [path[:-1] for path in every_help() if path[0] in LONG]
    for command in set(named) - {(group,) for group in ("train", "evaluate", "data")}:
        assert [one for one in REFUSED_TRAINING if one[: len(command)] == command], command
    for arguments, code, found in run(list(REFUSED_TRAINING), HEAVY, folder):
        assert (code, found) == (2, []), arguments
    assert not {path.name for path in folder.iterdir()} & {"run", "out"}


def test_generate_on_nano_imports_only_what_it_runs(folder: Path) -> None:
    commands = [
        ("generate", "[Audio] rain", "-o", "rain.wav"),
        ("generate", '[Speech] A male voice saying "red dog"', "-o", "speech.wav"),
        ("generate", EDIT, "-o", "edit.wav", "--source", "rain.wav"),
    ]
    for arguments, code, found in run(commands, UNUSED, folder):
        assert (code, found) == (0, []), arguments
        assert (folder / arguments[3]).is_file()


def test_the_names_that_stand_in_the_command_line_are_those_of_the_tables() -> None:
    from unison_audio.checkpoint import DISK_TYPES
    from unison_audio.evaluation.metrics.table import METRICS
    from unison_audio.evaluation.set_plans import STAGES
    from unison_audio.evaluation.systems import SYSTEMS
    from unison_audio.evaluation.test_sets.build import SETS
    from unison_audio.training.ablation_table import FULL, NANO_FAMILY
    from unison_audio.training.recipes import FULL_RECIPES

    tables = {"test set": SETS, "system": SYSTEMS, "metric": METRICS, "stage": STAGES}
    assert {what: tuple(table) for what, table in tables.items()} == NAMES
    assert {"nano": tuple(NANO_FAMILY), "base": tuple(FULL)} == ABLATIONS
    recipes = get_type_hints(RecipeChanges)["recipe"]
    assert set(get_args(recipes)) == set(FULL_RECIPES)
    assert {f"torch.{name}" for name in get_args(WeightsType)} == set(map(str, DISK_TYPES))

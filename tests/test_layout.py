"""The rules of the layout: imports point one way, names are unique, nothing heavy loads early."""

import ast
import subprocess
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import unison_audio

SOURCE = Path(unison_audio.__file__).parent
ORDER = (
    {"errors"},
    {"values", "json_files", "key_checks"},
    {"output_format", "sample_codings"},
    {
        "files",
        "tensor_files",
        "locks",
        "loudness",
        "cluster",
        "device",
        "hub",
        "hub_files",
        "audio",
        "audio_files",
        "audio_encoder",
        "audio_writer",
        "av_audio",
        "spectrogram",
        "preserve",
        "speech_activity",
        "reference_check",
        "transcription",
        "provenance",
    },
    {"model", "codecs", "text", "tasks", "data"},
    {"domain", "variants"},
    {"checkpoint", "checkpoint_files", "model_card"},
    {"release", "release_files", "downloads", "sampling_params"},
    {
        "loading",
        "pretrained",
        "release_inputs",
        "input_audio",
        "frame_layout",
        "inputs",
        "checks",
        "longform",
    },
    {
        "request_batches",
        "best_of_n",
        "edit_check",
        "replacement_check",
        "levels",
        "output_audio",
        "speech_protection",
        "pipeline",
    },
    {"diffusers_pipeline", "diffusers_export", "machine"},
    {"training", "nano", "evaluation"},
    {"demo"},
    {"server"},
    {"cli"},
    {"__main__"},
)
"""Each folder or file may import from its own set and from the sets before it."""
RANKS = {part: rank for rank, parts in enumerate(ORDER) for part in parts}
FILES = sorted(file for file in SOURCE.rglob("*.py") if file != SOURCE / "__init__.py")
MODULES = {
    ".".join(("unison_audio", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): file
    for file in FILES
}
BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))
MAY_REPEAT = {"__init__", "table"}
"""File names that may stand in several folders."""


def part_of(file: Path) -> str:
    """The folder or top-level file that a file belongs to."""
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(file: Path) -> set[str]:
    """The package's modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write absolute imports"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found |= {whole if whole in MODULES else str(node.module)} & set(MODULES)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & set(MODULES)
    return found


def test_every_part_has_its_place() -> None:
    assert {part_of(file) for file in FILES} == set(RANKS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_point_one_way(file: Path) -> None:
    used = {part_of(MODULES[name]) for name in imports_of(file)}
    back = {part for part in used if RANKS[part] > RANKS[part_of(file)]}
    assert not back, f"{part_of(file)} comes before {back}"


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {name: imports_of(file) - {name} for name, file in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"A circle of imports: {' -> '.join(error.args[1])}")


def names_of(body: list[ast.stmt]) -> set[str]:
    """The names that statements at the top of a file bind."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.If):
            found |= names_of(node.body)
        else:
            stored = (one for one in ast.walk(node) if isinstance(one, ast.Name))
            found |= {one.id for one in stored if isinstance(one.ctx, ast.Store)}
    return found


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: file.stem)
def test_what_a_benchmark_imports_is_there(file: Path) -> None:
    """Benchmarks take minutes, so no test runs them: at least their imports must not go stale."""
    missing = []
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("unison_audio."):
            held = names_of(ast.parse(MODULES[str(node.module)].read_text("utf-8")).body)
            missing += [
                f"{node.module}.{alias.name}"
                for alias in node.names
                if alias.name not in held and f"{node.module}.{alias.name}" not in MODULES
            ]
    assert not missing


def test_no_file_name_stands_twice() -> None:
    places = defaultdict(list)
    for file in FILES:
        places[file.stem].append(str(file.relative_to(SOURCE)))
    assert not {n: p for n, p in places.items() if len(p) > 1 and n not in MAY_REPEAT}


def test_no_class_name_stands_twice() -> None:
    places = defaultdict(list)
    for file in FILES:
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(file.relative_to(SOURCE)))
    twice = {name: files for name, files in places.items() if len(files) > 1}
    assert not twice


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_no_function_has_more_than_eight_parameters(file: Path) -> None:
    long = []
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            args = node.args
            names = [a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
            if len([name for name in names if name not in ("self", "cls")]) > 8:
                long.append(node.name)
    assert not long, f"put the parameters of {long} into a config object"


def test_imports_load_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "transformers", "diffusers", "matplotlib", "soundfile", "webdataset"}
    for module in ("unison_audio", "unison_audio.cli.main"):
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

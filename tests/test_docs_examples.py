"""Every script in examples/ runs, and the pages show the scripts as they are."""

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name, folder, monkeypatch, *arguments):
    """Run a script as a user does, in this process."""
    path = EXAMPLES / name
    monkeypatch.setattr(sys, "argv", [str(path), str(folder), *arguments])
    runpy.run_path(str(path), run_name="__main__")


@pytest.fixture
def tables():
    """The tables that the examples add rows to, as they were before, afterwards."""
    from unison_audio import loading
    from unison_audio.codecs.table import CODECS
    from unison_audio.evaluation.metrics.table import METRICS
    from unison_audio.tasks import templates
    from unison_audio.tasks.table import TASKS
    from unison_audio.text.table import TEXT_ENCODERS
    from unison_audio.variants import VARIANTS

    known = [
        TASKS,
        VARIANTS,
        METRICS,
        CODECS,
        TEXT_ENCODERS,
        loading.FROZEN_BYTES,
        templates.TEMPLATES,
    ]
    before = [dict(table) for table in known]
    modules = set(sys.modules)
    yield
    for table, rows in zip(known, before, strict=True):
        table.clear()
        table.update(rows)
    for name in set(sys.modules) - modules:
        if name.startswith("unison_audio.tasks."):
            del sys.modules[name]


def test_every_example_has_a_test():
    text = Path(__file__).read_text()
    for path in EXAMPLES.iterdir():
        assert path.is_dir() or f'"{path.name}"' in text, path.name


def test_the_pages_show_the_scripts_as_they_are():
    include = load(ROOT / "dev" / "include.py")
    shown = 0
    for page in sorted((ROOT / "docs").glob("add-a-*.md")):
        text = page.read_text()
        assert include.included(text) == text, f"{page.name} is behind: run python dev/include.py"
        shown += text.count("```py\n")
    assert shown >= 10


def test_generate(tmp_path, monkeypatch, capsys):
    run("generate.py", tmp_path, monkeypatch)
    tasks = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert tasks == ["tts", "zero_shot_tts", "t2a", "t2a_mix", "timed"]
    assert len(list(tmp_path.glob("*.wav"))) == 5


def test_edit(tmp_path, monkeypatch, capsys):
    run("edit.py", tmp_path, monkeypatch)
    tasks = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert tasks == ["edit_add", "speech_insert", "speech_rewrite", "speech_delete"]
    assert len({soundfile.info(path).frames for path in tmp_path.glob("*.wav")}) == 1


def test_finetune(tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    time = np.arange(16_000) / 16_000
    for number, pitch in enumerate((220.0, 330.0)):
        tone = 0.3 * np.sin(2 * np.pi * pitch * time)
        soundfile.write(clips / f"a_theremin-{number}.wav", tone, 16_000)
    program = tmp_path / "bin" / "unison-audio"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m unison_audio.cli.main "$@"\n')
    program.chmod(0o755)
    script = str(EXAMPLES / "finetune.sh")
    subprocess.run(
        ["bash", script, str(clips), str(tmp_path / "run"), "1"],
        check=True,
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
    )
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "examples.jsonl").read_text().splitlines()
    ]
    assert {row["label"] for row in rows} == {"a theremin"}
    assert soundfile.info(tmp_path / "run" / "sample.wav").frames > 16_000


@pytest.mark.usefixtures("tables")
def test_custom_task(tmp_path, monkeypatch, capsys):
    run("custom_task.py", tmp_path, monkeypatch, "1")
    out = capsys.readouterr().out
    assert "fade_out (8, 40960) [Edit][Audio] Fade" in out
    assert "fade_out: level of each third" in out
    source, target = (
        soundfile.read(tmp_path / f"{name}-0.wav")[0] for name in ("source", "target")
    )
    assert np.allclose(source[:1000], target[:1000], atol=1e-3)
    assert abs(target[-100:]).max() < 0.01 < abs(source[-1000:]).max()


@pytest.mark.usefixtures("tables")
def test_custom_metric(tmp_path, monkeypatch, capsys):
    run("custom_metric.py", tmp_path, monkeypatch)
    assert "6.02 dB [6.02, 6.02] by RMS level" in capsys.readouterr().out


@pytest.mark.usefixtures("tables")
def test_custom_model(tmp_path, monkeypatch, capsys):
    run("custom_model.py", tmp_path, monkeypatch)
    out = capsys.readouterr().out
    assert "498,560 parameters" in out
    assert soundfile.info(tmp_path / "untrained.wav").frames == 16_000


def test_notebook(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = json.loads((EXAMPLES / "tour.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    names = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert names["alone"].task == "speech_delete"


def test_the_pages_are_easy_to_read():
    prose = load(ROOT / "benchmarks" / "prose.py")
    for page in prose.pages(ROOT):
        assert prose.mean_words(page.read_text()) <= prose.MOST, page.name


def test_prose_counts_words_and_sentences():
    prose = load(ROOT / "benchmarks" / "prose.py")
    page = "# Title\n\nOne two three. Four five\nsix `a b` seven.\n\n- eight\n- nine\n\n| a | b |\n"
    counts = [prose.words(sentence) for sentence in prose.sentences(page)]
    assert counts == [3, 5, 1, 1]
    assert prose.mean_words("```py\nx = 1\n```\n") == 0.0


def test_source_size_counts_comments_and_code():
    source_size = load(ROOT / "benchmarks" / "source_size.py")
    text = (
        '"""Doc."""\n\n# why\nx = 1  # because\n\n\n'
        'def f():\n    """Two\n    lines."""\n    return "#"\n'
    )
    size = source_size.size_of(text)
    assert (size.files, size.lines, size.code, size.comments) == (1, 10, 3, 2)

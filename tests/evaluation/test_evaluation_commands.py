"""The whole of the paper's evaluation by the command, with small instances of the models."""

import csv
import json
import sys
from types import ModuleType

import pytest
import torch
from benchmark_files import put_data
from tiny_sound_models import write_clap, write_cnn14, write_vggish
from tiny_speech_models import write_gender, write_voices, write_whisper

from unison_audio.cli.main import main
from unison_audio.evaluation import suite
from unison_audio.nano import corpus_name
from unison_audio.nano import evaluation as nano

COUNTS = [
    *("audiocaps=3", "seed-tts-en=1", "seed-tts-zh=1", "gender-tts-en=1", "gender-tts-zh=1"),
    *("t2as=1", "audio-editing=1", "speech-editing=1", "timed=1"),
]


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The metric models, small, in their published layouts; funasr by a stand-in."""

    class AutoModel:
        def __init__(self, **options):
            pass

        def generate(self, input, **options):
            return [{"key": "clip", "text": "宋代"}]

    module = ModuleType("funasr")
    module.AutoModel = AutoModel
    monkeypatch.setitem(sys.modules, "funasr", module)
    (tmp_path / "paraformer").mkdir()
    return {
        "vggish": write_vggish(tmp_path / "vggish"),
        "cnn14": write_cnn14(tmp_path / "cnn14"),
        "clap": write_clap(tmp_path / "clap"),
        "whisper": write_whisper(tmp_path / "whisper", "get"),
        "paraformer": tmp_path / "paraformer",
        "gender": write_gender(tmp_path / "gender", "female"),
        "wavlm": write_voices(tmp_path / "wavlm"),
    }


def test_the_papers_evaluation_from_end_to_end(
    tiny_checkpoint, models, tmp_path, capsys, monkeypatch
) -> None:
    out = tmp_path / "out"
    command = [
        *("evaluate", "paper", "--data", str(put_data(tmp_path / "data")), "--out", str(out)),
        *("--variant", str(tiny_checkpoint), "--steps", "1", "--bootstrap", "10"),
        *("--counts", *COUNTS),
        *("--metric-models", *(f"{name}={path}" for name, path in models.items())),
    ]
    assert main(command) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "GenAU-L" in printed
    assert str(out / "report.html") in printed
    rows = json.loads((out / "results.json").read_text("utf-8"))["rows"]
    systems = {"ground-truth", "through-codec", "copy-source", "sdedit", "zeta", "unison"}
    assert {row["system"] for row in rows} == systems
    scores = {
        (row["system"], row["set"], name): s for row in rows for name, s in row["scores"].items()
    }
    for name in ("fad", "fd", "kl", "is", "clap"):
        assert scores["unison", "audiocaps", name]["count"] == 3, name
    for where, name in (
        ("seed-tts", "wer"),
        ("seed-tts", "cer"),
        ("gender-tts", "gender"),
        ("speech-editing", "removal"),
        ("audio-editing", "lsd"),
        ("timed", "segment_clap"),
    ):
        assert ("unison", where, name) in scores, name
    assert scores["ground-truth", "audio-editing", "lsd"]["value"] == pytest.approx(0, abs=1e-9)
    for number in range(1, 8):
        table = list(csv.reader((out / f"table-{number}.csv").open(encoding="utf-8")))
        assert any("unison" in cell.lower() for row in table[1:] for cell in row), number
    # Figures are drawn anew in every run, which takes longer than all else here.
    monkeypatch.setattr(suite, "write_figures", lambda *about, **more: [])
    assert main(command) == 0  # all of it is there already
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--counts", "timed"], "--counts has 'timed'; give NAME=VALUE"),
        (["--counts", "timed=few"], "timed=few; give a whole number"),
        (["--judges", "whisper=/not/there"], "/not/there"),  # the old name
        (["--metric-models", "whisper=/not/there"], "/not/there"),
        (["--sets", "music"], "There is no"),
        (["--systems", "best"], "There is no system 'best'"),
        (["--metrics", "beauty"], "There is no metric 'beauty'"),
        (["--stages", "win"], "There is no stage 'win'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    options, said, tiny_checkpoint, tmp_path, capsys
) -> None:
    data = put_data(tmp_path / "data")
    given = ["--data", str(data), "--out", str(tmp_path / "out"), "--variant", str(tiny_checkpoint)]
    counts = (
        [] if "--counts" in options else ["--counts", *(c.split("=")[0] + "=0" for c in COUNTS)]
    )
    if {"--judges", "--metric-models"} & {*options}:
        counts = ["--sets", "gender-tts", "--counts", "gender-tts-en=1", "gender-tts-zh=0"]
        counts += ["--steps", "1", "--systems", "ground-truth", "--metrics", "wer"]
    assert main(["evaluate", "paper", *given, *counts, *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_nano_is_measured_in_the_type_asked_for(tmp_path, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(corpus_name, "require_nano_corpus", lambda *given: None)
    monkeypatch.setattr(nano, "evaluate_nano", lambda config, *given, **other: asked.append(config))
    command = ["evaluate", "nano", "--corpus", str(tmp_path), "--out", str(tmp_path)]
    for flags in ([], ["--dtype", "bfloat16"], ["--quantize", "int8"]):
        assert main([*command, "--tables", "bars", *flags]) == 0
    found = [(config.choice.dtype, config.choice.quantize) for config in asked]
    assert found == [(None, None), (torch.bfloat16, None), (None, "int8")]

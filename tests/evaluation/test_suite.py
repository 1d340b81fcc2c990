"""The whole evaluation with metrics that need no model: here, killed, and through Ray."""

import dataclasses
import hashlib
import json
import multiprocessing
import time

import pytest
from benchmark_files import put_data
from toy_metrics import Loudness, toy_metrics

from unison_audio.errors import InputError
from unison_audio.evaluation.set_plans import EvaluationConfig, MetricOptions
from unison_audio.evaluation.subsets import subsets_of
from unison_audio.evaluation.suite import evaluate_paper
from unison_audio.evaluation.systems import ModelChoice, choose_systems
from unison_audio.evaluation.test_sets.build import PAPER_COUNTS
from unison_audio.evaluation.test_sets.manifest import TestItem, TestSet

COUNTS = {
    **dict.fromkeys(PAPER_COUNTS, 0),
    "gender-tts-en": 1,
    "gender-tts-zh": 1,
    "audio-editing": 2,
    "timed": 2,
}
SYSTEMS = ("ground-truth", "copy-source", "unison")
METRICS = ("fd", "lsd", "clap", "segment_clap", "wer", "cer", "gender", "dnsmos")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return put_data(tmp_path_factory.mktemp("data"))


def evaluate(checkpoint, data, out, **options):
    config = {
        "counts": COUNTS,
        "systems": SYSTEMS,
        "metrics": toy_metrics(*METRICS),
        "metric_options": MetricOptions(bootstrap=20),
        "batch": 2,
        **options,
    }
    choice = ModelChoice(model=str(checkpoint), options={"steps": 1})
    out.mkdir(parents=True, exist_ok=True)
    return evaluate_paper(EvaluationConfig(choice=choice, out=out, **config), data)


def outputs(out):
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((out / "outputs").rglob("*.flac"))
    }


@pytest.fixture(scope="module")
def whole(tiny_checkpoint, data, tmp_path_factory):
    """One uninterrupted run, with the real text encoder."""
    out = tmp_path_factory.mktemp("whole")
    return out, evaluate(tiny_checkpoint, data, out)


def test_rows_and_report(whole) -> None:
    out, rows = whole
    found = {
        (row["system"], row["set"], row["task"], row["language"], row["part"]): row["scores"]
        for row in rows
    }
    assert len(found) == len(rows)
    assert set(found["unison", "audio-editing", "", "", ""]) == {"fd", "lsd", "clap"}
    assert found["unison", "audio-editing", "", "", ""]["lsd"]["count"] == 6
    assert found["unison", "audio-editing", "edit_add", "", ""]["lsd"]["count"] == 2
    assert set(found["unison", "gender-tts", "tts", "zh", ""]) == {"cer"}
    parts = {key[3:] for key in found if key[:3] == ("unison", "gender-tts", "tts")}
    assert len(parts) == 1 + 2 + 2  # all, each language, each language's one gender
    assert ("copy-source", "timed", "timed", "", "") not in found
    written = json.loads((out / "results.json").read_text("utf-8"))
    assert [row["system"] for row in written["rows"]] == [row["system"] for row in rows]
    assert written["about"]["counts"]["timed"] == 2
    assert (out / "report.html").is_file()


def test_killed_twice_and_run_again_gives_the_same_table(
    whole, tiny_checkpoint, data, tmp_path
) -> None:
    """SIGKILL while generating, then while scoring."""
    first, rows = whole
    out = tmp_path / "killed"
    until = {
        "a first output": lambda: list((out / "outputs").rglob("*.flac")),
        "first features": lambda: list((out / "features").rglob("*.npy")),
    }
    for reached in until.values():
        process = multiprocessing.get_context("fork").Process(
            target=evaluate, args=(tiny_checkpoint, data, out)
        )
        process.start()
        while process.is_alive() and not reached():
            time.sleep(0.001)
        process.kill()
        process.join()
        assert process.exitcode == -9
        assert not (out / "results.json").exists()
    assert evaluate(tiny_checkpoint, data, out) == rows
    assert outputs(out) == outputs(first)
    assert (out / "results.json").read_bytes() == (first / "results.json").read_bytes()
    assert (out / "tables.md").read_bytes() == (first / "tables.md").read_bytes()


def test_stages_by_themselves(tiny_checkpoint, data, tmp_path) -> None:
    options = {"sets": ["timed"], "systems": ("ground-truth",)}
    assert evaluate(tiny_checkpoint, data, tmp_path, stages=["build"], **options) == []
    assert not (tmp_path / "outputs").exists()
    with pytest.raises(InputError, match="no outputs"):
        evaluate(tiny_checkpoint, data, tmp_path, stages=["score"], **options)
    evaluate(tiny_checkpoint, data, tmp_path, stages=["generate"], **options)
    rows = evaluate(tiny_checkpoint, data, tmp_path, stages=["score"], **options)
    assert [row["set"] for row in rows] == ["timed"]


def test_outputs_of_another_system(whole, tiny_checkpoint, data, tmp_path) -> None:
    """Scored like the model whose files they are."""
    first, rows = whole
    theirs = first / "outputs" / "unison"
    again = evaluate(
        tiny_checkpoint, data, tmp_path, systems=(), outputs={"theirs": theirs}, sets=["timed"]
    )
    mine = [row for row in rows if (row["system"], row["set"]) == ("unison", "timed")]
    assert [{**row, "system": "unison"} for row in again] == mine


def test_figures_of_each_set() -> None:
    """The metrics of the paper's Tables 1-7, and those beyond."""

    def found(name, *tasks_and_languages):
        items = tuple(
            TestItem(id=str(k), set=name, task=task, language=language, instruction="", seconds=1.0)
            for k, (task, language) in enumerate(tasks_and_languages)
        )
        test_set = TestSet(name=name, folder=None, sample_rate=1, seed=0, items=items)
        return {(g.task, g.language): g.metrics for g in subsets_of(test_set)}

    assert found("audiocaps", ("t2a", "en")) == {
        ("t2a", ""): ("fad", "fd", "kl", "is", "clap", "fad_inf")
    }
    both = (("tts", "en"), ("tts", "zh"), ("zero_shot_tts", "zh"))
    assert found("seed-tts", *both) == {
        ("tts", ""): ("dnsmos",),
        ("tts", "en"): ("wer",),
        ("tts", "zh"): ("cer",),
        ("zero_shot_tts", ""): ("similarity", "dnsmos"),
        ("zero_shot_tts", "zh"): ("cer",),
    }
    assert found("t2as", ("t2as", "en")) == {
        ("t2as", ""): ("clap", "lsd"),
        ("t2as", "en"): ("wer",),
    }
    assert found("speech-editing", ("speech_delete", "zh"))[("speech_delete", "")] == (
        "clap",
        "lsd",
        "removal",
    )
    assert found("timed", ("timed", "en")) == {("timed", ""): ("segment_clap", "clap")}


def test_a_metric_of_ones_own(whole, tiny_checkpoint, data, tmp_path) -> None:
    """Measured on every task whose items have what it needs, and shown in the report."""

    class Copying(Loudness):
        name, title, needs = "copying", "Copying", ("source",)

    rows = evaluate(
        tiny_checkpoint,
        data,
        tmp_path,
        sets=["timed", "audio-editing"],
        systems=("copy-source",),
        metrics={"copying": Copying},
    )
    assert {(row["set"], row["task"]) for row in rows} == {
        ("audio-editing", task) for task in ("edit_add", "edit_remove", "edit_replace")
    }
    assert all(row["scores"]["copying"]["count"] == 2 for row in rows)
    assert "copying" in (tmp_path / "tables.md").read_text("utf-8").lower()


def test_what_is_not_known_is_refused(tiny_checkpoint, data, tmp_path) -> None:
    for options, message in (
        ({"sets": ["songs"]}, "no test set 'songs'"),
        ({"systems": ("sox",)}, "no system 'sox'"),
        ({"stages": ["bake"]}, "no stage 'bake'"),
        ({"metrics": ["charm"]}, "no metric 'charm'"),
        ({"batch": 0}, "batch is 0"),
        ({"outputs": {"unison": data}}, "Outputs cannot be called 'unison'"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(tiny_checkpoint, data, tmp_path, **options)


def test_a_model_is_chosen_without_its_weights() -> None:
    choice = ModelChoice(model="d24-16k")
    assert choice.variant.sample_rate == 16_000
    assert [e.name for e in choose_systems(("unison", "unison"), {}, choice)] == ["unison"]
    assert hash(choice) == hash(dataclasses.replace(choice, options={"steps": 3}))

"""The demo's examples, drawn again from their corpus and measured one by one."""

from pathlib import Path

import demo_check
import demo_draws
import demo_inputs
import pytest
import torch
from demo.test_demo_inputs import small_corpus
from demo_inputs import draw_again, draw_examples, make_inputs, write_inputs
from tiny_unison import RATE

from unison_audio.audio import Audio, load
from unison_audio.demo.examples import JOBS, read_examples
from unison_audio.errors import InputError
from unison_audio.nano.bars import OWN_VOICE, THRESHOLDS, BarRow
from unison_audio.nano.results import MODEL
from unison_audio.tasks.table import TASKS


class PlainCodec:
    """Loses nothing."""

    sample_rate, hop = RATE, 256

    def encode(self, waveform):
        return waveform[:, None]

    def decode(self, latent):
        return latent[:, 0]


class Performer:
    """Plays the targets, as the page would: of zero-shot speech only what comes after."""

    codec = PlainCodec()

    def __init__(self, corpus, wrong=()):
        self.corpus, self.wrong = corpus, wrong

    def generate(self, instruction, **given):
        self.given = given
        sounds = []
        for example, batch in draw_examples(self.corpus, given["seed"][0]):
            edge = 0 if batch.reference_samples is None else int(batch.reference_samples[0])
            wave = batch.target[0, edge:]
            sounds.append(Audio(wave * (example.task not in self.wrong), RATE))
        return sounds


def measured(task, samples, context):
    """Every score at its best if the output is the target, else at its worst."""
    (sample,) = samples[MODEL]
    right = torch.equal(*(load(path, sample_rate=RATE) for path in (sample.output, sample.target)))
    return task, right


def rows(task, scores):
    return [
        BarRow(
            task=task,
            measure=measure,
            items=1,
            value=(100.0 if scores[1] else 0.0) if bar.is_minimum else float(not scores[1]),
            truth=0.0,
        )
        for (of, measure), bar in THRESHOLDS.items()
        if task == of
    ]


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = small_corpus(tmp_path / "corpus")
    make_inputs(folder, tmp_path / "inputs")
    monkeypatch.setattr(demo_check, "packaged_inputs", lambda: tmp_path / "inputs")
    monkeypatch.setattr(demo_check, "require_packages", lambda: None)
    monkeypatch.setattr(demo_check, "prepare_classifier", lambda *_: {})
    monkeypatch.setattr(demo_check, "measure_samples", measured)
    monkeypatch.setattr(demo_check, "rows_of", rows)
    return folder


def test_targets_pass_and_what_is_wrong_is_named(corpus: Path, tmp_path: Path) -> None:
    performer = Performer(corpus, wrong=("tts", "zero_shot_tts", "denoise"))
    verdicts = demo_check.check_demo(performer, corpus, tmp_path / "out")
    assert [verdict.example.task for verdict in verdicts] == list(TASKS)
    failed = [verdict.example.task for verdict in verdicts if not verdict.passed]
    assert failed == ["tts", "zero_shot_tts", "denoise"]
    assert all(row.measure != OWN_VOICE for verdict in verdicts for row in verdict.rows)
    page = (tmp_path / "out" / "demo.md").read_text()
    assert page.startswith("12 of 15 examples pass.")
    assert page.count("| **no** |") == 3
    assert performer.given["seed"] == [0] * 15
    assert all(path is None or path.is_file() for path in performer.given["source"])


def test_another_corpus_is_refused(corpus: Path, tmp_path: Path) -> None:
    jobs = tmp_path / "inputs" / JOBS
    jobs.write_text(jobs.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(InputError, match="does not give the demo's examples; build it"):
        demo_check.check_demo(Performer(corpus), corpus, tmp_path / "out")


def test_the_first_draw_that_passes_is_chosen(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """t2a fails in the first of two draws, denoise in both."""
    performer = Performer(corpus, wrong=("denoise",))

    def generate(instruction, **given):
        performer.wrong = ("denoise", "t2a") if given["seed"][0] == 0 else ("denoise",)
        return Performer.generate(performer, instruction, **given)

    monkeypatch.setattr(performer, "generate", generate)
    tasks = demo_draws.measure_draws(performer, corpus, tmp_path / "out", 2)
    passed = {task: draws.passed for task, draws in tasks.items()}
    assert passed == {**dict.fromkeys(TASKS, 2), "t2a": 1, "denoise": 0}
    chosen = [draws.chosen for draws in tasks.values()]
    assert {example.task: example.seed for example in chosen} == {
        **dict.fromkeys(TASKS, 0),
        "t2a": 1,
    }
    assert {example.passing for example in chosen} == {"2 of 2", "1 of 2", "0 of 2"}
    page = demo_draws.table(tasks)
    assert "| t2a | 1 of 2 | 1 |" in page
    assert "| denoise | 0 of 2 | 0, which fails |" in page
    assert "13.5 pass in the mean: [13, 14]." in page
    written = write_inputs(draw_again(corpus, chosen), tmp_path / "chosen")
    assert read_examples(tmp_path / "chosen") == written == chosen


def test_only_kinds_that_can_be_classified_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_corpus(tmp_path / "corpus")
    barred = [f"a {letter} sound" for letter in "abcd"]
    monkeypatch.setattr(demo_inputs, "is_ranked", lambda label: label not in barred)
    text = " ".join(example.instruction + example.holds for example, _ in draw_examples(folder))
    assert not any(label in text for label in barred)

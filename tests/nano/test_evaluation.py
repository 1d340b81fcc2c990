"""The whole evaluation on a made-up corpus: tones for sounds, harmonic noise for speech."""

import dataclasses
import json
import math
import zlib

import pytest
import torch

from unison_audio.audio import load
from unison_audio.data.prepare.shard_writer import write_shard
from unison_audio.data.records import Clip, ClipRecord
from unison_audio.errors import InputError
from unison_audio.evaluation.engine import System, look_up
from unison_audio.evaluation.metrics import speech
from unison_audio.evaluation.metrics.signal import median_f0
from unison_audio.evaluation.models.asr import Asr
from unison_audio.evaluation.set_plans import EvaluationConfig, MetricOptions
from unison_audio.evaluation.systems import (
    SYSTEMS,
    ModelChoice,
    SourceThroughCodec,
    ThroughCodec,
)
from unison_audio.evaluation.test_sets import scenes
from unison_audio.evaluation.test_sets.manifest import read_test_set
from unison_audio.nano import evaluation as nano
from unison_audio.nano import event_classifier as sound_classes
from unison_audio.nano import event_model, label_matcher, metrics, vocabulary_asr
from unison_audio.nano import items as items_module
from unison_audio.nano.bars import CONTRAST, EVERY_TASK, HALF, REST, SDR_GAIN, THRESHOLDS
from unison_audio.nano.corpus import write_index
from unison_audio.nano.evaluation import BarOptions, evaluate_nano
from unison_audio.nano.event_classifier_training import ClassifierRecipe
from unison_audio.nano.items import SEQUENCES
from unison_audio.nano.vocabulary import IsSentence, held_out_texts
from unison_audio.nano.vocabulary_asr import NanoAsr
from unison_audio.tasks.table import TASKS, TaskBatch
from unison_audio.variants import VARIANTS

RATE = VARIANTS["nano"].sample_rate
LABELS = {"a low hum": 400.0, "a bell": 900.0, "a whistle": 1600.0, "an alarm": 2600.0}
UNRANKED = "a murmur"
RANDOM = [t for t in held_out_texts(sentences=0) if 2 <= len(t.split()) <= 5][:6]
SENTENCES = held_out_texts()[-6:]
RECIPE = ClassifierRecipe(
    steps=60, batch=12, encoded_steps=12, seconds=(0.96,), perceptron_steps=80, speeds=(1.0,)
)


def utterance(text, gender):
    """A harmonic tone as a voice, and noise that belongs to the text alone."""
    generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
    seconds = 0.25 * len(text.split())
    time = torch.arange(round(seconds * RATE)) / RATE
    f0 = 200 if gender == "female" else 100
    voice = sum(torch.sin(2 * math.pi * k * f0 * time) / k for k in range(1, 9))
    return 0.1 * voice + 0.03 * torch.randn(len(time), generator=generator)


class NoiseAsr(Asr):
    """Knows the noise of every text and finds it by correlation."""

    model = identity = "noise finder"

    def __init__(self):
        self.texts = {}
        for text in [*RANDOM, *SENTENCES]:
            generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
            self.texts[text] = torch.randn(RATE * len(text.split()) // 4, generator=generator)

    def transcribe(self, waves):
        return [self.find(torch.from_numpy(wave)) for wave in waves]

    def find(self, waveform):
        size = 1 << (2 * len(waveform)).bit_length()
        spectrum = torch.fft.rfft(waveform, size)
        best = {}
        for text, noise in self.texts.items():
            product = torch.fft.irfft(spectrum * torch.fft.rfft(noise, size).conj(), size)
            best[text] = float(product.max() / (noise.norm() * waveform.norm() + 1e-9))
        found = max(best, key=best.get)
        return found if best[found] > 0.1 else ""


class BandEncoder:
    """Describes a sound by the logarithms of its mean spectrum."""

    def features(self, waveform, sample_rate):
        spectrum = torch.stft(waveform, 128, window=torch.hann_window(128), return_complex=True)
        return (spectrum.abs().mean(dim=1) + 1e-3).log()


class StubModel:
    """Stands in for models of speech: loud is good, deep is spoken, the pitch is the voice."""

    model = identity = "stub"
    seconds = 9.01

    def overall(self, waveform, sample_rate):
        return 1.0 + 4.0 * float(waveform.square().mean() > 1e-4)

    def speech_seconds(self, waveform, sample_rate):
        # No sound is as deep as the voices.
        frames = waveform[: len(waveform) // 1024 * 1024].view(-1, 1024) * torch.hann_window(1024)
        deep = torch.fft.rfft(frames).abs()[:, 3:20].amax(dim=1) / 256
        return float((deep > 0.03).float().sum()) * 1024 / sample_rate

    def embed(self, waves):
        pitches = [median_f0(torch.from_numpy(wave), RATE) for wave in waves]
        return [torch.tensor([float(pitch > 150), float(pitch <= 150)]) for pitch in pitches]


def clip(kind, split, number, wave, **about):
    record = ClipRecord(
        key=f"{kind}-{split}-{number:03d}",
        kind=kind,
        split=split,
        seconds=len(wave) / RATE,
        licence="CC0-1.0",
        source=f"made-{'abc'[number % 3]}",
        **about,
    )
    return Clip(record=record, waveform=wave)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    clips = []
    for split in ("train", "heldout"):
        for label, frequency in [*LABELS.items(), (UNRANKED, 405.0)]:
            for k in range(3):
                time = torch.arange(round((0.7 + 0.2 * k) * RATE)) / RATE
                wave = 0.2 * torch.sin(2 * math.pi * frequency * (1 + 0.02 * k) * time)
                clips.append(
                    clip("sound", split, len(clips), wave, label=label, caption=f"{label}.")
                )
    for split in ("train", "heldout", "speakers"):
        for text in [*RANDOM, *SENTENCES]:
            for gender in ("male", "female"):
                about = {"text": text, "speaker": gender, "gender": gender}
                wave = utterance(text, gender)
                clips.append(clip("speech", split, len(clips), wave, **about))
    write_index(folder, {"all.tar": write_shard(folder / "all.tar", clips, RATE)})
    return folder


class PlainCodec:
    """Cuts waveforms into frames and puts them together again; nothing is lost."""

    sample_rate, channels, hop = RATE, 256, 256

    def frames(self, seconds):
        return math.ceil(seconds * RATE / self.hop)

    def encode(self, waveform):
        pad = -waveform.shape[1] % self.hop
        padded = torch.nn.functional.pad(waveform, (0, pad))
        return padded.view(len(padded), -1, self.hop).transpose(1, 2)

    def decode(self, latent):
        return latent.transpose(1, 2).flatten(1)


class Oracle(System):
    """Answers with the target, or with the source and silence."""

    name, sample_rate = "unison", RATE

    def __init__(self, knows, **settings):
        self.knows, self.settings, self.calls, self.die_after = knows, settings, [], None

    @property
    def identity(self):
        return {"knows": self.knows, **self.settings}

    def generate(self, test_set, items):
        if self.die_after is not None and len(self.calls) >= self.die_after:
            raise KeyboardInterrupt
        self.calls.append((test_set.name, [item.id for item in items]))
        answers = []
        for item in items:
            role = "target" if self.knows or not item.source else "source"
            wave = load(test_set.path(item, role), sample_rate=RATE)
            answers.append(wave if self.knows or item.source else 0 * wave)
        return answers


class StubAsr(NanoAsr):
    """Both models are the finder of noises."""

    def __init__(self):
        self.sentences = self.sequences = NoiseAsr()
        self.is_sentence = IsSentence()


@pytest.fixture
def stubs(monkeypatch):
    for module in (vocabulary_asr, metrics):
        monkeypatch.setattr(module, "NanoAsr", StubAsr)
    for module in (event_model, label_matcher):
        monkeypatch.setattr(module, "event_encoder", BandEncoder)
    monkeypatch.setattr(speech, "Dnsmos", StubModel)
    monkeypatch.setattr(speech, "SileroVad", StubModel)
    monkeypatch.setattr(metrics, "Resemblyzer", StubModel)
    monkeypatch.setattr(nano, "require_packages", lambda: None)
    monkeypatch.setattr(sound_classes, "UNRANKED", frozenset({UNRANKED}))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return tmp_path_factory.mktemp("model") / "classifier"


@pytest.fixture
def measure(stubs, corpus, classifier, monkeypatch):
    def run(model, out, **settings):
        codec = PlainCodec()
        for name, system in (
            ("unison", model),
            ("through-codec", ThroughCodec(codec)),
            ("source-through-codec", SourceThroughCodec(codec)),
        ):
            monkeypatch.setitem(SYSTEMS, name, lambda choice, system=system: system)
        batch = settings.pop("batch", 8)
        options = BarOptions(**{"items": 6, "classifier": classifier, "recipe": RECIPE, **settings})
        out.mkdir(parents=True, exist_ok=True)
        config = EvaluationConfig(
            choice=ModelChoice(model="nano"),
            out=out,
            batch=batch,
            metric_options=MetricOptions(bootstrap=0),
        )
        return evaluate_nano(config, corpus, tables="bars", options=options)["about"]

    return run


def barred(result):
    return {(row["task"], row["measure"]): row for row in result["bars"] if row["met"] is not None}


def test_a_model_that_gives_the_target_meets_every_target(measure, tmp_path):
    result = measure(Oracle(knows=True), tmp_path, items=3)
    rows = barred(result)
    assert set(rows) == set(THRESHOLDS)
    for (task, name), row in rows.items():
        if (task, name) == ("denoise", SDR_GAIN):
            assert row["value"] > 50  # the target itself
        assert row["met"], (task, name, row)
        if row["truth"] is not None and row["percent"]:
            assert row["value"] == pytest.approx(row["truth"], abs=0.18), (task, name)
    assert {row["task"] for row in result["bars"]} == {"codec", SEQUENCES, EVERY_TASK, *TASKS}
    words = [row for row in result["bars"] if row["measure"] == "word error rate"]
    assert {row["task"]: row["items"] for row in words} == {
        **dict.fromkeys((row["task"] for row in words), 3),
        SEQUENCES: 9,
    }
    replaced = {row["measure"]: row for row in result["bars"] if row["task"] == "edit_replace"}
    assert replaced[REST]["source"] < 0.05  # what is alike in source and target
    insert = {row["measure"]: row for row in result["bars"] if row["task"] == "speech_insert"}
    assert insert[HALF]["source"] <= 0.2
    timed = {row["measure"]: row for row in result["bars"] if row["task"] == "timed"}
    assert timed["energy inside the windows"]["value"] > 0.99
    assert timed[CONTRAST]["value"] > 30  # the noise floor lies 50 dB below
    page = (tmp_path / "tables.md").read_text()
    assert "| tts | word error rate |" in page
    assert f"Of {len(THRESHOLDS)} bars measured, {len(THRESHOLDS)} are met." in page
    assert "Nano&#x27;s bars" in (tmp_path / "report.html").read_text()
    written = json.loads((tmp_path / "results.json").read_text())
    assert len(written["about"]["bars"]) == len(result["bars"])
    accuracy = result["models"]["classifier"]
    assert (accuracy["labels"], accuracy["classes"]) == (5, 4)
    assert set(accuracy["by_class"]) == set(LABELS)
    asked = read_test_set(tmp_path / "sets" / "nano-t2a").items
    assert not any(UNRANKED in item.instruction for item in asked)
    assert (tmp_path / "outputs/unison/nano-edit_add/000.flac").is_file()


def test_a_model_that_gives_the_source_misses_the_bars(measure, tmp_path):
    tasks = ["tts", "edit_remove", "speech_insert", "speech_delete", "denoise"]
    rows = barred(measure(Oracle(knows=False), tmp_path, tasks=tasks))
    assert set(rows) == {key for key in THRESHOLDS if key[0] in tasks}
    assert not any(row["met"] for row in rows.values())
    assert "missed: tts, word error rate (" in (tmp_path / "tables.md").read_text()
    nearer = [row["value"] for (_, name), row in rows.items() if name.startswith("nearer")]
    assert nearer == [0.0] * 3  # a copy is not nearer than what it copies


def test_a_killed_run_resumes_and_repeats_nothing(measure, tmp_path):
    whole = Oracle(knows=True)
    expected = measure(whole, tmp_path / "whole", tasks=["denoise"], batch=3)
    assert [len(ids) for _, ids in whole.calls] == [3, 3]
    model = Oracle(knows=True)
    model.die_after = 1
    with pytest.raises(KeyboardInterrupt):
        measure(model, tmp_path / "cut", tasks=["denoise"], batch=3)
    model.die_after = None
    result = measure(model, tmp_path / "cut", tasks=["denoise"], batch=3)
    assert model.calls == whole.calls
    assert same(result) == same(expected)
    measure(model, tmp_path / "cut", tasks=["denoise"], batch=3)
    assert len(model.calls) == 2
    with pytest.raises(InputError, match="outputs of another identity"):
        measure(Oracle(knows=True, steps=7), tmp_path / "cut", tasks=["denoise"], batch=3)


def test_runs_of_different_tasks_are_put_together(measure, tmp_path):
    expected = measure(Oracle(knows=True), tmp_path / "whole", tasks=["tts", "denoise", "t2a"])
    model = Oracle(knows=True)
    for tasks in (["denoise"], ["tts", "t2a"]):
        measure(model, tmp_path / "parts", tasks=tasks)
    made = list(model.calls)
    result = measure(model, tmp_path / "parts", tasks=["t2a", "tts", "denoise"])
    assert model.calls == made
    assert same(result) == same(expected)
    again = measure(model, tmp_path / "parts", tasks=["denoise", "codec"])
    assert {row["task"] for row in again["bars"]} == {"denoise", "codec"}
    assert model.calls == made


def same(result):
    return [row for row in result["bars"] if not row["measure"].startswith("computing")]


def test_items_are_those_of_evaluation(corpus):
    from unison_audio.data.shards import read_corpus

    clips = read_corpus(corpus, RATE)

    def build(task, seed=0):
        kept = [c for c in clips if c.record.split != "train"]
        return items_module.join(items_module.build_items(task, kept, VARIANTS["nano"], 8, seed))

    tts = build("tts")
    texts = [detail["text"] for detail in tts.details]
    assert [text in SENTENCES for text in texts] == [True] * 4 + [False] * 4
    assert all(text.startswith("[Speech] A ") for text in tts.instructions)
    assert [d["snr_db"] for d in build("denoise").details] == [5.0] * 8
    assert [d["snr_db"] for d in build("t2as").details] == [0.0] * 8
    assert [d["speech_snr_db"] for d in build("speech_insert").details] == [10.0] * 8
    labels = [detail["labels"][0] for detail in build("t2a").details]
    assert {labels.count(label) for label in (*LABELS, UNRANKED)} <= {1, 2}  # in turn
    assert torch.equal(build("edit_add").target, build("edit_add").target)
    assert not torch.equal(build("edit_add").target, build("edit_add", seed=1).target)


def test_no_scene_holds_two_sounds_of_one_class(corpus, monkeypatch):
    from unison_audio.data.shards import read_corpus

    monkeypatch.setattr(sound_classes, "MERGED", {"a bell": "metal", "an alarm": "metal"})
    clips = read_corpus(corpus, RATE, split="heldout")
    chunks = items_module.build_items("t2a_mix", clips, VARIANTS["nano"], 12, 0)
    for detail in items_module.join(chunks).details:
        assert not {"a bell", "an alarm"} <= set(detail["labels"])


def test_a_noise_floor_lies_under_source_and_target():
    silent = torch.zeros(3, 4 * RATE)
    batch = TaskBatch(
        task="edit_add",
        instructions=[""] * 3,
        target=silent,
        source=silent,
        reference_samples=None,
        details=[{}] * 3,
    )
    floored = scenes.with_floor(batch, 1)
    assert torch.equal(floored.target, floored.source)
    level = 20 * floored.target.square().mean(dim=1).sqrt().log10()
    torch.testing.assert_close(level, torch.full((3,), -70.0), atol=0.2, rtol=0)
    assert torch.equal(floored.target, scenes.with_floor(batch, 1).target)
    assert not torch.equal(floored.target, scenes.with_floor(batch, 2).target)
    assert scenes.with_floor(dataclasses.replace(batch, source=None), 1).source is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ["singing"]}, "no task 'singing'"),
        ({"items": 0}, "items is 0"),
    ],
)
def test_refusals(measure, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        measure(Oracle(knows=True), tmp_path, **settings)


def test_nano_answers_every_kind_of_item(corpus, tmp_path, monkeypatch):
    """With the packaged weights: an instruction that the model refuses would count as failed."""
    monkeypatch.setattr(sound_classes, "UNRANKED", frozenset({UNRANKED}))
    config = EvaluationConfig(
        choice=ModelChoice(model="nano", options={"steps": 1, "num_candidates": 1}),
        out=tmp_path,
        stages=("build", "generate"),
    )
    evaluate_nano(config, corpus, tables="bars", options=BarOptions(items=2))
    found = {}
    for folder in (tmp_path / "outputs").glob("*/*"):
        made = look_up(folder, read_test_set(tmp_path / "sets" / folder.name))
        assert not made.failed, made.failed
        assert made.missing == 0
        found.setdefault(folder.parent.name, set()).add(folder.name)
    sets = {f"nano-{task}" for task in (*TASKS, SEQUENCES)}
    edits = {f"nano-{task}" for task, row in TASKS.items() if row.needs == ("source",)}
    assert found["unison"] == found["ground-truth"] == found["through-codec"] == sets
    assert found["copy-source"] == found["source-through-codec"] == edits

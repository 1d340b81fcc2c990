"""The experiment with spelled transcripts: texts, data, exact resume, evaluation."""

import dataclasses
import importlib
import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_unison import RATE, StubEncoder, random_backbone, random_codec, tiny_variant

from unison_audio.errors import InputError
from unison_audio.nano import open_texts
from unison_audio.text.minilm import MiniLmEncoder
from unison_audio.text.spelling import letters
from unison_audio.text.states import TextSetup

ROOT = Path(__file__).parents[2]
SYLLABLES = ("ba", "de", "ki", "lo", "mu", "sha", "tro", "vel")
WORDS = ["".join(pair) for pair in itertools.product(SYLLABLES, repeat=2)]
GENDERS = ("female", "male")


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


def tone(text, gender, sample_rate):
    """Stands for flite: a tone for each letter."""
    pitch = torch.tensor([200.0 + 20 * (ord(letter) - 96) for letter in text])
    phase = pitch.repeat_interleave(sample_rate // 20).cumsum(0) / sample_rate
    return 0.1 * torch.sin(2 * torch.pi * phase * (1 + GENDERS.index(gender)))


@pytest.fixture
def texts(monkeypatch):
    monkeypatch.setattr(open_texts, "COMMONEST", 10)
    rng = random.Random(0)
    sentences = [" ".join(rng.sample(WORDS, 4)) for _ in range(200)]
    return open_texts.split_texts(WORDS, sentences)


@pytest.fixture
def data(benchmarks, texts, monkeypatch, tmp_path):
    module = benchmarks("spelled_data")
    monkeypatch.setattr(module, "recording", tone)
    monkeypatch.setattr(module, "LAYERS", (1, 6))
    parts = {"words": 2, "sentences": 1, "unseen_words": 1, "unseen_sentences": 1}
    modes = ("spelled", "wordpieces")
    module.build(tmp_path, texts, random_codec(), StubEncoder(), parts=parts, modes=modes, count=24)
    return tmp_path


def test_a_text_is_spelled_letter_by_letter(benchmarks):
    read = benchmarks("spelled_data").instruction("red dog", "male", "spelled")
    assert read == '[Speech] A male voice saying "r e d | d o g"'
    ids = MiniLmEncoder(TextSetup(picks=(1,))).tokenizer.encode(letters("red dog's")).tokens[1:-1]
    assert ids == ["r", "e", "d", "|", "d", "o", "g", "'", "s"]


def test_a_batch_holds_what_was_stored(benchmarks, data):
    module, codec = benchmarks("spelled_data"), random_codec()
    parts = module.SpeechParts(data, "spelled", {"words": 2, "sentences": 1}, (1, 6))
    assert len(parts.rows) == 72
    seen = set()
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        length, which = parts.draw(80, 120, generator)
        assert all(length - 8 < parts.rows[i].frames <= length for i in which)
        assert 1 <= len(which) <= 120 // length
        seen |= set(which)
    assert seen == set(range(72))
    length, which = parts.draw(80, 120, torch.Generator().manual_seed(1))
    row = parts.rows[which[0]]
    wave = tone(row.text, row.gender, RATE)
    silence = (row.frames + 8) * codec.hop - len(wave)
    expected = codec.encode(torch.nn.functional.pad(wave, (0, silence))[None])[0, :, :length]
    torch.testing.assert_close(parts.latents(which, length)[0], expected, atol=5e-3, rtol=5e-3)
    said = [module.instruction(parts.rows[i].text, parts.rows[i].gender, "spelled") for i in which]
    text, direct = parts.text(which), StubEncoder().encode(said)
    assert torch.equal(text.mask, direct.mask)
    torch.testing.assert_close(text.hidden_states, direct.hidden_states, atol=2e-3, rtol=2e-3)


def test_a_build_that_was_cut_off_goes_on(benchmarks, data, texts):
    module = benchmarks("spelled_data")
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    for name in ("words-001.json", "sentences-000.latents.npy", "sentences-000.json"):
        (data / name).unlink()
    parts = {"words": 2, "sentences": 1}
    module.build(
        data, texts, random_codec(), StubEncoder(), parts=parts, modes=("spelled",), count=24
    )
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before


def make_stream(speech, data, steps=8):
    recipe = dataclasses.replace(
        speech.make_recipe(steps, 2),
        frames_per_batch=60,
        warmup=2,
        checkpoint_every=3,
        validate_every=4,
        sample_every=4,
    )
    stages = (
        speech.Stage(until_step=3, parts={"words": 2}, longest=20),
        speech.Stage(until_step=None, parts={"words": 1, "sentences": 1}, longest=80),
    )
    return speech.StoredSpeech(tiny_variant(), recipe, random_codec(), data, "spelled", stages)


def test_a_run_that_was_cut_off_ends_with_the_same_bits(benchmarks, data, tmp_path, monkeypatch):
    speech = benchmarks("spelled_speech")
    whole = speech.train(make_stream(speech, data), tmp_path / "whole", None, "no")
    step = speech.SpeechTrainer.step

    def cut(self, number, examples):
        if number == 5:
            raise RuntimeError("power cut")
        return step(self, number, examples)

    with monkeypatch.context() as broken:
        broken.setattr(speech.SpeechTrainer, "step", cut)
        with pytest.raises(RuntimeError, match="power cut"):
            speech.train(make_stream(speech, data), tmp_path / "cut", None, "no")
    resumed = speech.train(make_stream(speech, data), tmp_path / "cut", None, "no")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    logs = [(tmp_path / run / "log.jsonl").read_text() for run in ("whole", "cut")]
    assert logs[0] == logs[1]
    checks = (tmp_path / "whole" / "validation.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in checks] == [4, 8]
    assert {"unseen_words", "unseen_words, other text"} <= set(json.loads(checks[0]))
    evaluation = benchmarks("spelled_evaluation")
    assert evaluation.weights_folder(tmp_path / "whole", 4).name == "00000004"
    with pytest.raises(InputError, match="there are those of 4, 8"):
        evaluation.weights_folder(tmp_path / "whole", 5)


def test_a_missing_part_is_named(benchmarks, data):
    speech = benchmarks("spelled_speech")
    stream = make_stream(speech, data)
    stream.stages = (speech.Stage(until_step=None, parts={"sequences": 1}, longest=80),)
    with pytest.raises(InputError, match=r"sequences-000.json is missing.*command 'data'"):
        stream.make(0, 0, "tts")


def test_errors_are_counted_over_all_and_over_unseen_words(benchmarks):
    evaluation = benchmarks("spelled_evaluation")
    errors = evaluation.count_errors(
        ["the red dog", "a big vault"], ["the bread dog", "a big vault too"], {"red", "vault"}
    )
    assert (errors.items, errors.words, errors.unseen) == (2, 6, 2)
    assert errors.wer == pytest.approx(2 / 6)
    assert errors.unseen_wrong == pytest.approx(1 / 2)


def test_lengths_follow_letters_and_words(benchmarks):
    evaluation, data = benchmarks("spelled_evaluation"), benchmarks("spelled_data")
    said = ["a", "red", "red dog", "the red dog", "seventeen old dogs"]
    rows = [
        data.Utterance(
            text=text, gender=gender, start=0, frames=2 * len(text) + 3 * len(text.split()) + slow
        )
        for gender, slow in (("female", 4), ("male", 9))
        for text in said
    ]
    weights = evaluation.fit_frames(rows)
    torch.testing.assert_close(weights["male"], torch.tensor([2.0, 3.0, 9.0]), atol=1e-3, rtol=0)
    for text in said:
        exact = 2 * len(text) + 3 * len(text.split()) + 4
        assert exact + 2 <= evaluation.frames_for(text, weights["female"]) <= exact + 6


def test_an_item_says_the_same_whatever_its_neighbours(benchmarks):
    evaluation = benchmarks("spelled_evaluation")
    variant = tiny_variant()
    model = (random_backbone(variant), variant, random_codec(), StubEncoder())
    given = [("one two", 12), ("three", 8), ("four five six", 16)]
    waves = evaluation.say(*model, given)
    assert [len(wave) for wave in waves] == [12 * 1024, 8 * 1024, 16 * 1024]
    torch.testing.assert_close(evaluation.say(*model, given[:1])[0], waves[0], atol=1e-4, rtol=1e-3)
    assert not np.allclose(waves[0][: 8 * 1024], waves[1])


def test_frozen_states_tell_letters_and_places(benchmarks, texts, monkeypatch, tmp_path):
    module, probing = benchmarks("spelled_data"), benchmarks("spelled_probe")
    monkeypatch.setattr(module, "recording", tone)
    encoder = MiniLmEncoder(TextSetup(picks=module.LAYERS))
    parts = {"sentences": 1, "unseen_words": 1}
    module.build(
        tmp_path, texts, random_codec(), encoder, parts=parts, modes=("spelled",), count=24
    )
    train, test = (module.SpeechParts(tmp_path, "spelled", {k: 1}, (1, 6)) for k in parts)
    states, symbols, places = probing.letters(test, 1)
    said = module.read_index(tmp_path / "unseen_words-000.json")[0].text
    told = [probing.SYMBOLS[symbol] for symbol in symbols[:, 1].tolist()]
    assert "".join(told).replace("|", " ") == said
    assert symbols[0, 0] == symbols[-1, 2] == -1
    assert states.shape == (len(said), 2, 384)
    assert places.tolist() == list(range(len(said)))
    (own, before, _, away), (_, _, _, away_last) = probing.probe(train, test, 24)
    assert own > 0.95
    assert before > 0.6
    assert away < away_last


def test_the_table_has_the_newest_scores_and_the_figure_the_losses(benchmarks, tmp_path, capsys):
    evaluation = benchmarks("spelled_evaluation")
    row = {"system": "spelled", "step": 4, "set": "unseen_words", "items": 2, "words": 9}
    scores = [
        {**row, "wer": 0.9, "unseen": 2, "unseen_wrong": 0.5},
        {**row, "wer": 0.8, "unseen": 2, "unseen_wrong": 0.5},
        {**row, "set": "unseen_sentences", "wer": 0.7, "unseen": 0, "unseen_wrong": float("nan")},
    ]
    (tmp_path / "judged.jsonl").write_text("".join(json.dumps(line) + "\n" for line in scores))
    run = tmp_path / "runs" / "spelled"
    run.mkdir(parents=True)
    losses = {"step": 4, "unseen_words": 0.5, "unseen_words, other text": 0.7}
    (run / "validation.jsonl").write_text(json.dumps(losses) + "\n")
    evaluation.write_table(tmp_path, tmp_path / "losses.png")
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| spelled | 4 | unseen words | 2 | 80.0% | 50.0% of 2 |",
        "| spelled | 4 | unseen sentences | 2 | 70.0% |  |",
    ]
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")

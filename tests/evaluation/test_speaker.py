import numpy as np
import pytest
import torch
from tiny_listeners import write_gender, write_voices

from unison_audio.errors import InputError
from unison_audio.evaluation.models import speaker as voices

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
    judge = voices.Wav2Vec2Gender(write_gender(tmp_path, hears, labels))
    waves = [noise(4000), np.zeros(4000, "f4"), noise(5000, 1)]
    assert judge.genders(waves) == [gender, "", gender]
    assert judge.model == tmp_path.name


def test_a_classifier_of_something_else_is_refused(tmp_path):
    folder = write_gender(tmp_path, "dog", ("dog", "cat"))
    with pytest.raises(InputError, match="tells dog, cat where"):
        voices.Wav2Vec2Gender(folder)


def test_a_model_without_its_head_is_refused(tmp_path):
    folder = write_voices(tmp_path)  # WavLM's encoder and x-vectors, not a classifier
    with pytest.raises(InputError, match="lacks"):
        voices.Wav2Vec2Gender(folder)


def test_pitch_tells_real_voices(recordings):
    judge = voices.PitchGender()
    told = dict(
        zip(
            recordings,
            judge.genders([wave.numpy() for wave, _ in recordings.values()]),
            strict=True,
        )
    )
    assert {name[:3]: gender for name, gender in told.items()} == {"rms": "male", "slt": "female"}
    assert judge.genders([np.zeros(RATE, "f4")]) == [""]
    assert judge.model == "median F0, 150 Hz"


def test_wavlm_as_its_library_computes(tmp_path):
    from transformers import WavLMForXVector

    folder = write_voices(tmp_path)
    waves = [noise(RATE), noise(12_000, 1), 3 * noise(RATE, 2)]
    told = voices.WavLMVoices(folder).embed(waves)
    net = WavLMForXVector.from_pretrained(folder).eval()
    for wave, vector in zip(waves, told, strict=True):
        normal = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        with torch.no_grad():
            expected = net(torch.from_numpy(normal)[None]).embeddings[0]
        torch.testing.assert_close(vector, expected / expected.norm(), atol=1e-5, rtol=0)
    assert float(voices.WavLMVoices(folder).embed([np.zeros(RATE, "f4")])[0].norm()) == 0.0

import math

import pytest
import torch

from unison_audio.errors import InputError
from unison_audio.evaluation.models.aisfx import SoundEncoder
from unison_audio.evaluation.models.speech_quality import package_folder
from unison_audio.nano.event_classifier import JointEncoder

RATE = 16_000


def sounds():
    time = torch.arange(RATE) / RATE
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, RATE, generator=generator)
    return {
        "beep": torch.sin(2 * math.pi * 1000 * time),
        "higher beep": torch.sin(2 * math.pi * 1100 * time),
        "hiss": noise[0],
        "other hiss": noise[1],
        "knocks": noise[2] * torch.exp(-40 * (time % 0.25)),
    }


def test_sounds_of_a_kind_are_alike():
    try:
        package_folder("aisfx")
    except InputError:
        pytest.skip("needs aisfx")
    encoder = SoundEncoder()
    heard = {name: encoder.features(wave, RATE) for name, wave in sounds().items()}
    assert all(vector.shape == (1024,) for vector in heard.values())
    assert all((vector >= 0).all() for vector in heard.values())  # after a ReLU

    def apart(a, b):
        return float((heard[a] - heard[b]).norm())

    assert apart("hiss", "other hiss") < 0.5 * min(apart("hiss", "beep"), apart("hiss", "knocks"))
    assert apart("beep", "higher beep") < 0.7 * apart("beep", "knocks")
    quiet = encoder.features(0.01 * sounds()["hiss"], RATE)
    torch.testing.assert_close(quiet, heard["hiss"], atol=1e-3, rtol=1e-3)
    assert encoder.features(sounds()["hiss"][:800], RATE).shape == (1024,)


def test_a_joint_encoder_joins():
    class Constant:
        def __init__(self, *values):
            self.values = torch.tensor(values)

        def features(self, waveform, sample_rate):
            return self.values

    joint = JointEncoder([Constant(1.0, 2.0), Constant(3.0)])
    assert joint.features(torch.zeros(10), RATE).tolist() == [1.0, 2.0, 3.0]

import numpy as np
import pytest
import torch

from unison_audio.evaluation.metrics.signal import LSD_EPS, LSD_N_FFT, lsd, window_contrasts
from unison_audio.evaluation.test_sets.scenes import FLOOR_DBFS
from unison_audio.nano.metrics import SILENCE, nearest_is_own

RATE = 1000


def test_windows_stand_above_what_is_outside():
    wave = torch.full((4 * RATE,), 0.01)
    wave[RATE : 2 * RATE] = 0.1
    wave[2 * RATE : 3 * RATE] = 0.01 * 10**0.25
    contrasts = window_contrasts(wave, [(1.0, 2.0), (2.0, 3.0)], RATE, FLOOR_DBFS)
    assert contrasts == pytest.approx([20.0, 5.0], abs=0.01)


def test_a_silent_window_is_no_lower_than_a_recording_can_be():
    wave = torch.full((4 * RATE,), 0.01)  # -40 dBFS around a window of digital silence
    wave[RATE : 2 * RATE] = 0.0
    assert window_contrasts(wave, [(1.0, 2.0)], RATE, FLOOR_DBFS) == pytest.approx(
        [FLOOR_DBFS + 40], abs=0.01
    )


def test_digital_silence_is_as_near_as_a_noise_floor():
    rate, generator = 16_000, torch.Generator().manual_seed(0)
    noise = torch.randn(3, rate, generator=generator)
    target = 10 ** (FLOOR_DBFS / 20) * noise[:1]
    silent, audible = torch.zeros(1, rate), 10 ** ((FLOOR_DBFS + 20) / 20) * noise[1:2]

    def distance(wave, eps):
        return float(lsd(target, wave, rate, eps=eps))

    assert distance(silent, LSD_EPS) > distance(audible, LSD_EPS)
    assert distance(silent, SILENCE) < 0.15
    assert distance(audible, SILENCE) > 0.5
    power = (
        torch.stft(
            10 ** ((FLOOR_DBFS + 6) / 20) * noise[2],
            LSD_N_FFT,
            return_complex=True,
            window=torch.hann_window(LSD_N_FFT),
        )
        .abs()
        .square()
    )
    assert pytest.approx(float(power[:, 4:-4].mean()), rel=0.1) == SILENCE


def test_windows_over_everything_have_nothing_to_stand_above():
    assert window_contrasts(torch.ones(RATE), [(0.0, 0.95)], RATE, FLOOR_DBFS) == []


def test_own_voice_must_be_nearest():
    own, other = np.array([1.0, 0.0]), np.array([[0.0, 1.0], [0.6, 0.8]])
    assert nearest_is_own(own, [other], np.array([0.9, 0.44]))
    assert not nearest_is_own(own, [other], np.array([0.2, 0.98]))

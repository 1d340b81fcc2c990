import math

import pytest
import torch

from unison_audio.errors import InputError
from unison_audio.evaluation.metrics import signal as metrics
from unison_audio.nano.event_model import gender_threshold

RATE = 16_000


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def harmonics(f0, seconds=1.0, rate=RATE, count=12):
    time = torch.arange(round(seconds * rate)) / rate
    return sum(torch.sin(2 * math.pi * k * f0 * time) / k for k in range(1, count + 1)) * 0.2


class TestLsd:
    def test_a_gain_moves_every_bin_alike(self):
        wave = noise(2, RATE)
        expected = 2 * abs(math.log10(0.25))  # log10 of a power ratio
        torch.testing.assert_close(
            metrics.lsd(wave, 0.25 * wave, RATE), torch.full((2,), expected), atol=1e-3, rtol=0
        )

    def test_zero_for_equal_and_symmetric(self):
        a, b = noise(1, RATE), noise(1, RATE, seed=1)
        assert float(metrics.lsd(a, a, RATE)) == 0.0
        torch.testing.assert_close(metrics.lsd(a, b, RATE), metrics.lsd(b, a, RATE))

    def test_independent_implementation(self):
        scipy = pytest.importorskip("scipy.signal")
        numpy = pytest.importorskip("numpy")
        a, b = noise(1, RATE), noise(1, RATE, seed=1)
        powers = []
        for wave in (a, b):
            padded = numpy.pad(wave[0].double().numpy(), 1024)
            window = scipy.get_window("hann", 2048)
            starts = range(0, len(padded) - 2048 + 1, RATE // 100)
            frames = numpy.stack([padded[s : s + 2048] * window for s in starts])
            powers.append(numpy.abs(numpy.fft.rfft(frames)) ** 2 + 1e-12)
        ratio = numpy.log10(powers[0] / powers[1])
        expected = numpy.sqrt((ratio**2).mean(axis=1)).mean()
        assert float(metrics.lsd(a, b, RATE)) == pytest.approx(expected, rel=1e-4)

    def test_silence_is_finite(self):
        distance = metrics.lsd(torch.zeros(1, RATE), noise(1, RATE), RATE)
        assert torch.isfinite(distance).all()

    def test_refuses_other_shapes(self):
        with pytest.raises(InputError, match="equal shape"):
            metrics.lsd(noise(1, 100), noise(1, 101), RATE)


class TestDistanceWhereEqual:
    def test_a_gain_counts_only_where_both_are_alike(self):
        one = noise(2, RATE)
        other = one.clone()
        other[:, RATE // 2 :] += noise(2, RATE // 2, seed=1)
        estimate = torch.cat((0.5 * one[:, : RATE // 2], 0.01 * one[:, RATE // 2 :]), dim=1)
        found = metrics.distance_where_equal(
            one[:, : RATE // 2], other[:, : RATE // 2], estimate[:, : RATE // 2], RATE
        )
        torch.testing.assert_close(found, torch.full((2,), 2 * math.log10(2)), atol=1e-2, rtol=0)
        whole = metrics.distance_where_equal(one, other, estimate, RATE)
        assert bool((whole > found).all())  # by chance some bins of the other half are alike too
        assert bool((whole < 0.7 * metrics.lsd(one, estimate, RATE)).all())

    def test_nothing_alike_is_unknown(self):
        one = noise(1, RATE)
        assert metrics.distance_where_equal(one, 10 * one, one, RATE).isnan().all()


class TestMelDistance:
    def test_a_gain_shifts_the_logarithm(self):
        wave = noise(1, RATE)
        distance = metrics.mel_distance(wave, 0.5 * wave, RATE)
        assert float(distance) == pytest.approx(math.log(2), abs=1e-4)

    def test_grows_with_noise(self):
        clean = harmonics(150)[None]
        little = metrics.mel_distance(clean, clean + noise(1, RATE) * 0.01, RATE)
        much = metrics.mel_distance(clean, clean + noise(1, RATE), RATE)
        assert 0 < float(little) < float(much)


class TestSiSdr:
    def test_orthogonal_noise_of_known_level(self):
        time = torch.arange(RATE) / RATE
        signal = torch.sin(2 * math.pi * 100 * time)[None]
        other = torch.sin(2 * math.pi * 300 * time)[None]  # orthogonal over whole periods
        measured = metrics.si_sdr(signal, 3.0 * (signal + 0.1 * other) + 0.5)
        assert float(measured) == pytest.approx(20.0, abs=0.01)


class TestWords:
    @pytest.mark.parametrize(
        ("said", "heard", "rate"),
        [
            ("the red dog", "the red dog", 0.0),
            ("The red, dog!", "the RED dog.", 0.0),
            ("the red dog", "the dog", 1 / 3),
            ("the red dog", "the big red cat", 2 / 3),
            ("dog", "a dog and cat", 3.0),
            ("dog", "", 1.0),
            ("don't go", "dont go", 0.5),
        ],
    )
    def test_word_error_rate(self, said, heard, rate):
        assert metrics.word_error_rate(said, heard) == pytest.approx(rate)

    def test_recall_leaves_insertions_out(self):
        assert metrics.word_recall("red dog", "the red big dog now") == 1.0
        assert metrics.word_recall("red dog cat six", "red cow cat") == 0.5

    def test_refuses_an_empty_reference(self):
        with pytest.raises(InputError, match="no word"):
            metrics.word_error_rate("...", "dog")


class TestPitch:
    @pytest.mark.parametrize("f0", [70.0, 101.3, 147.0, 222.2, 318.0])
    def test_harmonic_tones(self, f0):
        assert metrics.median_f0(harmonics(f0), RATE) == pytest.approx(f0, rel=0.005)

    def test_missing_fundamental(self):
        wave = harmonics(120) - 0.2 * torch.sin(2 * math.pi * 120 * torch.arange(RATE) / RATE)
        assert metrics.median_f0(wave, RATE) == pytest.approx(120, rel=0.01)

    def test_pauses_and_noise_do_not_count(self):
        wave = torch.cat([torch.zeros(RATE // 2), harmonics(180), torch.zeros(RATE)])
        assert metrics.median_f0(wave + 1e-3 * noise(len(wave)), RATE) == pytest.approx(
            180, rel=0.01
        )

    @pytest.mark.parametrize("wave", [noise(RATE), torch.zeros(RATE), noise(100)])
    def test_no_pitch(self, wave):
        assert math.isnan(metrics.median_f0(wave, RATE))

    def test_real_voices(self, recordings):
        pitch = {name: metrics.median_f0(wave, RATE) for name, (wave, _) in recordings.items()}
        for name, f0 in pitch.items():
            low, high = (80, 125) if name.startswith("rms") else (150, 200)
            assert low < f0 < high, (name, f0)


class TestGender:
    def test_threshold_parts_the_voices(self):
        pitches = [90.0, 110.0, math.nan, 130.0, 160.0, 180.0, 200.0]
        genders = ["male"] * 4 + ["female"] * 3
        threshold = gender_threshold(pitches, genders)
        assert threshold == pytest.approx(math.sqrt(130 * 160))
        assert metrics.gender_of(150, threshold) == "female"
        assert metrics.gender_of(120, threshold) == "male"
        assert metrics.gender_of(math.nan, threshold) == ""

    def test_fewest_mistakes_where_they_overlap(self):
        threshold = gender_threshold(
            [100, 110, 170, 150, 160, 180], ["male", "male", "male", "female", "female", "female"]
        )
        assert 110 < threshold < 150

    def test_refuses_one_gender(self):
        with pytest.raises(InputError, match="both genders"):
            gender_threshold([100.0, 120.0], ["male", "male"])


def test_energy_inside():
    wave = torch.zeros(RATE)
    wave[:1600] = 1.0
    wave[8000:8400] = 2.0
    assert metrics.energy_inside(wave, [(0.0, 0.1)], RATE) == pytest.approx(0.5)
    assert metrics.energy_inside(wave, [(0.0, 0.1), (0.05, 0.6)], RATE) == pytest.approx(1.0)
    assert metrics.energy_inside(torch.zeros(RATE), [(0.0, 0.1)], RATE) == 0.0

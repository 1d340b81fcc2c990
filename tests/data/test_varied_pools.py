import dataclasses

import pytest
import torch
from training.conftest import RATE, make_clips

from unison_audio.data.pools import MemoryPools, VariedPools
from unison_audio.errors import InputError
from unison_audio.nano.recipe import NANO
from unison_audio.tasks.clips import SoundClip, SpeechClip


def tone(hertz, seconds=0.5):
    return torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


def pitch(wave):
    return float(torch.fft.rfft(wave, 8 * RATE).abs().argmax()) / 8


class Tones:
    """Gives tones of 400 Hz only, a pair of 400 and 500 Hz."""

    def speech(self, count, generator, *, max_seconds):
        return self.speech_any(count, generator, max_seconds=max_seconds)

    def speech_any(self, count, generator, *, max_seconds):
        clip = SpeechClip(waveform=tone(400), text="a", gender="male", speaker="x")
        return [clip] * count

    def speaker_pairs(self, count, generator, *, max_seconds_each):
        (one,) = self.speech_any(1, generator, max_seconds=max_seconds_each)
        return [(one, dataclasses.replace(one, waveform=tone(500)))] * count

    def sounds(self, count, generator, *, exclude_labels=None, max_seconds):
        return [SoundClip(waveform=tone(400), label="a beep", caption="a beep")] * count

    def noise(self, count, generator, seconds):
        return [tone(400)] * count


def generator():
    return torch.Generator().manual_seed(5)


def test_pitch_and_length_follow_the_speed():
    faster = VariedPools(Tones(), RATE, (1.25, 1.25))
    (clip,) = faster.sounds(1, generator(), max_seconds=1.0)
    assert pitch(clip.waveform) == pytest.approx(500, abs=0.5)
    assert len(clip.waveform) == pytest.approx(0.4 * RATE, abs=1)
    assert (clip.label, clip.caption) == ("a beep", "a beep")


def test_speeds_are_drawn_evenly_in_octaves_between_their_bounds():
    varied = VariedPools(Tones(), RATE, (0.5, 2.0))
    heard = [pitch(c.waveform) for c in varied.speech_any(300, generator(), max_seconds=1.0)]
    assert 199 < min(heard) < 220
    assert 730 < max(heard) < 801
    assert 120 < sum(hertz < 400 for hertz in heard) < 180


def test_a_pair_stays_one_voice():
    varied = VariedPools(Tones(), RATE, (0.8, 1.25))
    ratios = {
        round(pitch(b.waveform) / pitch(a.waveform), 2)
        for a, b in varied.speaker_pairs(20, generator(), max_seconds_each=1.0)
    }
    assert ratios == {1.25}


def test_speech_with_its_gender_and_noise_stay_as_they_are():
    varied = VariedPools(Tones(), RATE, (0.8, 1.25))
    (clip,) = varied.speech(1, generator(), max_seconds=1.0)
    assert torch.equal(clip.waveform, tone(400))
    assert torch.equal(varied.noise(1, generator(), 1.0)[0], tone(400))


def test_slowed_utterances_keep_to_the_longest_length_and_draws_repeat():
    varied = VariedPools(MemoryPools(make_clips(), RATE), RATE, (0.7, 1.4))
    clips = varied.speech_any(200, generator(), max_seconds=0.6)
    assert 0.5 * RATE < max(len(clip.waveform) for clip in clips) <= 0.6 * RATE
    pairs = varied.speaker_pairs(100, generator(), max_seconds_each=0.6)
    assert max(len(clip.waveform) for pair in pairs for clip in pair) <= 0.6 * RATE
    again = varied.speech_any(200, generator(), max_seconds=0.6)
    for one, other in zip(clips, again, strict=True):
        assert torch.equal(one.waveform, other.waveform)


def test_excluded_labels_stay_excluded():
    varied = VariedPools(MemoryPools(make_clips(), RATE), RATE, NANO.speed)
    excluded = [{"rain", "a beep"}] * 50
    drawn = varied.sounds(50, generator(), exclude_labels=excluded, max_seconds=1.0)
    assert {sound.label for sound in drawn} == {"a buzz", "a horn"}


@pytest.mark.parametrize("speed", [(1.2, 0.9), (0.0, 1.0), (0.9, 3.0), (float("nan"), 1.0)])
def test_what_is_no_speed_is_refused(speed):
    with pytest.raises(InputError, match=r"0\.5 <= slowest <= fastest <= 2"):
        VariedPools(Tones(), RATE, speed)

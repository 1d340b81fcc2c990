import dataclasses

import pytest
import torch
from training.conftest import RATE, make_clips

from unison_audio.data.pools import MemoryPools, VariedPools
from unison_audio.data.records import Clip
from unison_audio.errors import InputError
from unison_audio.nano.recipe import NANO
from unison_audio.tasks.clips import ClipLimits


def tone(hertz, seconds=0.5):
    return torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


def pitch(wave):
    return float(torch.fft.rfft(wave, 8 * RATE).abs().argmax()) / 8


class Tones:
    """Gives tones of 400 Hz only, a pair of 400 and 500 Hz."""

    def draw(self, kind, count, where, generator):
        about = {"label": "a beep", "caption": "a beep"} if kind == "sound" else {"text": "a"}
        record = dataclasses.replace(make_clips()[0].record, kind=kind, **about)
        clips = [Clip(record=record, waveform=tone(hertz)) for hertz in (400, 500)]
        return (clips if kind == "speaker_pair" else clips[:1]) * count


def generator():
    return torch.Generator().manual_seed(5)


def test_pitch_and_length_follow_the_speed():
    faster = VariedPools(Tones(), RATE, (1.25, 1.25))
    (clip,) = faster.draw("sound", 1, ClipLimits(max_seconds=1.0), generator())
    assert pitch(clip.waveform) == pytest.approx(500, abs=0.5)
    assert len(clip.waveform) == pytest.approx(0.4 * RATE, abs=1)
    assert (clip.record.label, clip.record.caption) == ("a beep", "a beep")


def test_speeds_are_drawn_evenly_in_octaves_between_their_bounds():
    varied = VariedPools(Tones(), RATE, (0.5, 2.0))
    heard = [
        pitch(c.waveform)
        for c in varied.draw("speech_any", 300, ClipLimits(max_seconds=1.0), generator())
    ]
    assert 199 < min(heard) < 220
    assert 730 < max(heard) < 801
    assert 120 < sum(hertz < 400 for hertz in heard) < 180


def test_a_pair_stays_one_voice():
    varied = VariedPools(Tones(), RATE, (0.8, 1.25))
    clips = varied.draw("speaker_pair", 20, ClipLimits(max_seconds=1.0), generator())
    pitches = [pitch(clip.waveform) for clip in clips]
    ratios = {round(b / a, 2) for a, b in zip(pitches[::2], pitches[1::2], strict=True)}
    assert len(set(pitches)) > 20
    assert ratios == {1.25}


def test_speech_with_its_gender_and_noise_stay_as_they_are():
    varied = VariedPools(Tones(), RATE, (0.8, 1.25))
    (clip,) = varied.draw("speech", 1, ClipLimits(max_seconds=1.0), generator())
    assert torch.equal(clip.waveform, tone(400))
    assert torch.equal(
        varied.draw("noise", 1, ClipLimits(max_seconds=1.0), generator())[0].waveform, tone(400)
    )


def test_slowed_utterances_keep_to_the_longest_length_and_draws_repeat():
    varied = VariedPools(MemoryPools(make_clips(), RATE), RATE, (0.7, 1.4))
    clips = varied.draw("speech_any", 200, ClipLimits(max_seconds=0.6), generator())
    assert 0.5 * RATE < max(len(clip.waveform) for clip in clips) <= 0.6 * RATE
    pairs = varied.draw("speaker_pair", 100, ClipLimits(max_seconds=0.6), generator())
    assert max(len(clip.waveform) for clip in pairs) <= 0.6 * RATE
    again = varied.draw("speech_any", 200, ClipLimits(max_seconds=0.6), generator())
    for one, other in zip(clips, again, strict=True):
        assert torch.equal(one.waveform, other.waveform)


def test_excluded_labels_stay_excluded():
    varied = VariedPools(MemoryPools(make_clips(), RATE), RATE, NANO.speed)
    excluded = [{"rain", "a beep"}] * 50
    drawn = varied.draw(
        "sound", 50, ClipLimits(max_seconds=1.0, exclude_labels=excluded), generator()
    )
    assert {sound.record.label for sound in drawn} == {"a buzz", "a horn"}


@pytest.mark.parametrize("speed", [(1.2, 0.9), (0.0, 1.0), (0.9, 3.0), (float("nan"), 1.0)])
def test_what_is_no_speed_is_refused(speed):
    with pytest.raises(InputError, match=r"0\.5 <= slowest <= fastest <= 2"):
        VariedPools(Tones(), RATE, speed)

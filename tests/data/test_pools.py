import dataclasses

import pytest
import torch
from training.conftest import RATE, make_clips

from unison_audio.data.pools import MemoryPools, coloured_noise, plain_caption
from unison_audio.data.records import Clip
from unison_audio.errors import InputError


@pytest.fixture(scope="module")
def pools():
    return MemoryPools(make_clips(), RATE)


def generator():
    return torch.Generator().manual_seed(3)


def test_speech_keeps_to_the_longest_length_and_has_words(pools):
    drawn = pools.speech(200, generator(), max_seconds=0.5)
    assert max(len(clip.waveform) for clip in drawn) <= 0.5 * RATE
    assert all(clip.text for clip in drawn)
    assert len({len(clip.waveform) for clip in drawn}) > 5


def test_only_short_texts_where_words_are_limited():
    pools = MemoryPools(make_clips(), RATE, max_words=1)
    drawn = pools.speech(50, generator(), max_seconds=2.0)
    assert {len(clip.text.split()) for clip in drawn} == {1}


def test_pairs_are_two_utterances_of_one_speaker(pools):
    for first, second in pools.speaker_pairs(100, generator(), max_seconds_each=0.6):
        assert first.speaker == second.speaker
        assert first.waveform.shape != second.waveform.shape


def test_sounds_are_drawn_evenly_by_label_and_never_an_excluded_one(pools):
    drawn = pools.sounds(400, generator(), max_seconds=1.0)
    for label in pools.labels:
        assert 60 <= sum(sound.label == label for sound in drawn) <= 140
    excluded = [{"rain", "a beep"}] * 50
    drawn = pools.sounds(50, generator(), exclude_labels=excluded, max_seconds=1.0)
    assert {sound.label for sound in drawn} == {"a buzz", "a horn"}


def test_the_same_generator_gives_the_same_draw(pools):
    for draw in (
        lambda g: [c.waveform for c in pools.speech(5, g, max_seconds=1.0)],
        lambda g: [c.waveform for c in pools.sounds(5, g, max_seconds=1.0)],
        lambda g: pools.noise(5, g, 0.5),
    ):
        for ours, theirs in zip(draw(generator()), draw(generator()), strict=True):
            assert torch.equal(ours, theirs)


def test_nothing_short_enough_is_an_error(pools):
    with pytest.raises(InputError, match=r"no utterance of at most 0\.01 s"):
        pools.speech(1, generator(), max_seconds=0.01)
    sounds = MemoryPools([clip for clip in make_clips() if clip.record.kind == "sound"], RATE)
    with pytest.raises(InputError, match="no utterance"):
        sounds.speech(1, generator(), max_seconds=1.0)
    speech = MemoryPools([clip for clip in make_clips() if clip.record.kind == "speech"], RATE)
    with pytest.raises(InputError, match="sounds of 0 kinds, and another kind is needed"):
        speech.sounds(1, generator(), max_seconds=1.0)
    with pytest.raises(InputError, match="neither speech nor sound"):
        MemoryPools([], RATE)


def test_labels_are_drawn_by_their_weights():
    weights = {"a beep": 3.0, "a buzz": 1.0}
    pools = MemoryPools(make_clips(), RATE, label_weights=weights)
    drawn = [clip.label for clip in pools.sounds(400, generator(), max_seconds=1.0)]
    assert set(drawn) == set(weights)
    assert abs(drawn.count("a beep") / 400 - 0.75) < 0.07


def test_a_sound_without_a_label_goes_by_what_its_caption_says():
    record = dataclasses.replace(make_clips()[-1].record, label="", caption="A gong is struck.")
    clip = Clip(record=record, waveform=torch.ones(100))
    pools = MemoryPools([clip], RATE)
    assert pools.labels == ["a gong is struck"]
    (drawn,) = pools.sounds(1, generator(), max_seconds=1.0)
    assert drawn.label == "a gong is struck"
    with pytest.raises(InputError, match="another kind is needed"):
        pools.sounds(1, generator(), exclude_labels=[{"a gong is struck"}], max_seconds=1.0)


def test_coloured_noise_falls_off_as_asked():
    for slope in (0.0, 1.0, 2.0):
        noise = coloured_noise(1 << 16, slope, generator())
        assert abs(float(noise.square().mean().sqrt()) - 0.1) < 1e-6
        power = torch.fft.rfft(noise).abs().square()
        low, high = power[256:512].mean(), power[8192:16384].mean()
        octaves = 5.0
        assert abs(float((low / high).log2()) / octaves - slope) < 0.2


def test_captions_become_phrases():
    assert plain_caption("A dog barks.") == "a dog barks"
    assert plain_caption("") == ""

import dataclasses

import pytest
import torch
from training.conftest import RATE, make_clips

from unison_audio.data.captions import plain_caption
from unison_audio.data.pools import MemoryPools, colored_noise
from unison_audio.data.records import Clip
from unison_audio.errors import InputError
from unison_audio.tasks.clips import ClipLimits


@pytest.fixture(scope="module")
def pools():
    return MemoryPools(make_clips(), RATE)


def generator():
    return torch.Generator().manual_seed(3)


def test_speech_keeps_to_the_longest_length_and_has_words(pools):
    drawn = pools.draw("speech", 200, ClipLimits(max_seconds=0.5), generator())
    assert max(len(clip.waveform) for clip in drawn) <= 0.5 * RATE
    assert all(clip.record.text for clip in drawn)
    assert len({len(clip.waveform) for clip in drawn}) > 5


def test_only_short_texts_where_words_are_limited():
    pools = MemoryPools(make_clips(), RATE, max_words=1)
    drawn = pools.draw("speech", 50, ClipLimits(max_seconds=2.0), generator())
    assert {len(clip.record.text.split()) for clip in drawn} == {1}


def test_pairs_are_two_utterances_of_one_speaker(pools):
    clips = pools.draw("speaker_pair", 100, ClipLimits(max_seconds=0.6), generator())
    for first, second in zip(clips[::2], clips[1::2], strict=True):
        assert first.record.speaker == second.record.speaker
        assert first.waveform.shape != second.waveform.shape


def test_sounds_are_drawn_evenly_by_label_and_never_an_excluded_one(pools):
    drawn = pools.draw("sound", 400, ClipLimits(max_seconds=1.0), generator())
    for label in pools.labels:
        assert 60 <= sum(sound.record.label == label for sound in drawn) <= 140
    excluded = [{"rain", "a beep"}] * 50
    drawn = pools.draw(
        "sound", 50, ClipLimits(max_seconds=1.0, exclude_labels=excluded), generator()
    )
    assert {sound.record.label for sound in drawn} == {"a buzz", "a horn"}


def test_the_same_generator_gives_the_same_draw(pools):
    for draw in (
        lambda g: [c.waveform for c in pools.draw("speech", 5, ClipLimits(max_seconds=1.0), g)],
        lambda g: [c.waveform for c in pools.draw("sound", 5, ClipLimits(max_seconds=1.0), g)],
        lambda g: [c.waveform for c in pools.draw("noise", 5, ClipLimits(max_seconds=0.5), g)],
    ):
        for ours, theirs in zip(draw(generator()), draw(generator()), strict=True):
            assert torch.equal(ours, theirs)


def test_nothing_short_enough_is_an_error(pools):
    with pytest.raises(InputError, match=r"no utterance of at most 0\.01 s"):
        pools.draw("speech", 1, ClipLimits(max_seconds=0.01), generator())
    sounds = MemoryPools([clip for clip in make_clips() if clip.record.kind == "sound"], RATE)
    with pytest.raises(InputError, match="no utterance"):
        sounds.draw("speech", 1, ClipLimits(max_seconds=1.0), generator())
    speech = MemoryPools([clip for clip in make_clips() if clip.record.kind == "speech"], RATE)
    with pytest.raises(InputError, match="sounds of 0 kinds, and another kind is needed"):
        speech.draw("sound", 1, ClipLimits(max_seconds=1.0), generator())
    with pytest.raises(InputError, match="neither speech nor sound"):
        MemoryPools([], RATE)


def test_labels_are_drawn_by_their_weights():
    weights = {"a beep": 3.0, "a buzz": 1.0}
    pools = MemoryPools(make_clips(), RATE, label_weights=weights)
    drawn = [
        clip.record.label
        for clip in pools.draw("sound", 400, ClipLimits(max_seconds=1.0), generator())
    ]
    assert set(drawn) == set(weights)
    assert abs(drawn.count("a beep") / 400 - 0.75) < 0.07


def test_a_sound_without_a_label_goes_by_what_its_caption_says():
    record = dataclasses.replace(make_clips()[-1].record, label="", caption="A gong is struck.")
    clip = Clip(record=record, waveform=torch.ones(100))
    pools = MemoryPools([clip], RATE)
    assert pools.labels == ["a gong is struck"]
    (drawn,) = pools.draw("sound", 1, ClipLimits(max_seconds=1.0), generator())
    assert drawn.record.label == "a gong is struck"
    with pytest.raises(InputError, match="another kind is needed"):
        pools.draw(
            "sound",
            1,
            ClipLimits(max_seconds=1.0, exclude_labels=[{"a gong is struck"}]),
            generator(),
        )


def test_colored_noise_falls_off_as_asked():
    for slope in (0.0, 1.0, 2.0):
        noise = colored_noise(1 << 16, slope, generator())
        assert abs(float(noise.square().mean().sqrt()) - 0.1) < 1e-6
        power = torch.fft.rfft(noise).abs().square()
        low, high = power[256:512].mean(), power[8192:16384].mean()
        octaves = 5.0
        assert abs(float((low / high).log2()) / octaves - slope) < 0.2


def test_captions_become_phrases():
    assert plain_caption("A dog barks.") == "a dog barks"
    assert plain_caption("") == ""

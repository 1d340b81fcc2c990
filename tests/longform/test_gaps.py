"""Filled gaps: exact outside them, joined inside, laid out in windows, refused where needed."""

import dataclasses
import itertools

import numpy as np
import pytest
import soundfile
import torch

from unison_audio.audio import Audio
from unison_audio.errors import InputError
from unison_audio.frame_layout import MAX_GAP_GAIN
from unison_audio.inputs import ItemInputs, prepare
from unison_audio.longform.extraction import removal_of
from unison_audio.longform.gap_fill import fill_recording
from unison_audio.longform.gap_plan import (
    Extension,
    plan_extension,
    plan_gap_windows,
    plan_inpainting,
)
from unison_audio.longform.native_audio import open_recording
from unison_audio.longform.surroundings import Surroundings, mirror
from unison_audio.pipeline import Unison
from unison_audio.request_batches import pad_conditions
from unison_audio.tasks.conditioning import condition, condition_gap
from unison_audio.tasks.table import TASKS
from unison_audio.tasks.times import parse_length
from unison_audio.variants import VARIANTS

RAIN = "[Audio] rain"
SPEAK = '[Speech] A male voice saying "red dog"'


class Constant:
    """In place of the model: a constant sound, and a record of what was asked."""

    def __init__(self, level: float = 0.25) -> None:
        self.variant = VARIANTS["nano"]
        self.level = level
        self.asked: list[Surroundings] = []
        self.seeds: list[int] = []

    def generate(self, instruction, *, surroundings, seed, **options):
        self.asked += surroundings
        self.seeds += seed
        rate = self.variant.sample_rate
        return [Audio(torch.full((len(s.waveform),), self.level), rate) for s in surroundings]


def stored(path, rate=24_000, channels=2, coding="PCM_24", seconds=6.0):
    values = np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels))
    soundfile.write(path, values.clip(-0.9, 0.9), rate, coding)
    return path


def samples(recording):
    return recording.read(0, recording.frames)


@pytest.mark.parametrize(
    ("rate", "channels", "coding"),
    [(8_000, 1, "PCM_16"), (22_050, 2, "FLOAT"), (44_100, 1, "PCM_24"), (48_000, 2, "PCM_U8")],
)
def test_outside_the_gaps_nothing_changes(tmp_path, rate, channels, coding):
    path = stored(tmp_path / "in.wav", rate, channels, coding)
    before = samples(open_recording(path))
    nano = VARIANTS["nano"]
    filled = fill_recording(Constant(), plan_inpainting(nano, RAIN, path, [(1, 1.5), (4, 6)]))
    after = samples(filled)
    inside = np.zeros(len(before), dtype=bool)
    for start, stop in ((1, 1.5), (4, 6)):
        inside[round(start * rate) : round(stop * rate)] = True
    assert np.array_equal(after[~inside], before[~inside])
    assert (after[inside] != before[inside]).mean() > 0.9
    assert (filled.coding, filled.sample_rate, after.dtype) == (coding, rate, before.dtype)
    longer = fill_recording(
        Constant(), plan_extension(nano, RAIN, path, Extension(before=0.5, after=7))
    )
    after, first = samples(longer), round(0.5 * rate)
    assert len(after) == len(before) + round(7.5 * rate)
    assert np.array_equal(after[first : first + len(before)], before)


def test_a_gap_is_joined_without_steps():
    rate = 48_000
    tone = 0.2 * np.sin(2 * np.pi * 50 * np.arange(4 * rate) / rate).astype(np.float32)
    filled = fill_recording(
        Constant(), plan_inpainting(VARIANTS["nano"], RAIN, (tone, rate), [(1.0, 2.3)])
    )
    wave = samples(filled)[:, 0]
    # The fade of 20 ms from the tone to the constant has a slope of its own, about 0.25 / 500.
    assert np.abs(np.diff(wave)).max() < 4 * np.abs(np.diff(tone)).max()
    assert wave[round(1.6 * rate)] == pytest.approx(0.25, abs=1e-3)


def test_channels_keep_their_levels_and_the_ends_are_faded():
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * 16_000).astype(np.float32)
    both = np.stack([1.5 * noise, 0.5 * noise])
    filling = plan_extension(VARIANTS["nano"], RAIN, (both, 16_000), Extension(after=1))
    new = samples(fill_recording(Constant(0.2), filling))[4 * 16_000 :]
    assert new[8_000] == pytest.approx([0.3, 0.1], abs=1e-3)
    assert np.abs(new[-1]).max() < 1e-3


@pytest.mark.parametrize(
    ("sides", "gap"),
    [
        ((0, 40_000), 30_000),
        ((40_000, 0), 300_000),
        ((0, 9_000), 200_000),
        ((32_768, 32_768), 24_000),
        ((32_768, 32_768), 70_000),
        ((5, 7), 1_000),
    ],
)
def test_windows_fill_a_gap_once_and_fit_the_model(sides, gap):
    windows = plan_gap_windows(sides, gap, 81_920, 1024)
    filled = sorted((window.begin, window.end) for window in windows)
    assert filled[0][0] == sides[0]
    assert filled[-1][1] == sides[0] + gap
    assert all(left[1] == right[0] for left, right in itertools.pairwise(filled))
    for window in windows:
        assert 0 <= window.start <= window.begin < window.end <= window.stop <= sum(sides) + gap
        assert window.stop - window.start <= 81_920
    if windows[0].begin == sides[0] and sides[0]:  # whole frames of the codec before the gap
        assert (windows[0].begin - windows[0].start) % 1024 == 0
    # Each window but a lone one knows something: the recording, or what another one filled.
    assert all(window.start < window.begin or window.end < window.stop for window in windows)


def test_a_long_gap_is_filled_from_what_is_known(tmp_path):
    model, path = Constant(), stored(tmp_path / "x.wav", 16_000, 1, seconds=3)
    fill_recording(model, plan_extension(model.variant, RAIN, path, Extension(after=9)))
    assert len(model.asked) == len(set(model.seeds)) > 2
    later = model.asked[1]
    assert later.waveform[later.start // 2] == pytest.approx(0.25)  # what the first window made
    backward = Constant()
    fill_recording(backward, plan_extension(model.variant, RAIN, path, Extension(before=9)))
    first = backward.asked[0]
    assert first.stop < len(first.waveform)
    assert first.start == 0


def test_regions_that_touch_are_one_gap(tmp_path):
    path = stored(tmp_path / "x.wav")
    filling = plan_inpainting(VARIANTS["nano"], RAIN, path, [(2, 3), (1, 2), (4, 4.5)])
    assert filling.gaps == [(24_000, 72_000), (96_000, 108_000)]


@pytest.mark.parametrize(
    ("instruction", "regions", "message"),
    [
        (RAIN, [], "No region"),
        (RAIN, [(0, 6)], "nothing is known around"),
        (RAIN, [(5, 7)], "past the end"),
        ("[Edit][Audio] Remove rain", [(1, 2)], "needs a source"),
        ("[Audio] From 1s to 2s, rain.", [(1, 2)], "leave the times out"),
        (SPEAK, [(1, 5)], "filled with speech"),
    ],
)
def test_inpainting_that_is_refused(tmp_path, instruction, regions, message):
    path = stored(tmp_path / "x.wav")
    with pytest.raises(InputError, match=message):
        plan_inpainting(VARIANTS["nano"], instruction, path, regions)


@pytest.mark.parametrize(
    ("extension", "message"),
    [
        (Extension(), "No extension"),
        (Extension(after=-1), "cannot be extended"),
        (Extension(before=float("nan")), "cannot be extended"),
        (Extension(after=0.01), "shorter than"),
        (Extension(after=99_999), "at most 3600"),
        (Extension(after="3"), "give a number"),
    ],
)
def test_extensions_that_are_refused(tmp_path, extension, message):
    with pytest.raises(InputError, match=message):
        plan_extension(VARIANTS["nano"], RAIN, stored(tmp_path / "x.wav"), extension)


@pytest.mark.parametrize(
    ("text", "seconds"), [("3", 3.0), ("1.5 s", 1.5), ("0:03", 3.0), ("2 minutes", 120.0)]
)
def test_lengths(text, seconds):
    assert parse_length(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "1 2", "1-2", "3 bananas"])
def test_lengths_that_are_refused(text):
    with pytest.raises(InputError, match="length"):
        parse_length(text)


def test_the_mirror_goes_on_without_a_step():
    sound = torch.tensor([1.0, 2.0, 3.0])
    assert mirror(sound, 8).tolist() == [3, 2, 1, 1, 2, 3, 3, 2]
    wave = torch.arange(10.0)
    filled = Surroundings(waveform=wave, start=7, stop=10).mirrored()
    assert filled.tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 5, 4]
    before = Surroundings(waveform=wave, start=0, stop=3).mirrored()
    assert before.tolist() == [5, 4, 3, 3, 4, 5, 6, 7, 8, 9]
    inside = Surroundings(waveform=wave, start=4, stop=6)
    assert inside.known().tolist() == [0, 1, 2, 3, 6, 7, 8, 9]
    assert inside.mirrored()[[4, 5]].tolist() == pytest.approx([3, 7 - 1], abs=1)


def test_only_the_gap_is_sampled(tiny: Unison):
    codec, hop = tiny.codec, tiny.codec.hop
    wave = 0.1 * torch.randn(1, 20 * hop, generator=torch.Generator().manual_seed(0))
    given = condition_gap(codec, wave, (8, 12))
    assert not given.z_s.any()
    assert not given.m.any()
    assert given.loss_mask[0, 0].tolist() == [0.0] * 8 + [1.0] * 4 + [0.0] * 8
    known = given.known
    assert torch.equal(known[..., :8], codec.encode(wave)[..., :8])
    assert known[..., 8:12].isnan().all()
    plain = condition(codec, TASKS["t2a"], 16, 1)
    padded = pad_conditions([given, given], 24)
    assert padded.known[1, :, 20:].isnan().all()
    assert torch.equal(padded.known[1, :, :8], known[0, :, :8])
    assert pad_conditions([plain, plain], 24).known is None


def test_the_surroundings_come_out_as_the_codec_makes_them(tiny: Unison):
    hop = tiny.codec.hop
    wave = 0.1 * torch.randn(20 * hop, generator=torch.Generator().manual_seed(0))
    around = Surroundings(waveform=wave, start=8 * hop, stop=12 * hop)
    sound = tiny.generate(RAIN, surroundings=around, steps=2)
    request = prepare(tiny.variant, tiny.codec, RAIN, ItemInputs(surroundings=around))
    whole = tiny.codec.decode(tiny.codec.encode(request.layout.source[None]))[0]
    other = tiny.generate(RAIN, surroundings=around, steps=2, seed=1)
    assert sound.waveform.shape == wave.shape
    together = tiny.generate([RAIN, RAIN], surroundings=[around, None], seed=[0, 5], steps=2)
    torch.testing.assert_close(together[0].waveform, sound.waveform, atol=1e-5, rtol=1e-4)
    alone = tiny.generate(RAIN, seed=5, steps=2)
    torch.testing.assert_close(together[1].waveform, alone.waveform, atol=1e-5, rtol=1e-4)
    difference = (sound.waveform - other.waveform).abs()
    assert difference[8 * hop : 12 * hop].max() > 1e-3
    # The decoder reads a few frames to each side of a sample.
    far = slice(0, 2 * hop)
    assert difference[far].max() < 0.1 * difference.max()
    assert request.layout.gap == (8, 12)
    assert len(whole) == len(wave)


def test_faint_surroundings_do_not_make_the_new_sound_faint(tiny: Unison):
    faint = Surroundings(waveform=torch.full((8192,), 1e-4), start=2048, stop=4096)
    assert prepare(
        tiny.variant, tiny.codec, RAIN, ItemInputs(surroundings=faint)
    ).layout.gain == pytest.approx(MAX_GAP_GAIN)
    silent = dataclasses.replace(faint, waveform=torch.zeros(8192))
    assert (
        prepare(tiny.variant, tiny.codec, RAIN, ItemInputs(surroundings=silent)).layout.gain == 1.0
    )


def test_methods_of_the_pipeline(tiny: Unison):
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 3 * 8_000)).astype(np.float32)
    filled = tiny.inpaint(RAIN, (noise, 8_000), [(1, 1.5)], steps=2)
    assert np.array_equal(samples(filled)[:8_000], noise.T[:8_000])
    longer = tiny.extend(RAIN, filled, after=0.5, before=0.25, steps=2)
    assert longer.seconds == 3.75
    assert np.array_equal(samples(longer)[2_000:26_000], samples(filled))
    again = tiny.extend(RAIN, filled, after=0.5, before=0.25, steps=2)
    assert np.array_equal(samples(again), samples(longer))
    taken = tiny.extract("[Audio] rain", (noise, 8_000), regions=[(1, 2)], steps=2)
    edited = tiny.edit("[Edit][Audio] Remove rain", (noise, 8_000), regions=[(1, 2)], steps=2)
    np.testing.assert_allclose(samples(taken) + samples(edited), noise.T, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "removal"),
    [
        ("[Audio] a dog barking", "[Edit][Audio] Remove a dog barking"),
        ("[audio]  rain", "[Edit][Audio] Remove rain"),
        ("[Speech]", "[Edit][Speech] Remove the speech"),
        ("[Edit][Audio] Take out rain", "[Edit][Audio] Take out rain"),
    ],
)
def test_what_is_removed_to_be_extracted(given, removal):
    assert removal_of(given) == removal

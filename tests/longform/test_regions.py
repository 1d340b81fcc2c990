"""Edits in regions and of long recordings: exact outside, joined without steps, any format."""

import dataclasses
import itertools

import numpy as np
import pytest
import soundfile
import torch

from unison_audio.audio import Audio
from unison_audio.errors import InputError
from unison_audio.longform.edit_changes import UneditedWarning
from unison_audio.longform.edit_windows import derive_seed, plan_windows
from unison_audio.longform.native_audio import open_recording
from unison_audio.longform.regions import (
    check_output,
    edit_blocks,
    edit_file,
    edit_recording,
    plan_edit,
)
from unison_audio.sample_codings import from_float, to_float
from unison_audio.tasks.times import check_regions, parse_region, time_words
from unison_audio.variants import VARIANTS

REMOVE = "[Edit][Audio] Remove a dog barking"
ADD = "[Edit][Audio] Add a dog barking"
SPEAK = '[Edit][Speech] Change speech to "red dog"'


class Scaled:
    """In place of the model: an edit that is known, and a record of what was asked."""

    def __init__(self, gain=0.5, max_seconds=5.12):
        self.variant = dataclasses.replace(
            VARIANTS["nano"], max_seconds=max_seconds, default_seconds=1, zero_shot_seconds=1
        )
        self.gain, self.lengths, self.seeds = gain, [], []

    def generate(self, instruction, *, source, seed, **options):
        self.lengths += [len(waveform) / rate for waveform, rate in source]
        self.seeds += seed
        return [Audio(waveform * self.gain, rate) for waveform, rate in source]


def noise(seconds, rate, channels=1, seed=0):
    """Below 7 kHz, so that a 16 kHz model hears all of it."""
    generator = np.random.default_rng(seed)
    spectrum = np.fft.rfft(generator.normal(size=(round(seconds * rate), channels)), axis=0)
    spectrum[np.fft.rfftfreq(round(seconds * rate), 1 / rate) > min(7000, 0.42 * rate)] = 0
    values = np.fft.irfft(spectrum, n=round(seconds * rate), axis=0)
    return 0.1 * values / values.std()


def stored(path, rate, channels, coding, seconds=3.0):
    values = from_float(np.clip(noise(seconds, rate, channels), -0.9, 0.9), coding)
    soundfile.write(path, values, rate, coding)
    return path


def raw(path):
    recording = open_recording(path)
    return recording.read(0, recording.frames)


def edited(model, instruction, source, **where):
    """The recording after an edit."""
    return edit_recording(model, plan_edit(model.variant, instruction, source, **where))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("1.5 s", 1.5),
        ("0:01.5", 1.5),
        ("00:01.5", 1.5),
        ("1:05", 65.0),
        ("1:02:03", 3723.0),
        ("2 seconds", 2.0),
        ("7", 7.0),
        ("500 ms", 0.5),
        ("1,500 ms", 1.5),
        (".5s", 0.5),
        ("1,5 s", 1.5),
        ("0.5 sec.", 0.5),
        ("1 min 5 s", 65.0),
        ("2 h", 7200.0),
        ("two seconds", 2.0),
        ("half a second", 0.5),
        ("两秒", 2.0),
        ("十二秒", 12.0),
        ("1分5秒", 65.0),
    ],
)
def test_times(text, seconds):
    (found,) = time_words(text)
    assert found.text == text
    assert found.seconds == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "a", "1:75", "1:60:00", "-2", "1..2", "nan", "5 miles"])
def test_times_that_are_refused(text):
    with pytest.raises(InputError, match=r"time"):
        parse_region(f"0-{text}")


@pytest.mark.parametrize("text", ["3.2-7.5", "3.2 s – 7.5s", "0:03.2-0:07.5", "from 3.2 to 7.5 s"])
def test_regions(text):
    assert parse_region(text) == (3.2, 7.5)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([(2, 1)], "reversed"),
        ([(1, 11)], "past the end of the recording, 10.0 s"),
        ([(-1, 1)], "negative"),
        ([(1, 3), (2, 4)], "overlap"),
        ([(1, 1.01)], "shorter than"),
        ([(1, float("nan"))], "not two numbers"),
    ],
)
def test_regions_that_are_refused(regions, message):
    with pytest.raises(InputError, match=message):
        check_regions(regions, 10.0)


def test_regions_may_touch_and_are_sorted():
    assert check_regions([(3, 4), (1, 3)], 4.0) == [(1, 3), (3, 4)]
    for text in ("3.2", "a-b", "1-2-3", "-1-2", "1--2"):
        with pytest.raises(InputError, match=r"region|negative"):
            parse_region(text)


def test_windows_cover_a_long_region_and_meet():
    windows = plan_windows((100, 5000), 6000, 1000, 1000, lambda a, b: (a + b) // 2)
    assert (windows[0].begin, windows[-1].end) == (100, 5000)
    assert all(window.stop - window.start == 1000 for window in windows)
    for left, right in itertools.pairwise(windows):
        assert left.end == right.begin
        assert right.start < left.end < left.stop
    assert len({derive_seed(7, i) for i in range(1000)}) == 1000
    assert derive_seed(7, 0) == 7


def test_a_short_region_is_given_its_surroundings():
    (window,) = plan_windows((10, 20), 6000, 1000, 400, lambda a, b: a)
    assert (window.start, window.stop) == (0, 400)
    (window,) = plan_windows((2000, 2100), 6000, 1000, 400, lambda a, b: a)
    assert (window.start, window.stop) == (1850, 2250)


@pytest.mark.parametrize(
    ("rate", "channels", "coding", "suffix"),
    [
        (8_000, 1, "PCM_16", ".wav"),
        (16_000, 1, "PCM_24", ".flac"),
        (22_050, 2, "PCM_16", ".flac"),
        (44_100, 2, "PCM_24", ".wav"),
        (48_000, 2, "FLOAT", ".wav"),
        (48_000, 1, "PCM_U8", ".wav"),
    ],
)
@pytest.mark.parametrize("instruction", [REMOVE, ADD])
def test_outside_the_regions_nothing_changes(tmp_path, rate, channels, coding, suffix, instruction):
    path = stored(tmp_path / f"in{suffix}", rate, channels, coding)
    out = tmp_path / f"out{suffix}"
    model = Scaled(gain=0.5)
    edit = plan_edit(model.variant, instruction, path, [(0.5, 1.0), (2.0, 2.6)])
    check_output(edit, out, exact=True)
    edit_file(model, edit, out)
    before, after = raw(path), raw(out)
    info = soundfile.info(out)
    assert (info.samplerate, info.channels, info.subtype) == (rate, channels, coding)
    assert before.dtype == after.dtype
    inside = np.zeros(len(before), bool)
    inside[round(0.5 * rate) : rate] = inside[2 * rate : round(2.6 * rate)] = True
    assert np.array_equal(before[~inside], after[~inside])
    middle = slice(round(0.6 * rate), round(0.9 * rate))
    old, new = to_float(before)[middle], to_float(after)[middle]
    if instruction == REMOVE or channels == 1:  # an addition reaches the middle, not the sides
        assert np.abs(new - 0.5 * old).max() < 0.03 * np.abs(old).max() + 0.01
    else:
        assert np.abs((new - 0.5 * old).mean(axis=1)).max() < 0.02
        assert np.allclose(np.diff(new, axis=1), np.diff(old, axis=1), atol=1e-3)


def test_what_the_edit_leaves_alone_stays_inside_too(tmp_path):
    path = stored(tmp_path / "in.wav", 48_000, 2, "PCM_16")
    edit = plan_edit(Scaled().variant, REMOVE, path)
    blocks = list(edit_blocks(Scaled(gain=1.0), edit))
    assert np.array_equal(np.concatenate(blocks), raw(path))


def test_faint_changes_far_below_the_loudest_are_left_out_without_a_region():
    rate = 16_000
    source = 0.1 * noise(12.0, rate)[:, 0].astype("float32")
    source[64_000:80_000] *= 20  # the change there is 26 dB above that of the rest
    waveform = torch.from_numpy(source)
    everywhere = edited(Scaled(0.3), REMOVE, (waveform, rate))
    same = everywhere.read(0, everywhere.frames)[:, 0] == source
    assert not same[64_000:80_000].any()
    assert same[: 64_000 - 1000].all()
    assert same[80_000 + 1000 :].all()
    named = edited(Scaled(0.3), REMOVE, (waveform, rate), regions=[(0, 12)])
    assert (named.read(0, named.frames)[:, 0] != source)[1000:-1000].mean() > 0.99


def test_long_recordings_are_edited_without_a_seam(tmp_path):
    rate = 16_000
    path = stored(tmp_path / "in.wav", rate, 1, "PCM_16", seconds=41.0)
    model, done = Scaled(gain=0.5), []
    edit = plan_edit(model.variant, REMOVE, path, seed=3)
    sizes = []
    for block in edit_blocks(model, edit, lambda *step: done.append(step)):
        sizes.append(len(block))
    assert sum(sizes) == 41 * rate
    assert max(sizes) <= 5.12 * rate
    result = edited(Scaled(gain=0.5), REMOVE, path, seed=3)
    old, new = to_float(raw(path))[:, 0], to_float(result.read(0, result.frames))[:, 0]
    inner = slice(rate, 40 * rate)
    assert np.abs(new[inner] - 0.5 * old[inner]).max() < 1e-3
    assert max(model.lengths) <= 5.12
    assert model.seeds == [derive_seed(3, i) for i in range(len(edit.windows))]
    assert done[-1] == (len(edit.windows), len(edit.windows))


def test_a_window_can_be_made_again_alone(tmp_path):
    path = stored(tmp_path / "in.wav", 16_000, 1, "FLOAT", seconds=12.0)
    model = Scaled()
    edit = plan_edit(model.variant, REMOVE, path, seed=5)
    window = edit.windows[1]
    part = to_float(raw(path))[window.start : window.stop, 0]
    again = model.generate(
        [REMOVE], source=[(torch.from_numpy(part), 16_000)], seed=[derive_seed(5, 1)]
    )[0]
    made = np.concatenate(list(edit_blocks(Scaled(), edit)))[:, 0]
    inner = slice(window.begin + 1000, window.end - 1000)
    shifted = slice(inner.start - window.start, inner.stop - window.start)
    np.testing.assert_allclose(made[inner], again.waveform.numpy()[shifted], atol=1e-5)


def test_silence_is_left_alone():
    silent = np.zeros((2, 3 * 16_000), np.float32)
    silent[0] = noise(3, 16_000)[:, 0]
    result = edited(Scaled(0.0), REMOVE, (silent, 16_000))
    samples = result.read(0, result.frames)
    assert not samples[:, 1].any()
    assert np.abs(samples[1000:-1000, 0]).max() < 1e-6
    with pytest.warns(UneditedWarning, match=r"silent from 0\.00"):
        edited(Scaled(), ADD, (np.zeros(32_000, np.float32), 16_000))


def test_what_is_refused(tmp_path):
    path = stored(tmp_path / "in.wav", 16_000, 1, "FLOAT", seconds=8.0)
    variant = VARIANTS["nano"]
    with pytest.raises(InputError, match="puts in words"):
        plan_edit(variant, SPEAK, path)
    with pytest.raises(InputError, match="puts in words"):
        plan_edit(variant, SPEAK, path, [(1, 7)])
    with pytest.raises(InputError, match="at least one"):
        plan_edit(variant, REMOVE, path, [])
    with pytest.raises(InputError, match="takes no source"):
        plan_edit(variant, "[Audio] a dog barking", path, [(1, 2)])
    with pytest.raises(InputError, match="past the end"):
        plan_edit(variant, REMOVE, path, [(7, 9)])
    edit = plan_edit(variant, REMOVE, path, [(1, 2)])
    for name in ("out.flac", "out.mp3"):
        with pytest.raises(InputError, match=r"write a \.wav"):
            check_output(edit, tmp_path / name, exact=True)
    with pytest.raises(InputError, match="no file"):
        plan_edit(variant, REMOVE, tmp_path / "none.wav")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.wav"]


@pytest.mark.parametrize("coding", ["PCM_U8", "PCM_16", "FLOAT"])
def test_what_is_taken_away_and_what_is_left_make_up_the_recording(tmp_path, coding):
    path = stored(tmp_path / "in.wav", 16_000, 2, coding)
    both = [
        edited(Scaled(gain=0.25), REMOVE, path, regions=[(1, 2)], extract=extract)
        for extract in (False, True)
    ]
    left, taken = (to_float(result.read(0, result.frames)) for result in both)
    step = 2 / 256 if coding == "PCM_U8" else 1e-4
    assert np.abs(left + taken - to_float(raw(path))).max() <= step
    assert not taken[:16_000].any()
    assert not taken[32_000:].any()
    assert taken[20_000:28_000].std() > 0.05
    both[1].save(tmp_path / "taken.wav")
    assert np.array_equal(raw(tmp_path / "taken.wav"), both[1].samples)


def test_only_removals_are_extracted(tmp_path):
    path = stored(tmp_path / "in.wav", 16_000, 1, "PCM_16")
    with pytest.raises(InputError, match="takes nothing away"):
        plan_edit(VARIANTS["nano"], ADD, path, extract=True)

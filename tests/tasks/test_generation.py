import re

import numpy as np
import pytest
import torch
from tasks.conftest import make_clip

from unison_audio.tasks.draw import BuilderConfig
from unison_audio.tasks.instructions import parse_instruction
from unison_audio.tasks.table import TASKS

RATE = 8000


def level_db(wave, window=None):
    """20 log10 of the RMS in a window of seconds, by numpy in double precision."""
    data = wave.double().numpy()
    if window is not None:
        data = data[round(window[0] * RATE) : round(window[1] * RATE)]
    return 10 * np.log10(np.mean(data**2))


def dominant(wave):
    data = wave.double().numpy()
    spectrum = np.abs(np.fft.rfft(data * np.hanning(len(data)), 1 << 16))
    return np.argmax(spectrum) * RATE / (1 << 16)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_task_gives_whole_batches(build, name, seed):
    batch = build(name, seed)
    task = TASKS[name]
    assert batch.task == name
    assert batch.target.shape == (16, 32000)
    assert len(batch.instructions) == len(batch.details) == 16
    assert (batch.source is None) == (task.needs == ())
    assert (batch.reference_samples is None) == (name != "zero_shot_tts")
    for wave in (batch.target, batch.source):
        if wave is not None:
            assert wave.shape == (16, 32000)
            assert wave.dtype == torch.float32
            assert torch.isfinite(wave).all()
            assert wave.abs().amax(dim=1).max() <= 1.0
            assert (wave.square().mean(dim=1).sqrt() > 1e-3).all()
    for text in batch.instructions:
        assert not re.search(r"[{}]", text)
        assert parse_instruction(text, "source" in task.needs, "reference" in task.needs) == name


@pytest.mark.parametrize("name", TASKS)
def test_the_same_generator_gives_the_same_batch(build, name):
    one, two, other = build(name, 5), build(name, 5), build(name, 6)
    assert torch.equal(one.target, two.target)
    assert one.source is None or torch.equal(one.source, two.source)
    assert one.instructions == two.instructions
    assert one.details == two.details
    assert not torch.equal(one.target, other.target)


@pytest.mark.parametrize("name", TASKS)
def test_nothing_clips_and_both_sides_are_scaled_alike(build, make_pools, name):
    batch = build(name, source_of_clips=make_pools(peaky=True))
    waves = [wave for wave in (batch.target, batch.source) if wave is not None]
    assert max(float(wave.abs().max()) for wave in waves) <= 0.99 + 1e-6
    gains = torch.tensor([detail["gain"] for detail in batch.details])
    assert (gains < 1).any()
    free = build(name, source_of_clips=make_pools(peaky=True), peak=1e9)
    assert torch.allclose(free.target * gains[:, None], batch.target, atol=1e-6)
    if batch.source is not None:
        assert torch.allclose(free.source * gains[:, None], batch.source, atol=1e-6)


def test_tts_says_the_text_in_the_gender_from_a_small_onset(build):
    batch = build("tts", first_template_probability=1.0)
    for i, detail in enumerate(batch.details):
        expected = f'[Speech] A {detail["gender"]} voice saying "{detail["text"]}"'
        assert batch.instructions[i] == expected
        start, end = detail["speech_window"]
        assert 0 <= start <= 0.15
        assert level_db(batch.target[i], (start, end)) == pytest.approx(-20, abs=0.01)
        assert not batch.target[i, : round(start * RATE)].any()
        assert not batch.target[i, round(end * RATE) :].any()
    assert len({detail["speech_window"][0] for detail in batch.details}) > 8


def test_boundaries_are_faded(build):
    batch = build("t2a")
    for wave, detail in zip(batch.target, batch.details, strict=True):
        (window,) = detail["windows"]
        first, last = round(window[0] * RATE), round(window[1] * RATE)
        loud = wave.abs().max()
        assert wave[first : first + 5].abs().max() < 0.1 * loud
        assert wave[last - 5 : last].abs().max() < 0.1 * loud


@pytest.mark.parametrize("hop", [256, 1024])
def test_zero_shot_target_begins_on_a_frame_after_the_silence(build, hop):
    batch = build("zero_shot_tts", hop=hop, first_template_probability=1.0)
    for i, detail in enumerate(batch.details):
        edge = int(batch.reference_samples[i])
        end = round(detail["reference_window"][1] * RATE)
        assert edge % hop == 0
        assert end + 800 <= edge < end + 800 + hop
        assert detail["speech_window"][0] == edge / RATE
        assert torch.equal(batch.source[i, :edge], batch.target[i, :edge])
        assert not batch.source[i, end:].any()
        assert not batch.target[i, end:edge].any()
        for window in (detail["reference_window"], detail["speech_window"]):
            assert level_db(batch.target[i], window) == pytest.approx(-20, abs=0.01)
        joined = f"{detail['reference_text']}, {detail['text']}"
        assert batch.instructions[i] == f"[Speech with voice] {joined}"


def test_mixed_sounds_stand_at_their_snr(build):
    # The draw is the same whatever the SNR is fixed to, so two builds tell the parts apart.
    fixed = {"mix_events": (2, 2), "peak": 1e9, "first_template_probability": 1.0}
    level = build("t2a_mix", mix_snr_db=(0.0, 0.0), **fixed).target
    quiet = build("t2a_mix", mix_snr_db=(-20.0, -20.0), **fixed).target
    second = (level - quiet) / 0.9
    drawn = build("t2a_mix", **fixed)
    for i, detail in enumerate(drawn.details):
        one, two = detail["windows"]
        first = level[i] - second[i]
        (snr,) = detail["snr_db"]
        measured = level_db(drawn.target[i] - first, two) - level_db(first, one)
        assert measured == pytest.approx(snr, abs=0.1)
        assert -3 <= snr <= 3
        assert detail["labels"][0] != detail["labels"][1]
        assert drawn.instructions[i] == "[Audio] " + " and ".join(detail["captions"])


def test_speech_with_sound_stands_at_its_snr(build):
    level = build("t2as", t2as_snr_db=(0.0, 0.0), peak=1e9)
    quiet = build("t2as", t2as_snr_db=(20.0, 20.0), peak=1e9)
    sound = (level.target - quiet.target) / 0.9
    drawn = build("t2as", peak=1e9)
    for i, detail in enumerate(drawn.details):
        speech = level.target[i] - sound[i]
        measured = level_db(speech, detail["speech_window"]) - level_db(drawn.target[i] - speech)
        assert measured == pytest.approx(detail["snr_db"], abs=0.1)
        assert -5 <= detail["snr_db"] <= 5
    assert {detail["snr_db"] for detail in level.details} == {0.0}


@pytest.mark.parametrize("seconds", [None, 0.3, 6.0])
def test_a_timeline_sounds_exactly_as_the_text_says(build, make_pools, label_hz, seconds):
    batch = build(
        "timed",
        source_of_clips=make_pools(seconds=seconds),
        timed_overlap=0.0,
        first_template_probability=1.0,
    )
    counts = set()
    for wave, text in zip(batch.target, batch.instructions, strict=True):
        events = re.findall(r"From (\d+\.\d)s to (\d+\.\d)s, ([^.]+)\.", text)
        sentences = " ".join(f"From {a}s to {b}s, {event}." for a, b, event in events)
        assert text == f"[Audio] {sentences}"
        counts.add(len(events))
        outside = torch.ones(len(wave), dtype=torch.bool)
        for a, b, event in events:
            first, last = round(float(a) * RATE), round(float(b) * RATE)
            assert last - first >= 0.8 * RATE - 1
            assert last <= len(wave)
            assert dominant(wave[first:last]) == pytest.approx(label_hz[event], abs=10)
            assert level_db(wave[first:last]) == pytest.approx(-20, abs=0.01)
            assert wave[first : first + 160].any()  # from the window's beginning to its end
            assert wave[last - 160 : last].any()
            outside[first:last] = False
        assert outside.any()
        assert not wave[outside].any()
        assert len({event for _, _, event in events}) == len(events)
    assert counts == {2, 3}


def test_timelines_overlap_where_they_may(build):
    def overlaps(probability):
        details = build("timed", batch=200, timed_overlap=probability).details
        found = []
        for detail in details:
            starts = [start for start, _ in detail["windows"]]
            assert starts == sorted(starts)
            ends = [end for _, end in detail["windows"]]
            found += [b < a for a, b in zip(ends, starts[1:], strict=False)]
        return sum(found) / len(found)

    assert overlaps(0.0) == 0.0
    assert overlaps(1.0) == 1.0
    assert 0.2 < overlaps(0.3) < 0.4


def test_a_timeline_outside_of_every_window_is_silent_with_overlap(build):
    batch = build("timed", batch=64, timed_overlap=1.0)
    for wave, detail in zip(batch.target, batch.details, strict=True):
        inside = torch.zeros(len(wave), dtype=torch.bool)
        for start, end in detail["windows"]:
            inside[round(start * RATE) : round(end * RATE)] = True
        assert not wave[~inside].any()


def test_short_timelines_fit(build):
    for seconds in (1.0, 1.57):
        batch = build("timed", seconds=seconds)
        for detail in batch.details:
            assert all(0 <= a < b <= seconds for a, b in detail["windows"])


def test_a_pool_that_gives_too_long_speech_is_a_bug(build, make_pools):
    with pytest.raises(ValueError, match="max_seconds"):
        build("tts", source_of_clips=make_pools(seconds=5.0))


def test_the_first_template_has_half_of_the_probability(build):
    batch = build("tts", batch=2000, seconds=0.5, source_of_clips=_Tiny())
    first = sum(text.startswith("[Speech] A ") and "saying" in text for text in batch.instructions)
    assert abs(first - 1000) < 3 * (2000 * 0.25) ** 0.5
    assert BuilderConfig().first_template_probability == 0.5


class _Tiny:
    def draw(self, kind, count, where, generator):
        return [make_clip(kind, torch.ones(100), text="red", gender="male")] * count


@pytest.mark.parametrize("name", TASKS)
def test_the_table_names_functions_that_exist(name: str) -> None:
    assert TASKS[name].load_builder().__name__ == name

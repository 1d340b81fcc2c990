import re

import numpy as np
import pytest
import torch

from unison_audio.tasks.instructions import parse_instruction

RATE = 8000


def level_db(wave, window=None):
    data = wave.double().numpy()
    if window is not None:
        data = data[round(window[0] * RATE) : round(window[1] * RATE)]
    return 10 * np.log10(np.mean(data**2))


def power_at(wave, frequency):
    """Power of a sine at one frequency, by correlation."""
    data = wave.double().numpy()
    phase = 2 * np.pi * frequency * np.arange(len(data)) / RATE
    return 2 * abs(np.mean(data * np.exp(-1j * phase))) ** 2


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("edit_add", "edit_remove"),
        ("speech_insert", "speech_delete"),
        ("audio_to_speech", "speech_to_audio"),
    ],
)
def test_mirror_images(build, one, two):
    first, second = build(one, 3), build(two, 3)
    assert torch.equal(first.source, second.target)
    assert torch.equal(first.target, second.source)
    assert first.details == second.details


def test_an_added_event_stands_at_its_snr_inside_its_window(build, label_hz):
    batch = build("edit_add", first_template_probability=1.0)
    for i, detail in enumerate(batch.details):
        event = batch.target[i] - batch.source[i]
        ((window,), (snr,), (label,)) = detail["windows"], detail["snr_db"], detail["labels"]
        measured = level_db(event, window) - level_db(batch.source[i])
        assert measured == pytest.approx(snr, abs=0.1)
        assert -3 <= snr <= 3
        assert level_db(batch.source[i]) - 20 * np.log10(detail["gain"]) == pytest.approx(
            -20, abs=0.01
        )
        outside = event.clone()
        outside[round(window[0] * RATE) : round(window[1] * RATE)] = 0
        assert not outside.any()
        assert label != detail["base_label"]
        assert batch.instructions[i] == f"[Edit][Audio] Add {label}"
        assert power_at(event, label_hz[label]) > 10 * power_at(batch.source[i], label_hz[label])
    starts = {detail["windows"][0][0] for detail in batch.details}
    assert len(starts) > 4


def test_replace_exchanges_one_event_for_another_over_the_same_base(build, label_hz):
    batch = build("edit_replace", first_template_probability=1.0)
    for i, detail in enumerate(batch.details):
        old, new = detail["labels"]
        assert len({old, new, detail["base_label"]}) == 3
        base_hz, source, target = label_hz[detail["base_label"]], batch.source[i], batch.target[i]
        assert power_at(source, base_hz) == pytest.approx(power_at(target, base_hz), rel=0.05)
        assert power_at(source, label_hz[old]) > 10 * power_at(target, label_hz[old])
        assert power_at(target, label_hz[new]) > 10 * power_at(source, label_hz[new])
        assert batch.instructions[i] == f"[Edit][Audio] Remove {old} [Edit][Audio] add {new}"


def test_the_snr_can_be_fixed(build):
    batch = build("edit_add", event_snr_db=(2.0, 2.0))
    assert all(detail["snr_db"] == [2.0] for detail in batch.details)
    batch = build("speech_insert", speech_snr_db=(10.0, 10.0))
    for source, target, detail in zip(batch.source, batch.target, batch.details, strict=True):
        speech = level_db(target - source, detail["speech_window"])
        assert speech - level_db(source) == pytest.approx(10.0, abs=0.1)


def test_inserted_speech_stands_at_its_snr(build):
    batch = build("speech_insert", first_template_probability=1.0)
    for i, detail in enumerate(batch.details):
        speech = level_db(batch.target[i] - batch.source[i], detail["speech_window"])
        measured = speech - level_db(batch.source[i])
        assert measured == pytest.approx(detail["speech_snr_db"], abs=0.1)
        assert 5 <= detail["speech_snr_db"] <= 15
        assert speech - 20 * np.log10(detail["gain"]) == pytest.approx(-20, abs=0.01)
        said = f'[Edit][Speech] Add a voice saying "{detail["text"]}"'
        assert batch.instructions[i] == said


def test_rewritten_speech_begins_where_the_old_did_in_the_same_background(build, label_hz):
    batch = build("speech_rewrite", first_template_probability=1.0)
    for i, detail in enumerate(batch.details):
        (old_start, old_end), (start, end) = detail["old_window"], detail["speech_window"]
        assert start == pytest.approx(min(old_start, 4.0 - (end - start)), abs=1e-6)
        change = batch.target[i] - batch.source[i]
        change[round(min(start, old_start) * RATE) : round(max(end, old_end) * RATE)] = 0
        assert change.abs().max() < 1e-6
        assert batch.instructions[i] == f'[Edit][Speech] Change speech to "{detail["text"]}"'
        assert detail["old_text"]


def test_denoise_stands_at_its_snr(build):
    batch = build("denoise")
    for source, target, detail in zip(batch.source, batch.target, batch.details, strict=True):
        speech = level_db(target, detail["speech_window"])
        assert speech - level_db(source - target) == pytest.approx(detail["snr_db"], abs=0.1)
        assert 0 <= detail["snr_db"] <= 15


def test_exchange_of_an_event_for_speech(build, label_hz):
    batch = build("audio_to_speech", first_template_probability=1.0)
    for i, detail in enumerate(batch.details):
        (event,) = detail["labels"]
        assert power_at(batch.source[i], 2000.0) < 1e-6
        assert power_at(batch.target[i], 2000.0) > 1e-6
        assert power_at(batch.target[i], label_hz[event]) < 0.1 * power_at(
            batch.source[i], label_hz[event]
        )
        said = f'[Edit][Audio] Remove {event} [Edit][Speech] add a voice saying "{detail["text"]}"'
        assert batch.instructions[i] == said
    back = build("speech_to_audio", first_template_probability=1.0)
    (event,) = back.details[0]["labels"]
    expected = f"[Edit][Speech] Remove the speech [Edit][Audio] add {event}"
    assert back.instructions[0] == expected


@pytest.mark.parametrize("name", ["edit_add", "speech_insert", "t2as"])
def test_a_short_sound_fills_most_of_the_background(build, make_pools, name):
    batch = build(name, source_of_clips=make_pools(seconds=0.3))
    wave = batch.target if batch.source is None else batch.source
    sounding = wave.unfold(1, 80, 80).abs().amax(dim=2) > 1e-4  # (B, frames of 10 ms)
    assert (sounding.float().mean(dim=1) > 0.6).all()


def test_a_short_event_is_repeated_to_about_a_second(build, make_pools):
    batch = build("edit_add", source_of_clips=make_pools(seconds=0.3))
    for detail in batch.details:
        ((start, end),) = detail["windows"]
        assert 0.55 < end - start <= 1.0


def test_the_same_noise_lies_under_source_and_target(build):
    quiet = build("edit_add", 3)
    noisy = build("edit_add", 3, noise_floor_dbfs=(-60.0, -50.0), noise_floor_probability=1.0)
    under_source = noisy.source - quiet.source
    assert torch.allclose(under_source, noisy.target - quiet.target, atol=1e-6)
    levels = [level_db(row) for row in under_source]
    assert all(-60.5 < level < -49.5 for level in levels)
    assert len({round(level, 2) for level in levels}) > 1
    never = build("edit_add", 3, noise_floor_dbfs=(-60.0, -50.0), noise_floor_probability=0.0)
    assert torch.equal(never.source, quiet.source)
    spoken = build("tts", 3, noise_floor_dbfs=(-60.0, -50.0), noise_floor_probability=1.0)
    assert torch.equal(spoken.target, build("tts", 3).target)


def test_the_wording_of_the_released_weights(build):
    texts = {
        name: build(name, first_template_probability=1.0, wording="release").instructions[0]
        for name in ("edit_add", "edit_remove", "edit_replace", "speech_delete", "denoise")
    }
    assert re.fullmatch(r"\[Edit\]\[Audio\] Mix in the sound of [A-Z].*\.", texts["edit_add"])
    assert re.fullmatch(r"\[Edit\]\[Audio\] Eliminate the sound of [A-Z].*\.", texts["edit_remove"])
    assert re.fullmatch(
        r"\[Edit\]\[Audio\] Eliminate the sound of [A-Z].*\. \[Edit\]\[Audio\] Add [A-Z].*\.",
        texts["edit_replace"],
    )
    assert texts["speech_delete"] == "[Edit][Speech] Remove the speech."
    assert texts["denoise"] == "[Edit][Speech] Denoise the record."
    for name, text in texts.items():
        assert parse_instruction(text, True, False) == name


def test_bases_with_speech_keep_it_through_the_edit(build):
    """The speech lies in source and target alike, and the event over the base, not over it."""
    batch = build("edit_remove", 3, batch=40, edit_speech_probability=0.5)
    spoken = [i for i, detail in enumerate(batch.details) if "speech_window" in detail]
    assert 10 < len(spoken) < 30
    alone = [batch.details[i]["speech_alone"] for i in spoken]
    assert 2 < sum(alone) < len(spoken) - 2
    for i in spoken:
        detail = batch.details[i]
        (window,), (snr,) = detail["windows"], detail["snr_db"]
        event = batch.source[i] - batch.target[i]
        gain = 20 * np.log10(detail["gain"])
        expected = -20 - detail["speech_snr_db"] + snr + gain
        assert level_db(event, window) == pytest.approx(expected, abs=0.1)
        start, end = detail["speech_window"]
        if detail["speech_alone"]:
            assert level_db(batch.target[i], (start, end)) == pytest.approx(-20 + gain, abs=0.1)
            outside = batch.target[i].clone()
            outside[round(start * RATE) : round(end * RATE)] = 0
            assert not outside.any()


def test_the_mirror_of_an_addition_with_speech_is_a_removal(build):
    first = build("edit_add", 3, edit_speech_probability=0.5)
    second = build("edit_remove", 3, edit_speech_probability=0.5)
    assert torch.equal(first.source, second.target)
    assert torch.equal(first.target, second.source)


@pytest.mark.parametrize("task", ["edit_remove", "edit_replace"])
def test_nothing_changes_where_the_target_is_absent(build, task):
    batch = build(task, 3, batch=40, absent_target_probability=0.4)
    absent = [detail["absent"] for detail in batch.details]
    assert 8 < sum(absent) < 26
    for i, missing in enumerate(absent):
        assert torch.equal(batch.source[i], batch.target[i]) == missing
        label = batch.details[i]["labels"][0]
        assert label in batch.instructions[i]
        assert label != batch.details[i]["base_label"]


def test_the_probabilities_of_the_paper_change_no_draw(build):
    plain = build("edit_replace", 5)
    named = build("edit_replace", 5, edit_speech_probability=0.0, absent_target_probability=0.0)
    assert torch.equal(plain.source, named.source)
    assert torch.equal(plain.target, named.target)
    assert "absent" not in plain.details[0]

"""What is said about an edit and a reference, on signals whose truth is known."""

import math

import pytest
import torch

from unison_audio import audio
from unison_audio.edit_check import compare, removal_notes
from unison_audio.errors import InputError
from unison_audio.frame_layout import FrameLayout
from unison_audio.inputs import Request
from unison_audio.levels import fit_addition, fit_whole
from unison_audio.output_audio import finish
from unison_audio.pipeline import Unison
from unison_audio.preserve import limit_fall
from unison_audio.reference_check import reference_notes, require_voice
from unison_audio.replacement_check import compare_replacement, replacement_notes
from unison_audio.speech_activity import speech_probability, voiced_frames
from unison_audio.speech_protection import LEAST_PROBABILITY
from unison_audio.tasks.table import TASKS

RATE = 16_000
REMOVE = "[Edit][Audio] Remove rain"


def tone(seconds, hertz, peak=0.1):
    return peak * torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


def noise(seconds, rms=0.05, seed=0):
    return rms * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def voice():
    from unison_audio.demo.examples import packaged_inputs

    return audio.load(packaged_inputs() / "zero_shot_tts.flac", sample_rate=RATE)


@pytest.mark.parametrize("hertz", [90, 150, 290])
def test_the_pitch_of_a_buzz_is_found(hertz):
    buzz = sum(tone(0.5, hertz * k) for k in range(1, 6))
    strength, pitch = voiced_frames(buzz, RATE)
    assert float(strength.min()) > 0.9
    octave = (hertz / pitch).round()  # an exactly periodic sound repeats after two periods too
    assert octave.max() <= 3
    torch.testing.assert_close(pitch * octave, torch.full_like(pitch, hertz), rtol=0.04, atol=0.0)
    strength, _ = voiced_frames(noise(0.5), RATE)
    assert float(strength.median()) < 0.5


def test_speech_is_told_from_noise_and_tones(voice):
    assert speech_probability(voice, RATE) > 0.9
    assert speech_probability(0.01 * voice, RATE) == pytest.approx(
        speech_probability(voice, RATE), abs=0.01
    )
    assert speech_probability(noise(2), RATE) < 0.2
    assert speech_probability(torch.zeros(RATE), RATE) == 0.0
    assert speech_probability(voice[:100], RATE) == 0.0


def test_a_removal_that_took_the_speech_says_so(voice):
    rain = noise(len(voice) / RATE, 0.02)
    said = removal_notes(TASKS["edit_remove"], REMOVE, compare(voice + rain, rain, RATE))
    assert len(said) == 1
    assert said[0].startswith("The speech was removed as well")
    said = removal_notes(TASKS["edit_remove"], REMOVE, compare(voice + rain, voice, RATE))
    assert not said
    assert not removal_notes(TASKS["speech_delete"], REMOVE, compare(voice + rain, rain, RATE))


def test_a_removal_that_found_nothing_says_so():
    rain = noise(2)
    outcome = compare(rain, rain + noise(2, 0.001, seed=1), RATE)
    assert outcome.change_db == pytest.approx(-34, abs=0.5)
    (said,) = removal_notes(TASKS["edit_remove"], REMOVE, outcome)
    assert said.startswith("Nothing was found")
    assert "34 dB below" in said
    (said,) = removal_notes(TASKS["edit_remove"], REMOVE, compare(rain, 0.01 * rain, RATE))
    assert said.startswith("Nearly all")
    assert "40 dB" in said


def test_an_addition_lowers_itself_and_not_the_recording():
    source, added = tone(1, 200, 0.6), tone(1, 370, 0.8)
    fitted, (note,) = fit_addition(source, source + added)
    assert float(fitted.abs().max()) == pytest.approx(0.99, abs=1e-4)
    part = float(((fitted - source) * added).sum() / added.square().sum())
    torch.testing.assert_close(fitted, source + part * added, rtol=0, atol=1e-5)
    assert f"lowered by {-20 * math.log10(part):.1f} dB" in note
    quiet = source + 0.1 * added
    same, notes = fit_addition(source, quiet)
    assert same is quiet
    assert not notes


def test_a_full_recording_is_lowered_no_more_than_said():
    source = tone(1, 200, 1.0)
    fitted, notes = fit_addition(source, source + tone(1, 200, 1.0))
    assert float(fitted.abs().max()) <= 0.9901
    assert len(notes) == 2
    assert "12.0 dB" in notes[0]
    assert "whole" in notes[1]
    lowered, (note,) = fit_whole(tone(1, 200, 1.98))
    assert float(lowered.abs().max()) == pytest.approx(0.99, abs=1e-3)
    assert "6.0 dB" in note


def test_what_is_added_to_a_quiet_bed_is_audible():
    bed = noise(1, 1e-3)
    added = torch.cat([torch.zeros(RATE // 2), tone(0.5, 300, 2e-3)])
    fitted, (note,) = fit_addition(bed, bed + added)
    assert float(audio.rms((fitted - bed)[RATE // 2 :])) == pytest.approx(0.01, rel=0.03)
    assert not (fitted - bed)[: RATE // 2].any()
    assert "-57 dB" in note
    assert "-40 dB" in note


def test_a_bounded_fall_leaves_the_bound():
    source = noise(1)
    silenced = limit_fall(source[None], torch.zeros(1, RATE), 9.0)[0]
    torch.testing.assert_close(silenced, source * 10 ** (-9 / 20), rtol=0, atol=1e-5)
    torch.testing.assert_close(limit_fall(source[None], source[None], 9.0)[0], source)


def test_references_without_enough_voice_are_told(voice):
    good = audio.trim_silence(voice, RATE)
    text = "the red dog"
    assert reference_notes(good, RATE, text) == []
    (note,) = reference_notes(good[:4000], RATE, "no")
    assert "voiced sound" in note
    (note,) = reference_notes(torch.cat([noise(1, 0.02), good]), RATE, text)
    assert "begins with" in note
    offset = torch.cat([torch.full((RATE,), 0.3), good])
    (note,) = reference_notes(offset, RATE, text)
    assert "begins with" in note
    (note,) = reference_notes(good * 1e-3, RATE, text)
    assert "very quiet" in note
    (note,) = reference_notes(good, RATE, "these words go on and on " * 4)
    assert "nobody speaks as fast" in note
    (note,) = reference_notes(good, RATE, "今天天气很好我们去公园走走吧好不好" * 2)
    assert "nobody speaks as fast" in note
    with pytest.raises(InputError, match="too little for a voice"):
        require_voice(good[:160], RATE)


SWAP = "[Edit][Audio] Replace rain with a bell ringing"


def swap_notes(source, result):
    task = TASKS["edit_replace"]
    return replacement_notes(task, SWAP, compare_replacement(source, result, RATE))


def test_what_is_left_of_a_source_is_told_from_what_was_added():
    rain, wind, bell = noise(2, 0.05), noise(2, 0.05, seed=1), tone(2, 1000, 0.3)
    outcome = compare_replacement(rain + wind, wind + bell, RATE)
    # Half of each bin, as both noises lie in all of them; sounds in bins of their own give -3 dB.
    assert outcome.kept_db == pytest.approx(-6, abs=0.8)
    low, high = tone(2, 400, 0.1), tone(2, 2000, 0.1)
    assert compare_replacement(low + high, high + rain, RATE).kept_db == pytest.approx(-3, abs=0.3)
    assert compare_replacement(rain, rain + bell, RATE).kept_db > -0.3
    assert compare_replacement(rain, 0.5 * rain + bell, RATE).kept_db == pytest.approx(-6, abs=0.5)
    assert compare_replacement(rain, bell, RATE).kept_db < -10
    assert compare_replacement(rain, wind, RATE).kept_db < -5  # another noise agrees by chance
    for length in (1, 100, 700):
        outcome = compare_replacement(rain[:length], 0.5 * rain[:length], RATE)
        assert outcome.kept_db == pytest.approx(-6.02, abs=0.01)


def test_a_swap_that_left_the_old_sound_says_so():
    rain, wind, bell = noise(2, 0.05), noise(2, 0.05, seed=1), tone(2, 1000, 0.3)
    assert swap_notes(rain + wind, wind + bell) == []
    assert swap_notes(rain, bell) == []
    (said,) = swap_notes(rain, rain + bell)
    assert said.startswith("Little was taken away by '[Edit][Audio] Replace rain")
    (said,) = swap_notes(rain, rain + noise(2, 0.001, seed=2))
    assert said.startswith("Nothing was found")
    assert "34 dB below" in said
    outcome = compare_replacement(rain, rain + bell, RATE)
    for other in ("edit_add", "speech_to_audio", "speech_insert", "speech_rewrite"):
        assert replacement_notes(TASKS[other], SWAP, outcome) == []


def test_a_swap_that_took_the_speech_says_so(voice):
    rain, bell = noise(len(voice) / RATE, 0.02), tone(len(voice) / RATE, 1000, 0.2)
    assert swap_notes(voice + rain, voice + bell) == []
    (said,) = swap_notes(voice + rain, rain + bell)
    assert said.startswith("The speech was removed as well")
    assert "Add" in said


def test_a_voice_for_a_sound_says_what_became_of_the_speech_of_the_source(voice):
    rain = noise(len(voice) / RATE, 0.02)
    said = voice.roll(RATE // 2)  # the new speech
    (lost,) = finished("audio_to_speech", 0.5 * said, source=voice + rain).warnings
    assert lost.startswith("The speech in the source was removed as well by '[Edit][Audio] Replace")
    assert "make two edits" in lost
    (may,) = finished("audio_to_speech", voice + 0.1 * said, source=voice + rain).warnings
    assert may.startswith("The source seems to hold speech")
    assert "may have taken away" in may
    assert finished("audio_to_speech", said, source=rain).warnings == ()
    assert finished("speech_rewrite", said, source=voice + rain).warnings == ()


def finished(task, result, **layout):
    given = FrameLayout(frames=16, samples=len(result), **layout)
    request = Request(task=TASKS[task], asked=SWAP, instruction=SWAP, layout=given, seed=0)
    return finish(request, result, RATE)


def test_a_swap_is_compared_before_the_whole_is_lowered():
    source = noise(1, 0.2)
    sound = finished("edit_replace", 2.0 * source, source=source)
    assert float(sound.waveform.abs().max()) == pytest.approx(0.99, abs=1e-3)
    lowered, left = sound.warnings
    assert lowered.startswith("The whole result was lowered")
    assert left.startswith("Little was taken away")


@pytest.mark.parametrize("task", ["t2a", "t2a_mix", "timed", "t2as"])
def test_sounds_that_go_on_where_they_end_are_faded(task):
    whole = torch.full((RATE,), 0.5)
    ends = finished(task, whole).waveform
    assert float(ends[[0, -1]].abs().max()) < 0.001
    assert float(ends[RATE // 100 : -RATE // 100].min()) == 0.5
    assert torch.equal(finished("tts", whole).waveform, whole)


@pytest.fixture(scope="module")
def nano():
    return Unison.from_pretrained("nano")


@pytest.fixture(scope="module")
def sounds(nano):
    """A dog and a bell, each 2.56 s long: calls that pitch and rhythm alone take for speech."""
    made = nano.generate(["[Audio] a dog barking", "[Audio] a bell ringing"], duration=2.56)
    return [audio.normalize_rms(one.waveform, 0.05) for one in made]


def test_speech_under_a_sound_is_protected_and_said(nano, voice, sounds):
    mix = voice[: len(sounds[1])] + sounds[1][: len(voice)]
    sound = nano.generate("[Edit][Audio] Remove a bell ringing", source=(mix, RATE))
    assert sound.task == "edit_remove"
    (said,) = sound.warnings
    assert said.startswith("There is speech in the source")
    fall = 20 * math.log10(audio.rms(mix) / audio.rms(sound.waveform))
    assert fall < 9.1


def test_sounds_without_speech_are_removed_and_not_protected(nano, sounds):
    dog, bell = sounds
    assert speech_probability(dog + bell, RATE) > LEAST_PROBABILITY
    asked = "[Edit][Audio] Remove a dog barking"
    alone = nano.generate(asked, source=(dog + bell, RATE))
    assert not any("speech" in said for said in alone.warnings)
    # Neither the other items of a call nor the settings asked for change what is found.
    mixed = nano.generate(
        [asked, asked], source=[(dog + bell, RATE), (bell + voice_like(bell), RATE)]
    )
    torch.testing.assert_close(mixed[0].waveform, alone.waveform, atol=2**-15, rtol=0)


def voice_like(sound):
    return 0.01 * torch.randn(len(sound), generator=torch.Generator().manual_seed(3))


def test_a_removal_that_took_little_says_so():
    rain, wind = noise(3), noise(3, seed=1)
    bark = torch.zeros(3 * RATE)
    bark[RATE : RATE + RATE // 2] = noise(0.5, seed=2)
    task = TASKS["edit_remove"]

    def notes(source, result):
        return removal_notes(task, REMOVE, compare(source, result, RATE))

    assert notes(rain + wind, wind) == []
    assert notes(rain + bark, rain) == []  # little of the whole, and all that was there
    (said,) = notes(wind, wind - 0.2 * rain)
    assert said.startswith("Little was taken away by '[Edit][Audio] Remove rain'")
    assert "14 dB below" in said
    (said,) = notes(wind, 0.7 * wind)
    assert said.startswith("Little was taken away")
    whole = compare(wind, wind - 0.2 * rain, RATE)
    assert whole.most_change_db == pytest.approx(whole.change_db, abs=0.3)
    short = compare(wind[:100], 0.5 * wind[:100], RATE)
    assert short.most_change_db == pytest.approx(-6.02, abs=0.01)

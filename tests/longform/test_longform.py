"""Long text: how it is cut, how it is spoken in one voice, how it is joined."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from unison_audio import audio
from unison_audio.audio import Audio
from unison_audio.errors import InputError
from unison_audio.longform.edit_windows import derive_seed
from unison_audio.longform.long_speech import plan_speech, speak
from unison_audio.longform.text_windows import (
    CLAUSE_PAUSE,
    MAX_CHARACTERS,
    PARAGRAPH_PAUSE,
    SENTENCE_PAUSE,
    WORD_PAUSE,
    cut_text,
    estimate_seconds,
    is_long,
    pace_of,
    split_instruction,
)
from unison_audio.variants import VARIANTS

NANO, FULL = VARIANTS["nano"], VARIANTS["d24-16k"]
MALE = "[Speech] A male voice"


class Voice:
    """In place of the model: a hum whose color is the seed's, and a record of what was asked."""

    def __init__(self, variant, voices=1):
        self.variant, self.voices, self.asked = variant, voices, []

    def generate(self, instruction, *, seed, duration, **inputs):
        self.asked.append((instruction, seed, duration, inputs))
        return [self.one(*item) for item in zip(instruction, seed, duration, strict=True)]

    def one(self, instruction, seed, duration):
        rate = self.variant.sample_rate
        time = torch.arange(round(duration * rate)) / rate
        color = 300.0 * (1 + seed % self.voices)
        hum = sum(torch.sin(2 * torch.pi * k * 100 * time) for k in (1, 2)) * 0.05
        hum = hum + 0.05 * (1 + seed % 3) * torch.sin(2 * torch.pi * color * time)
        hum[: rate // 10] = hum[-rate // 4 :] = 0
        return Audio(hum, rate, instruction=instruction, seed=seed)


def texts(text, longest, variant=NANO):
    return [window.text for window in cut_text(text, pace_of(variant), longest)]


def test_sentences_are_packed_and_abbreviations_are_not_ends():
    text = "Mr. Smith is here. Hello! How are you today?"
    assert texts(text, 10) == [text]
    assert texts(text, 1.5) == ["Mr. Smith is here.", "Hello!", "How are you today?"]


def test_long_sentences_are_cut_into_clauses_then_words():
    text = "when the rain stops, we go to the old house and the small school on monday"
    windows = list(cut_text(text, pace_of(NANO), 2.0))
    assert windows[0].text == "when the rain stops,"
    assert " ".join(window.text for window in windows) == text
    assert all(window.seconds <= 2.0 for window in windows)
    pauses = [window.pause for window in windows]
    assert pauses[0] == CLAUSE_PAUSE
    assert set(pauses[1:-1]) == {WORD_PAUSE}
    assert pauses[-1] == PARAGRAPH_PAUSE


def test_paragraphs_pause_longer_than_sentences():
    windows = list(cut_text("one two. three four.\n\nfive six.", pace_of(NANO), 0.95))
    assert [w.pause for w in windows] == [SENTENCE_PAUSE, PARAGRAPH_PAUSE, PARAGRAPH_PAUSE]
    assert [w.index for w in windows] == [0, 1, 2]


def test_chinese_is_cut_at_its_own_marks_without_blanks():
    text = "你好。今天天气很好，我们去公园！“好的。”他说。"
    assert "".join(texts(text, 1.5)) == text.replace("“", " ").replace("”", " ").replace(" ", "")
    assert texts("今天天气很好，我们去公园。", 1.6) == ["今天天气很好，", "我们去公园。"]
    assert estimate_seconds("今天", pace_of(NANO)) == pytest.approx(0.44)


@pytest.mark.parametrize("text", ["x" * 300, "字" * 300, "a, " * 200, "https://a.b/" + "c" * 90])
def test_nothing_is_lost_and_everything_fits(text):
    windows = list(cut_text(text, pace_of(NANO), 2.0))
    assert "".join(w.text for w in windows).replace(" ", "") == text.replace(" ", "")
    assert all(w.seconds <= 2.0 for w in windows)


def test_texts_that_are_refused():
    for text in ("", " \n\t", "...!"):
        with pytest.raises(InputError, match="no words"):
            cut_text(text, pace_of(NANO), 2.0)
    with pytest.raises(InputError, match="10,000,000 characters"):
        cut_text("x" * 10_000_000, pace_of(NANO), 2.0)
    assert MAX_CHARACTERS < 10_000_000


def test_a_long_text_is_cut_as_it_is_read():
    text = "the red bird is on the water. " * 50_000
    windows = cut_text(text, pace_of(NANO), 2.2)
    assert len(list(itertools.islice(windows, 5))) == 5


@pytest.mark.parametrize(
    ("instruction", "template", "words"),
    [
        (
            '[Speech] A male voice saying "red dog"',
            '[Speech] A male voice saying "{text}"',
            "red dog",
        ),
        ('[speech] Say "a" in a male voice', '[speech] Say "{text}" in a male voice', "a"),
        ("[Speech] A female voice", '[Speech] A female voice saying "{text}"', ""),
        ("[Speech] A female voice saying", '[Speech] A female voice saying "{text}"', ""),
        ("[Speech]", '[Speech] A voice saying "{text}"', ""),
        ("[Speech with voice] red dog", "[Speech with voice] {text}", "red dog"),
        ("[Speech with voice]", "[Speech with voice] {text}", ""),
    ],
)
def test_the_words_of_an_instruction(instruction, template, words):
    assert split_instruction(instruction) == (template, words)


def test_instructions_that_do_more_than_speak_are_refused():
    for instruction in ("[Audio] rain", '[Speech] "a" [Audio] rain', "speak", "[Edit][Speech] x"):
        with pytest.raises(InputError, match="does not only speak"):
            split_instruction(instruction)


def test_only_what_does_not_fit_and_has_no_duration_is_long():
    short, long = (f'{MALE} saying "{"red dog " * n}"' for n in (3, 30))
    assert not is_long(NANO, short, None, False)
    assert is_long(NANO, long, None, False)
    assert not is_long(NANO, long, 2.0, False)
    assert not is_long(NANO, "[Audio] " + "rain " * 100, None, False)


def test_windows_are_spoken_in_order_at_one_level_and_fade_into_silence():
    text = "the red bird is on the water. my dog is big. we see the small green tree. " * 4
    model = Voice(NANO)
    speech = plan_speech(NANO, MALE, text=text, seed=7)
    spoken = list(speak(model, speech))
    assert " ".join(part.window.text for part in spoken) == text.strip()
    assert [len(asked[0]) for asked in model.asked[:2]] == [1, 8]
    assert "voice" not in model.asked[0][3]
    rest = audio.trim_silence(
        model.one("", *(asked[0] for asked in model.asked[0][1:3])).waveform, 16_000
    )
    assert all(torch.equal(asked[3]["voice"][0], rest) for asked in model.asked[1:])
    levels = [float(audio.rms(part.speech)) for part in spoken]
    assert max(levels) / min(levels) < 1.15
    position = 0
    for part in spoken:
        assert part.start * 16_000 == pytest.approx(position, abs=0.5)
        assert abs(float(part.speech[0])) < 1e-3
        assert abs(float(part.speech[-1])) < 1e-3
        assert len(part.speech) <= 3.84 * 16_000
        position += len(part.speech) + part.pause
    assert spoken[-1].pause == 0
    assert all(1.92 <= d <= 3.84 for asked in model.asked for d in asked[2])


def test_a_window_is_made_again_alone_from_its_seed():
    text = "the red bird is on the water. my dog is big. we see the small green tree."
    model = Voice(NANO, voices=4)
    speech = plan_speech(NANO, MALE, text=text, seed=7)
    for part in speak(model, speech):
        instruction = f'{MALE} saying "{part.window.text}"'
        again = model.one(instruction, part.seed, speech.seconds(part.window))
        trimmed = audio.trim_silence(again.waveform, 16_000)
        inner = slice(1000, len(trimmed) - 1000)
        scale = float(part.speech[5000] / trimmed[5000])
        np.testing.assert_allclose(part.speech[inner], scale * trimmed[inner], atol=1e-5)


def test_windows_in_another_voice_are_sampled_again():
    text = "the red bird is on the water. my dog is big. we see the small green tree. " * 6
    model = Voice(NANO, voices=6)
    spoken = list(speak(model, plan_speech(NANO, MALE, text=text, seed=1)))
    first = {derive_seed(1, part.window.index) for part in spoken}
    assert {part.seed for part in spoken} != first
    counts = [len(asked[0]) for asked in model.asked]
    assert counts[1] == 8
    assert 0 < counts[2] < 8
    again = {derive_seed(derive_seed(1, index), 1) for index in range(len(spoken))}
    assert set(model.asked[2][1]) <= again


def test_a_clone_speaks_with_the_reference_or_the_first_window():
    text = "the red bird is on the water, my dog is big, and we see the small green tree. " * 3
    model = Voice(FULL)
    spoken = list(speak(model, plan_speech(FULL, MALE, text=text)))
    assert len(spoken[0].speech) <= 3.0 * 16_000
    first, *others = model.asked
    assert first[0][0].startswith(MALE)
    for instructions, _, durations, inputs in others:
        assert all(instruction.startswith("[Speech with voice]") for instruction in instructions)
        assert inputs["reference_text"] == spoken[0].window.text
        assert max(durations) <= 10.0
    model = Voice(FULL)
    hum = Voice(FULL).one("", 0, 2.0)
    given = {"reference": hum, "reference_text": "hum", "text": text}
    list(speak(model, plan_speech(FULL, "[Speech with voice]", **given)))
    assert all(asked[3]["reference_text"] == "hum" for asked in model.asked)


def test_weights_of_one_length_use_all_of_it() -> None:
    released = dataclasses.replace(FULL, sample_seconds=10.0, max_seconds=10.0)
    model = Voice(released)
    list(speak(model, plan_speech(released, MALE, text="The red bird is big. " * 20)))
    durations = [seconds for asked in model.asked for seconds in asked[2]]
    assert durations[0] == 3.0
    assert len(durations) > 3
    assert set(durations[1:]) == {10.0 - 3.0 - 0.2}


def test_speech_that_is_refused():
    hum = Voice(NANO).one("", 0, 2.0)
    for inputs, message in (
        ({"text": ""}, "no words"),
        ({}, "no words"),
        ({"text": "a", "seed": -1}, "seed"),
        ({"text": "a", "reference": hum, "reference_text": "b"}, "takes no reference"),
    ):
        with pytest.raises(InputError, match=message):
            plan_speech(NANO, MALE, **inputs)
    with pytest.raises(InputError, match="needs a reference"):
        plan_speech(NANO, "[Speech with voice]", text="a")
    with pytest.raises(InputError, match="words of the reference"):
        plan_speech(NANO, "[Speech with voice]", text="a", reference=hum)
    with pytest.raises(InputError, match="text besides"):
        plan_speech(NANO, f'{MALE} saying "b"', text="a")


def test_a_silent_window_is_sampled_again_and_does_no_harm():
    class Mute(Voice):
        def one(self, instruction, seed, duration):
            sound = super().one(instruction, seed, duration)
            return Audio(sound.waveform * ("dog" not in instruction), sound.sample_rate)

    text = "my dog is big. the red bird is on the water. we see the small green tree."
    model = Mute(NANO)
    spoken = list(speak(model, plan_speech(NANO, MALE, text=text)))
    lengths = [len(part.speech) for part in spoken]
    assert lengths[0] == 0
    assert min(lengths[1:]) > 16_000

"""Only the words to be spoken are cleaned, and by default for nano alone."""

import dataclasses
from pathlib import Path

import pytest
import torch

from unison_audio.audio import Audio
from unison_audio.longform.long_speech import plan_speech
from unison_audio.pipeline import Unison
from unison_audio.sampling_params import SamplingParams, cleans_text
from unison_audio.tasks.spoken_words import clean_words
from unison_audio.variants import VARIANTS


@pytest.mark.parametrize(
    ("instruction", "cleaned"),
    [
        (
            '[Speech] A male voice, 20 years old, saying "we see 12 and 20"',
            '[Speech] A male voice, 20 years old, saying "we see twelve and twenty"',
        ),
        (
            "[Speech] A voice saying “$100” [Audio] From 1s to 3s, 2 dogs.",
            "[Speech] A voice saying “one hundred dollars” [Audio] From 1s to 3s, 2 dogs.",
        ),
        ("[Audio] From 1s to 3s, rain.", "[Audio] From 1s to 3s, rain."),
        (
            '[Edit][Speech] Insert "5 km" after "word 3"',
            '[Edit][Speech] Insert "five kilometers" after "word three"',
        ),
    ],
)
def test_only_quoted_words_change(instruction: str, cleaned: str) -> None:
    assert clean_words(instruction, None, False) == (cleaned, None)


def test_all_words_of_a_cloned_voice_change() -> None:
    given = ("[Speech with voice] at 9:30 we see 2", "we see 12", True)
    expected = ("[Speech with voice] at nine thirty we see two", "we see twelve")
    assert clean_words(*given) == expected


def test_who_cleans_by_default() -> None:
    nano, full = VARIANTS["nano"], VARIANTS["d24-16k"]
    assert cleans_text(nano, None)
    assert not cleans_text(full, SamplingParams())
    assert not cleans_text(nano, SamplingParams(clean_text=False))
    assert cleans_text(full, SamplingParams(clean_text=True))


def test_long_texts_are_cleaned_line_by_line() -> None:
    text = "# Chapter 1\n\nWe see 12 and 20.\n\n* at 9:30"
    for clean, first in ((None, "Chapter one"), (True, "Chapter one"), (False, "# Chapter 1")):
        speech = plan_speech(VARIANTS["nano"], "[Speech] A male voice", text=text, clean=clean)
        words = [window.text for window in speech.windows()]
        assert words[0] == first
        assert ("twelve" in " ".join(words)) == (clean is not False)


def test_the_model_reads_and_tells_the_cleaned_words(tiny: Unison, tmp_path: Path) -> None:
    spoken = dataclasses.replace(tiny.variant, clean_text=True)
    unison = Unison(spoken, tiny.backbone, tiny.codec, tiny.text_encoder)
    asked, read = (f'[Speech] A male voice saying "red {word}"' for word in ("12", "twelve"))
    options = {"steps": 1, "duration": 1.0}
    cleaned = unison.generate(asked, **options)
    assert cleaned.instruction == read
    assert torch.equal(cleaned.waveform, tiny.generate(read, **options).waveform)
    as_given = unison.generate(asked, clean_text=False, **options)
    assert as_given.instruction == asked
    assert isinstance(as_given, Audio)
    assert [piece.instruction for piece in unison.stream(asked, steps=1)] == [read]

"""Times, lengths and notes of instructions on their way to a model: lengths, refusals, warnings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from unison_audio.checks import FileInputs, check_files, check_item, default_seconds
from unison_audio.cli import main as cli
from unison_audio.errors import InputError
from unison_audio.inputs import ItemInputs
from unison_audio.pipeline import Unison
from unison_audio.variants import VARIANTS

NANO = VARIANTS["nano"]
README = "[Audio] From 0.5s to 1.5s, thunder. From 2.0s to 3.5s, birds singing"


def check(instruction: str, duration: float | None = None) -> Any:
    """Check a request without recordings."""
    return check_item(
        NANO,
        instruction,
        has_source=False,
        has_reference=False,
        reference_text=None,
        duration=duration,
        seed=0,
    )


@pytest.mark.parametrize(
    ("instruction", "seconds"),
    [
        (README, 3.5),
        ("[Audio] From 0.5s to 1.5s, thunder.", NANO.default_seconds),
        ("[Audio] thunder for 2 seconds", 2.0),
        ("[Audio] thunder for 4 seconds", 4.0),
        ("[Audio] 3 to 5 seconds of rain", 3.0),
        ("[Audio] 1 to 5 seconds of rain", NANO.default_seconds),
        ("[Audio] 1 to 2 seconds of rain", 2.0),
        ('[Speech] A voice saying "go" for 3 seconds', 3.0),
        ("[Audio] rain", NANO.default_seconds),
    ],
)
def test_the_length_follows_from_the_instruction(instruction: str, seconds: float) -> None:
    assert default_seconds(NANO, check(instruction)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("instruction", "duration", "message"),
    [
        (README, 3.0, "an event ends at 3.5 s, after the duration of 3 s; set a longer --duration"),
        ("[Audio] From 4s to 7s, thunder.", None, "ends at 7 s, and nano makes at most 5.12 s"),
        ("[Audio] From 0s to 99s, thunder.", None, "ends at 99 s"),
        ("[Audio] From 4s to 5s, thunder.", 3, "ends at 5 s, after the duration of 3 s"),
        ("[Audio] thunder for 4 seconds", 3.0, "a length of 4 s is stated"),
        ("[Audio] thunder for 10 seconds", None, "at most 5.12 s"),
    ],
)
def test_times_beyond_the_length_are_refused(
    instruction: str, duration: float | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check(instruction, duration)


def test_times_within_the_length_are_taken() -> None:
    assert check(README, 3.5).end == 3.5
    assert check("[Audio] thunder for 2 seconds", 4).length == (2, 2)


def test_the_models_time_has_the_form_of_the_training(tiny: Unison, prepared: Any) -> None:
    request = prepared("[Audio] from 500 ms to 0:02, thunder")
    assert request.instruction == "[Audio] From 0.5s to 2.0s, thunder."
    assert request.asked == "[Audio] from 500 ms to 0:02, thunder"
    assert prepared(README).instruction == README
    named = prepared("some thunder, 500 ms to 3 s", task="timed")
    assert named.instruction == "[Audio] some thunder, 500 ms to 3 s"
    assert named.layout.samples == 3 * tiny.variant.sample_rate


@pytest.fixture
def prepared(tiny: Unison) -> Any:
    """What the model is given for an instruction."""
    from unison_audio.inputs import prepare

    variant = dataclasses.replace(tiny.variant, max_seconds=5.12)

    def run(instruction: str, **inputs: Any) -> Any:
        return prepare(variant, tiny.codec, instruction, ItemInputs(**inputs))

    return run


def test_a_sound_covers_its_last_event(tiny: Unison) -> None:
    assert tiny.generate(README, steps=1).seconds == pytest.approx(3.5, abs=0.01)


def test_what_cannot_be_followed_to_the_letter_is_told_or_refused(tiny: Unison) -> None:
    child = '[Speech] A child says "go"'
    with pytest.warns(UserWarning, match="male or female alone, so 'child'"):
        sound = tiny.generate(child, steps=1)
    assert any("child" in note for note in sound.warnings)
    with pytest.raises(InputError, match=r"'child' may have no effect.* leave out --strict"):
        tiny.generate(child, steps=1, strict=True)


def test_messages_name_the_flags(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    remove = "[Edit][Audio] Remove the rain"
    for instruction, words in (
        (remove, "give it with --source"),
        ("[Edit][Speech] Remove the rain", "write [Edit][Audio] Remove the rain"),
        ('[Speech] A child says "go"', "leave out --strict"),
    ):
        out = tmp_path / "x.wav"
        command = ["generate", instruction, "-o", str(out), "--strict"]
        assert cli.main(command) == 2
        message = capsys.readouterr().err
        assert words in message
        assert len(message.splitlines()) == 1
        assert not out.exists()


def test_a_file_check_knows_the_notes() -> None:
    child = '[Speech] A child says "go"'
    check_files(NANO, child, FileInputs())
    with pytest.raises(InputError, match="--strict"):
        check_files(NANO, child, FileInputs(), strict=True)

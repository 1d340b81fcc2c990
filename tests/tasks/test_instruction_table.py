"""What 300 instructions mean, or the reason why they are refused: every row of instructions.tsv."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from unison_audio.errors import InputError
from unison_audio.tasks.instructions import Reading, read_instruction
from unison_audio.tasks.table import TASKS

ROWS = [
    line.split("\t")
    for line in Path(__file__).with_name("instructions.tsv").read_text("utf-8").splitlines()[1:]
]


def times_of(reading: Reading) -> str:
    """The windows or the length, as the table has them."""
    if reading.length is not None:
        low, high = (f"{seconds:g}" for seconds in reading.length)
        return low if low == high else f"{low}..{high}"
    return "|".join(f"{event.start:g}-{event.end:g}" for event in reading.events)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_an_instruction_means_what_the_table_says(row: list[str]) -> None:
    instruction, inputs, task, texts, objects, times, says = row
    given = ("source" in inputs, "reference" in inputs)
    if task == "refused":
        with pytest.raises(InputError) as caught:
            read_instruction(instruction, *given)
        message = str(caught.value)
        assert says in message
        assert "--" in message or message.endswith("?")
        assert "\n" not in message
        assert message.endswith((".", "?"))
        return
    reading = read_instruction(instruction, *given)
    found = ("|".join(reading.texts), "|".join(reading.objects), times_of(reading))
    assert (reading.task, *found) == (task, texts, objects, times)
    assert says in " ".join(reading.notes)
    assert bool(says) == bool(reading.notes)


def test_the_table_is_large_and_covers_every_task() -> None:
    assert len({(row[0], row[1]) for row in ROWS}) == len(ROWS) >= 300
    tasks = [row[2] for row in ROWS]
    assert {*TASKS, "refused"} == set(tasks)
    assert tasks.count("refused") >= 100


@pytest.mark.parametrize("row", [row for row in ROWS if row[2] not in ("refused", "tts")][::3])
def test_the_case_and_the_spelling_of_tags_change_nothing(row: list[str]) -> None:
    instruction, inputs = row[:2]
    given = ("source" in inputs, "reference" in inputs)
    spaced = instruction.replace("][", "] [").replace("[", "[ ")
    for other, text in itertools.product((str, str.lower), (instruction, spaced)):
        assert read_instruction(other(text), *given).task == row[2]


@pytest.mark.parametrize("row", [row for row in ROWS if row[2] == "refused"][::2])
def test_a_named_task_passes_the_words_on(row: list[str]) -> None:
    if row[0] and any(letter.isalnum() for letter in row[0].rsplit("]", 1)[-1]):
        reading = read_instruction(row[0], True, False, "edit_remove")
        assert (reading.task, reading.instruction) == ("edit_remove", row[0])


def test_a_known_label_with_and_is_one_sound() -> None:
    labels = ("ducks and geese", "eating and drinking", "rain")
    for verb in ("Remove", "Add"):
        for phrase in ("ducks and geese", "the Ducks and Geese", "Eating and drinking"):
            text = f"[Edit][Audio] {verb} {phrase}"
            assert not read_instruction(text, True, False, labels=labels).notes
            assert read_instruction(text, True, False).notes
        for phrase in ("ducks and geese and rain", "rain and a cat", "ducks and geeses"):
            text = f"[Edit][Audio] {verb} {phrase}"
            (note,) = read_instruction(text, True, False, labels=labels).notes
            assert "one sound at a time" in note

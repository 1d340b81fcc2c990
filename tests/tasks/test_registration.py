"""Tasks that are registered from outside are built, read and trained like the table's rows."""

import dataclasses
import math

import pytest
import torch

from unison_audio.errors import InputError
from unison_audio.tasks import templates
from unison_audio.tasks.curriculum import TaskSampler, default_stages
from unison_audio.tasks.draw import Built, Draw, fill, finish
from unison_audio.tasks.instructions import parse_instruction
from unison_audio.tasks.table import EDITING, TASKS, Task, register_task


def halve(draw: Draw) -> Built:
    """Source: a sound. Target: the sound at half its level."""
    sounds = draw.clips("sound")
    source = fill(draw, [clip.waveform for clip in sounds]).at(draw.config.rms).wave
    fields = [{"event": clip.record.label} for clip in sounds]
    return finish(draw, fields, [{} for _ in sounds], source=source, target=0.5 * source)


ROW = Task(
    name="halve",
    group="remove",
    tag=EDITING,
    needs=("source",),
    stage1=False,
    stage2_probability=0.25,
    builder=halve,
    metrics=("lsd",),
    sounds=1,
)
FORMS = ("[Edit][Audio] Turn down {event}", "[Edit][Audio] Make {event} quieter")


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    monkeypatch.setattr(templates, "TEMPLATES", dict(templates.TEMPLATES))
    before = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(before)


def test_a_registered_task_is_built_and_its_instructions_are_read(build):
    register_task(ROW, FORMS)
    batch = build("halve", batch=8)
    assert torch.allclose(batch.target, 0.5 * batch.source)
    assert {text.split()[1] for text in batch.instructions} == {"Turn", "Make"}
    for instruction in batch.instructions:
        assert parse_instruction(instruction, True, False) == "halve"
        spaced = instruction.replace("][", "]  [").upper() + "."
        assert parse_instruction(spaced, True, False) == "halve"
    with pytest.raises(InputError, match=r"halve.* needs a source"):
        parse_instruction(batch.instructions[0], False, False)
    # What the templates do not cover goes to the verbs, and other tasks are read as before.
    assert parse_instruction("[Edit][Audio] Turn the rain into wind", True, False) == "edit_replace"
    with pytest.raises(InputError, match=r"Turn down \{event\}"):
        parse_instruction("[Edit][Audio] louder", True, False)


def test_a_task_may_have_a_tag_of_its_own():
    row = dataclasses.replace(ROW, name="music", group="sound", tag=0, needs=())
    register_task(row, ["[Music] {event}"])
    assert parse_instruction("[music] a slow  waltz", False, False) == "music"
    assert parse_instruction("[Audio] a slow waltz", False, False) == "t2a"


def test_a_registered_task_gets_its_share_of_the_second_stage():
    register_task(ROW, FORMS)
    first, second = default_stages(10)
    assert "halve" not in first.probabilities
    assert second.probabilities["halve"] == pytest.approx(0.2)
    assert math.fsum(second.probabilities.values()) == pytest.approx(1.0)
    sampler = TaskSampler((first, second), seed=0)
    assert "halve" in {sampler.draw(10) for _ in range(100)}


def test_a_builder_is_a_function_or_its_dotted_name():
    assert ROW.load_builder() is halve
    named = dataclasses.replace(ROW, builder="unison_audio.tasks.editing.denoise")
    assert named.load_builder().__name__ == "denoise"


@pytest.mark.parametrize("name", ["nowhere.to_be_found", "unison_audio.tasks.editing.no", "plain"])
def test_a_builder_that_cannot_be_imported_is_named(name):
    with pytest.raises(InputError, match=rf"halve has the builder '{name}'.*give a function"):
        dataclasses.replace(ROW, builder=name).load_builder()


@pytest.mark.parametrize(
    ("name", "forms", "message"),
    [
        ("t2a", FORMS, "'t2a' exists already"),
        ("halve", (), "give at least one"),
        ("halve", ("Turn down {event}",), "beginning with a tag"),
        ("halve", ("[Audio] {event}", "[Audio] something"), "the same placeholders"),
    ],
)
def test_rows_that_do_not_fit_are_refused(name, forms, message):
    with pytest.raises(InputError, match=message):
        register_task(dataclasses.replace(ROW, name=name), forms)
    assert TASKS.get("halve") is None


def test_a_template_of_its_own_loses_an_unknown_gender():
    assert templates.render("[Sing] A {gender} voice", {"gender": ""}) == "[Sing] A voice"

import dataclasses
import math
import string

import pytest

from unison_audio.tasks.table import TASKS
from unison_audio.tasks.templates import TEMPLATES, WITHOUT_GENDER, render

# spec §6, written out a second time: name -> (tag, stage 1, share in stage 2, first template)
SPEC = {
    "tts": (0, True, 0.15, '[Speech] A {gender} voice saying "{text}"'),
    "zero_shot_tts": (2, True, 0.25, "[Speech with voice] {text}"),
    "t2a": (0, True, 0.10, "[Audio] {caption}"),
    "t2a_mix": (0, True, 0.08, "[Audio] {caption} and {caption}"),
    "t2as": (0, True, 0.08, '[Speech] A {gender} voice saying "{text}" [Audio] {caption}'),
    "timed": (0, True, 0.04, "[Audio] From {t1}s to {t2}s, {event}."),
    "edit_add": (1, False, 0.04, "[Edit][Audio] Add {event}"),
    "edit_remove": (1, False, 0.04, "[Edit][Audio] Remove {event}"),
    "edit_replace": (1, False, 0.03, "[Edit][Audio] Remove {old} [Edit][Audio] add {new}"),
    "speech_insert": (1, False, 0.04, '[Edit][Speech] Add a voice saying "{text}"'),
    "speech_delete": (1, False, 0.03, "[Edit][Speech] Remove the speech"),
    "speech_rewrite": (1, False, 0.04, '[Edit][Speech] Change speech to "{new}"'),
    "denoise": (1, False, 0.04, "[Edit][Speech] Denoise the recording"),
    "audio_to_speech": (
        1,
        False,
        0.02,
        '[Edit][Audio] Remove {event} [Edit][Speech] add a voice saying "{text}"',
    ),
    "speech_to_audio": (
        1,
        False,
        0.02,
        "[Edit][Speech] Remove the speech [Edit][Audio] add {event}",
    ),
}
RENAMED = {"first": "caption", "last": "caption", "start": "t1", "end": "t2"}


def test_the_table_is_the_spec():
    assert list(TASKS) == list(SPEC)
    for name, (tag, stage1, share, template) in SPEC.items():
        task = TASKS[name]
        assert (task.name, task.tag, task.stage1, task.stage2_probability) == (
            name,
            tag,
            stage1,
            share,
        )
        placeholders = {
            field: "{" + RENAMED.get(field, field) + "}"
            for _, field, _, _ in string.Formatter().parse(task.templates[0])
            if field
        }
        assert task.templates[0].format(**placeholders) == template
        assert task.metrics
        needs = {0: (), 1: ("source",), 2: ("reference", "reference_text")}
        assert task.needs == needs[tag]


def test_shares():
    def total(stage1):
        return math.fsum(t.stage2_probability for t in TASKS.values() if t.stage1 is stage1)

    assert total(True) == pytest.approx(0.70)
    assert total(False) == pytest.approx(0.30)
    assert sum(task.stage1 for task in TASKS.values()) == 6


def test_every_pool_has_several_templates_with_the_same_fields():
    assert set(TEMPLATES) == set(TASKS)
    for pool in TEMPLATES.values():
        assert len(pool) >= 4
        assert len(set(pool)) == len(pool)
        fields = {
            frozenset(f.lower() for _, f, _, _ in string.Formatter().parse(form) if f)
            for form in pool
        }
        assert len(fields) == 1


def test_source_levels_are_those_of_the_built_sources(build):
    for name, task in TASKS.items():
        if task.tag == 1:
            levels = build(name, batch=64).source.square().mean(dim=1).sqrt()
            assert 0.6 < float(levels.median()) / task.source_rms < 1.7, name


def test_render_repeats_what_follows_the_tag_for_a_timeline():
    events = [
        {"start": "0.5", "end": "2.0", "event": "a dog barking"},
        {"start": "1.5", "end": "3.0", "event": "rain"},
    ]
    first, _, capital, *_ = TEMPLATES["timed"]
    assert render(first, {"events": events}) == (
        "[Audio] From 0.5s to 2.0s, a dog barking. From 1.5s to 3.0s, rain."
    )
    assert render(capital, {"events": events}) == (
        "[Audio] A dog barking from 0.5s to 2.0s. Rain from 1.5s to 3.0s."
    )


def test_an_unknown_gender_is_left_out():
    gendered = [form for pool in TEMPLATES.values() for form in pool if "{gender}" in form]
    assert set(WITHOUT_GENDER) == set(gendered)
    assert len(set(WITHOUT_GENDER.values())) == len(gendered)
    for form, plain in WITHOUT_GENDER.items():
        assert form.split('"')[1] == plain.split('"')[1] == "{text}"
        assert form.partition(" [Audio]")[2] == plain.partition(" [Audio]")[2]
    said = {"text": "go", "caption": "rain"}
    first = TEMPLATES["tts"][0]
    assert render(first, {**said, "gender": ""}) == '[Speech] A voice saying "go"'
    assert render(first, {**said, "gender": "male"}) == '[Speech] A male voice saying "go"'
    assert render(TEMPLATES["t2as"][0], {**said, "gender": ""}) == (
        '[Speech] A voice saying "go" [Audio] rain'
    )


class Unknown:
    """Pools whose odd speakers' gender nobody wrote down."""

    def __init__(self, pools):
        self.pools = pools

    def draw(self, *asked):
        clips = self.pools.draw(*asked)
        genders = [clip.record.gender.replace("female", "") for clip in clips]
        return [
            dataclasses.replace(clip, record=dataclasses.replace(clip.record, gender=gender))
            for clip, gender in zip(clips, genders, strict=True)
        ]


@pytest.mark.parametrize("task", ["tts", "t2as"])
def test_only_items_without_gender_get_templates_without_gender(task, build, pools):
    known = build(task, batch=32)
    batch = build(task, batch=32, source_of_clips=Unknown(pools))
    genders = [detail["gender"] for detail in batch.details]
    assert set(genders) == {"male", ""}
    for gender, ours, theirs in zip(genders, batch.instructions, known.instructions, strict=True):
        assert ("male" in ours) is bool(gender)
        assert (ours == theirs) is bool(gender)
        assert "  " not in ours
    assert (batch.target == known.target).all()

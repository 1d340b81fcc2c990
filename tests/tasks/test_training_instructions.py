"""Whatever a builder fills into a template is read as the template's task, in linear time."""

from __future__ import annotations

import json
import random
import time
from importlib import resources

import pytest

from unison_audio.errors import InputError
from unison_audio.nano.vocabulary import random_sentence, random_sequence
from unison_audio.tasks.clauses import MAX_CHARACTERS, SPELLINGS, respell
from unison_audio.tasks.instructions import read_instruction
from unison_audio.tasks.mentions import mentions
from unison_audio.tasks.table import TASKS
from unison_audio.tasks.templates import RELEASE_FIRST, TEMPLATES, render

DRAWS = 25
"""Instructions of each template."""

NANO = json.loads((resources.files("unison_audio") / "weights/nano/config.json").read_text())
LABELS = [
    *NANO["domain"]["sounds"],
    *(caption.rstrip(".") for caption in NANO["domain"]["captions"]),
    # Kinds of other corpora, with commas, brackets, "and", and words that are verbs elsewhere.
    "Male speech, man speaking",
    "Accelerating and revving and vroom",
    "Dishes, pots, and pans",
    "Chink and clink",
    "Water tap and faucet",
    "Fill (with liquid)",
    "Drop of water and a cut of wood",
    "people eating crisps",
    "air conditioning noise",
    "wind noise",
    "Clean water running",
    "a car and its horn",
    "Strike lighter",
    "baby laughter",
    "a clock striking 12",
    "a 12 inch record",
    "playing double bass",
    "reversing beeps",
    "Silence and a turn signal",
    "footsteps in snow",
    "a man with a drum by the sea",
    "雷声",
    "狗叫声",
]
TEXTS = [
    "remove the rain and add thunder",
    "from 1s to 3s, for 2 seconds",
    "two men and a woman",
    "it's a dog's life, isn't it?",
    "he said “go” and left",
    "[Audio] rain [Edit][Speech] Remove the noise",
    "你好，再见",
    "a 5 o'clock train: 10 % off!",
]
CASES = [
    (name, template)
    for name, pool in TEMPLATES.items()
    for template in dict.fromkeys(
        (*pool, *([RELEASE_FIRST[name]] if name in RELEASE_FIRST else []))
    )
]


def fields(rng: random.Random, spoken: bool) -> dict[str, object]:
    """What a builder might fill in."""
    text = rng.choice([random_sentence(rng), random_sequence(rng, 4), rng.choice(TEXTS)])
    first, second = rng.sample(LABELS, 2)
    return {
        "gender": rng.choice(["male", "female", ""]),
        "text": text,
        "caption": first,
        "first": ", ".join(rng.sample(LABELS, rng.choice((1, 2)))),
        "last": second,
        "event": first,
        "old": first,
        "new": text if spoken else second,
    }


def timeline(rng: random.Random) -> dict[str, object]:
    """Two or three events, which may overlap, with the times that builders write."""
    events = []
    for label in rng.sample(LABELS, rng.choice((2, 3))):
        start = rng.randint(0, 40)
        times = (start / 10, (start + rng.randint(1, 60)) / 10)
        events.append({"start": f"{times[0]:.1f}", "end": f"{times[1]:.1f}", "event": label})
    return {"events": events}


@pytest.mark.parametrize(("name", "template"), CASES)
def test_every_drawn_instruction_is_read_as_its_task(name: str, template: str) -> None:
    rng = random.Random(template)
    needs = TASKS[name].needs
    given = ("source" in needs, "reference" in needs)
    for draw in range(DRAWS):
        spoken = '"{new}"' in template
        filled = timeline(rng) if name == "timed" else fields(rng, spoken)
        text = respell(render(template, filled), rng.choice(list(SPELLINGS)))
        text = (text, text.lower(), text.upper(), f"  {text}\n")[draw % 4]
        if name == "zero_shot_tts" and "[" in str(filled["text"]) and template.endswith("] {text}"):
            continue  # a text without quotes has no tags
        reading = read_instruction(text, *given)
        # Captions with "and" count as mixes, which the model treats alike.
        tasks = {"t2a", "t2a_mix"} if name in ("t2a", "t2a_mix") else {name}
        assert reading.task in tasks, text
        assert reading.instruction == text, "the model reads what it was trained on"
        if name == "timed":
            events = filled["events"]
            assert isinstance(events, list)
            assert [(e.start, e.end) for e in reading.events] == [
                (float(event["start"]), float(event["end"])) for event in events
            ]
        if name in ("tts", "t2as", "speech_insert", "audio_to_speech"):
            assert [said.lower() for said in reading.texts] == [str(filled["text"]).lower()]


LONG = 30_000
"""Characters of the instructions that try the time."""


@pytest.mark.parametrize(
    "head",
    ["[Audio] ", "[Speech] ", "[Speech with voice] ", "[Edit][Audio] Remove ", "[Edit][Speech] 把"],
)
@pytest.mark.parametrize(
    "part",
    [
        "9",
        "9.",
        " ",
        '"',
        "“",
        ",",
        "; ",
        "1s to 2s ",
        "and add ",
        "of the ",
        "[",
        "把",
        "去掉",
        "a",
    ],
)
def test_reading_takes_linear_time(head: str, part: str) -> None:
    def seconds(characters: int) -> float:
        text = head + part * (characters // len(part))
        began = time.process_time()
        message = ""
        try:
            read_instruction(text, "Edit" in head, "voice" in head)
        except InputError as error:
            message = str(error)
        mentions(text)
        assert len(message) < 1500
        return time.process_time() - began

    # Ten times the characters would take a hundred times as long in quadratic time. Other work on
    # the machine disturbs single measurements, but none can make quadratic work fast.
    assert any(seconds(LONG) < 25 * max(seconds(LONG // 10), 0.02) for _ in range(4))


def test_a_longer_instruction_is_refused_before_it_is_read() -> None:
    with pytest.raises(InputError, match=r"100,001 characters, at most 100,000.*--text-file"):
        read_instruction("9" * (MAX_CHARACTERS + 1), False, False, "t2a")

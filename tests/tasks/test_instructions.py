import pytest

from unison_audio.errors import InputError
from unison_audio.tasks.instructions import (
    SPELLINGS,
    parse_instruction,
    respell,
)
from unison_audio.tasks.table import TASKS
from unison_audio.tasks.templates import render

FIELDS = {
    "gender": "female",
    "text": "the red dog is in the house",
    "caption": "a dog barks",
    "first": "a dog barking",
    "last": "a fire burning",
    "event": "a drop of water",
    "old": "a car and its horn",
    "new": "a cutting saw",
}
EVENTS = [
    {"start": "0.5", "end": "2.0", "event": "a dog barking"},
    {"start": "2.5", "end": "3.0", "event": "rain"},
]
TEMPLATES = [(name, template) for name, task in TASKS.items() for template in task.templates]


def read(name, text):
    needs = TASKS[name].needs
    return parse_instruction(text, "source" in needs, "reference" in needs)


@pytest.mark.parametrize(("name", "template"), TEMPLATES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_template_is_read_as_its_task(name, template, spelling):
    text = render(template, {"events": EVENTS} if name == "timed" else FIELDS)
    text = respell(text, spelling)
    assert read(name, text) == name
    assert read(name, text.lower()) == name
    assert read(name, f"  {text.upper()}\n") == name


@pytest.mark.parametrize(("name", "template"), TEMPLATES)
def test_templates_without_gender_are_read_as_the_same_task(name, template):
    if "{gender}" in template:
        text = render(template, {**FIELDS, "gender": ""})
        assert not {"male", "female"} & set(text.lower().split())
        assert "  " not in text
        assert read(name, text) == name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tts", '[Speech] A voice saying "go"'),
        ("tts", "[Speech] a man shouts “stop”"),
        ("tts", '[Speech] "remove [Audio] this"'),
        ("t2as", '[Speech] A voice saying "go" [Audio] rain'),
        ("t2a", "[Audio] remove the speech"),
        ("timed", "[Audio] a dog 1 to 3 seconds, then rain from 3 to 4.5 sec"),
        ("t2a", "[Audio] 3 dogs barking 2 times"),
        ("edit_add", "[Edit][Audio] Please bring in a bell"),
        ("edit_remove", "[Edit] [Audio] please delete the bell"),
        ("edit_remove", "[Edit][Audio] Remove the noise of an engine"),
        ("edit_replace", "[Edit][Audio] Remove the bell and add rain"),
        ("edit_replace", "[Edit][Audio] exchange the bell for rain"),
        ("edit_replace", "[Edit][Audio] Add rain [Edit][Audio] remove the bell"),
        ("speech_insert", '[Edit][Speech] put in a man who says "go"'),
        ("speech_delete", "[Edit][Speech] erase what is said"),
        ("speech_rewrite", '[Edit][Speech] Remove the speech and add "go"'),
        ("speech_rewrite", '[Edit][Speech] make him say "go"'),
        ("speech_rewrite", '[Edit][Speech] Remove the speech [Edit][Speech] add "go"'),
        ("denoise", "[Edit][Speech] filter out the hiss"),
        ("denoise", "[Edit][Speech] reduce the noise"),
        ("audio_to_speech", '[Edit][Speech] add "go" [Edit][Audio] remove rain'),
        ("speech_to_audio", "[Edit] [Speech] erase the voice [Edit] [Audio] put in rain"),
    ],
)
def test_other_words_with_clear_verbs(name, text):
    assert read(name, text) == name


@pytest.mark.parametrize(
    ("text", "has_source", "has_reference", "form"),
    [
        ("a dog barking", False, False, "[Audio] {caption}"),
        ("", False, False, "[Audio] {caption}"),
        ("[Music] a waltz", False, False, "[Audio] {caption}"),
        ("please [Audio] rain", False, False, "[Audio] {caption}"),
        ("[Audio]", False, False, "[Audio] {caption}"),
        ("[Audio] From 3s to 2s, rain.", False, False, "[Audio] From"),
        ("[Speech] A male voice", False, False, "[Speech] A {gender}"),
        ('[Speech] A male voice saying ""', False, False, "[Speech] A {gender}"),
        ("[Edit] remove rain", True, False, "[Edit][Audio] Remove"),
        ("[Edit][Audio] Add", True, False, "[Edit][Audio] Add {event}"),
        ("[Edit][Audio] rain", True, False, "[Edit][Audio] Add {event}"),
        ("[Edit][Speech] Add a voice", True, False, "[Edit][Speech] Add a voice"),
        ("[Edit][Speech] Remove the speech and add rain", True, False, "[Edit][Speech] Remove"),
        ("[Edit][Audio] Remove rain", False, False, "[Audio] {caption}"),
        ("[Audio] rain", True, False, "[Edit][Audio] Add {event}"),
        ("[Audio] rain", False, True, "[Speech with voice] {text}"),
        ("[Speech with voice] go", False, False, "[Speech] A {gender}"),
        ("[Speech with voice]", False, True, "[Speech with voice] {text}"),
        ("[Speech with voice] go", True, True, "no task takes both"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_forms_that_do(text, has_source, has_reference, form):
    with pytest.raises(InputError) as caught:
        parse_instruction(text, has_source, has_reference)
    message = str(caught.value)
    assert repr(text) in message
    assert form in message
    assert "\n" not in message
    assert message.endswith(".")


def test_the_listing_keeps_to_the_tags_where_there_are_some():
    with pytest.raises(InputError) as caught:
        parse_instruction("[Edit][Speech] sing", True, False)
    assert "[Edit][Speech] Denoise" in str(caught.value)
    assert "Add {event}" not in str(caught.value)


def test_respell():
    joined = '[Edit][Audio] Remove rain [Edit][Speech] add "[edit][audio] x"'
    spaced = '[Edit] [Audio] Remove rain [Edit] [Speech] add "[edit][audio] x"'
    assert respell(joined, "[Edit] [Audio]") == spaced
    assert respell(spaced, "[Edit][Audio]") == joined
    assert respell(joined, "[Edit][Audio]") == joined
    assert respell("[edit]  [AUDIO] Add rain", "[Edit][Audio]") == "[Edit][Audio] Add rain"
    assert respell("[speech  with voice] go", "[Edit][Audio]") == "[Speech with voice] go"
    with pytest.raises(InputError, match="choose from"):
        respell(joined, "wide")

import time

import pytest

from unison_audio.errors import InputError
from unison_audio.tasks.clauses import SPELLINGS, respell, with_tags
from unison_audio.tasks.instructions import parse_instruction
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
        ("speech_to_audio", "[Edit][Speech] Remove the speech and add rain"),
        ("speech_to_audio", "[Edit] [Speech] erase the voice [Edit] [Audio] put in rain"),
    ],
)
def test_other_words_with_clear_verbs(name, text):
    assert read(name, text) == name


@pytest.mark.parametrize(
    ("text", "has_source", "has_reference", "form"),
    [
        ("a dog barking", False, False, "[Audio] a dog barking for a sound"),
        ("", False, False, "such as [Audio] rain"),
        ("[Music] a waltz", False, False, "[Speech], [Audio], [Speech with voice]"),
        ("please [Audio] rain", False, False, "put [Audio] first"),
        ("[Audio]", False, False, "[Audio] {caption}"),
        ("[Audio] From 3s to 2s, rain.", False, False, "[Audio] From"),
        ("[Speech] A male voice", False, False, "[Speech] A {gender}"),
        ('[Speech] A male voice saying ""', False, False, "[Speech] A {gender}"),
        ("[Edit] remove rain", True, False, "[Edit][Audio] Remove"),
        ("[Edit][Audio] Add", True, False, "[Edit][Audio] Add {event}"),
        ("[Edit][Audio] rain", True, False, "[Edit][Audio] Add {event}"),
        ("[Edit][Speech] Add a voice", True, False, "[Edit][Speech] Add a voice"),
        ("[Edit][Audio] Remove rain", False, False, "give it with --source FILE."),
        ("[Audio] rain", True, False, "[Edit][Audio] Add {event}"),
        ("[Audio] rain", False, True, "[Speech with voice] {text}"),
        ("[Speech with voice] go", False, False, "give it with --reference FILE."),
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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("edit_remove", "[Edit][Audio] 去掉狗叫声"),
        ("edit_remove", "[Edit] [Audio] 请把狗叫声去掉。"),
        ("edit_remove", "[Edit][Audio] 将背景里的雨声全部删除"),
        ("edit_add", "[Edit][Audio] 添加雷声"),
        ("edit_add", "[Edit][Audio] 请加上鸟叫"),
        ("edit_replace", "[Edit][Audio] 把狗叫声换成猫叫声"),
        ("edit_replace", "[Edit][Audio] 去掉狗叫声，并加上雨声"),
        ("edit_replace", "[Edit][Audio] 用雨声替换狗叫声"),
        ("edit_replace", "[Edit][Audio] 去掉狗叫声 [Edit][Audio] 加上雨声"),
        ("speech_insert", "[Edit][Speech] 添加一个人说“你好”"),
        ("speech_delete", "[Edit][Speech] 去掉说话声"),
        ("speech_delete", "[Edit][Speech] 把人声删掉"),
        ("speech_rewrite", "[Edit][Speech] 把说的话改成“你好”"),
        ("speech_rewrite", "[Edit][Speech] 让他说「再见」"),
        ("denoise", "[Edit][Speech] 降噪"),
        ("denoise", "[Edit][Speech] 去掉背景噪音"),
        ("audio_to_speech", '[Edit][Audio] 去掉雨声 [Edit][Speech] 加上一个声音说"走"'),
        ("speech_to_audio", "[Edit][Speech] 去掉说话声 [Edit][Audio] 加上雨声"),
    ],
)
def test_chinese_edits_are_read(name, text):
    assert read(name, text) == name


def test_a_named_task_takes_free_wording():
    free = "I never want to hear that dog again"
    assert parse_instruction(free, True, False, "edit_remove") == "edit_remove"
    assert with_tags(free, "edit_remove") == f"[Edit][Audio] {free}"
    assert with_tags("走吧", "zero_shot_tts") == "[Speech with voice] 走吧"
    assert with_tags("Stop the rain, say “go”", "audio_to_speech").startswith("[Edit][Audio] Stop")
    tagged = f"[edit] [audio] {free}"
    assert parse_instruction(tagged, True, False, "edit_remove") == "edit_remove"
    assert with_tags(tagged, "edit_remove") == tagged
    with pytest.raises(InputError, match="name its task"):
        parse_instruction(free, True, False)
    with pytest.raises(InputError, match="no task 'undo'; use one of tts"):
        parse_instruction(free, True, False, "undo")
    with pytest.raises(InputError, match="needs a source"):
        parse_instruction(free, False, False, "edit_remove")
    with pytest.raises(InputError, match="takes no source"):
        parse_instruction("rain", True, False, "t2a")
    with pytest.raises(InputError, match="has no words"):
        parse_instruction("[Edit][Audio] ...", True, False, "edit_remove")


def test_long_runs_of_digits_take_linear_time() -> None:
    began = time.process_time()
    for text in ("9" * 20_000, "9." * 10_000):
        parse_instruction(f"[Audio] rain {text}", False, False)
    assert time.process_time() - began < 5


def test_an_error_quotes_the_beginning_of_a_long_instruction() -> None:
    with pytest.raises(InputError) as error:
        parse_instruction("rain " * 5000, False, False)
    message = str(error.value)
    assert "'rain rain" in message
    assert len(message) < 600
    assert message.endswith(".")
    assert not message.endswith("..")

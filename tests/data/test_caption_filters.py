import pytest

from unison_audio.data.captions import mentions_speech, text_fault
from unison_audio.data.records import ClipRecord

# Real captions: AudioCaps' validation set, WavCaps' SoundBible list, labels of AudioSet, VGGSound.
SPOKEN = (
    "An audience gives applause as a man yells and a group sings",
    "A man speaks over intermittent keyboard taps",
    "A female speaks softly as paper crinkles",
    "A large crowd is talking at a party or gathering.",
    "A small crowd chatters and talks",
    "Loud clanking and banging with brief male speech",
    "A man speaks with another voice speaking in the background",
    "Some men converse over an engine running",
    "A bus engine idles while a woman speaks making an announcement",
    "People applaud and hoot and chat quietly",
    "A woman talks while a baby cries and a man whispers",
    "male speech, man speaking",
    "narration, monologue",
    "hubbub, speech noise, speech babble",
    "police radio chatter",
    "people babbling",
    "people whispering",
    "parrot talking",
    "A SIREN WAILS AND SOMEONE SHOUTS",
    "一个男人在说话,背景有雨声",
    "远处传来人们的交谈声和脚步声",
    "女人低语",
)
SOUNDS = (
    "An airplane engine runs",
    "A tasmanian devil is growling and screaming.",
    "A baby sneezes followed by another person laughing",
    "Various birds chirp and squeal, and an animal grunts",
    "Someone is whistling.",
    "A loudspeaker hums and a walkie-talkie crackles",
    "A speaker is buzzing",
    "A telephone rings",
    "A woman sings while a choir hums",
    "A group of voices is singing",
    "Monkeys chatter in the trees",
    "A babbling brook",
    "stream burbling",
    "An infant crying frantically",
    "A gun reports twice",
    "people cheering",
    "A bespoke engine starts",
    "雷声和下雨的声音",
    "有人在翻小说的书页",
    "据说这是海浪的声音",
)


@pytest.mark.parametrize("caption", SPOKEN)
def test_captions_that_speak_of_speech_are_known(caption):
    assert mentions_speech(caption)


@pytest.mark.parametrize("caption", SOUNDS)
def test_other_captions_stay(caption):
    assert not mentions_speech(caption)


def test_texts_that_cannot_be_used_are_named():
    assert text_fault("A dog barks.") == ""
    assert text_fault(" \n\t") == "no text or caption"
    assert text_fault("x" * 10_000_000) == "text longer than 2000 characters"
    assert text_fault(b"caf\xe9".decode("utf-8", "surrogateescape")) == "text is not UTF-8"
    assert text_fault("一" * 2000) == ""


@pytest.mark.parametrize(
    ("seconds", "kind", "text", "expected"),
    [
        (3.0, "speech", "words", True),
        (2.99, "speech", "words", False),
        (9.0, "speech", "", False),
        (9.0, "sound", "", False),
    ],
)
def test_zero_shot_needs_three_seconds_of_known_words(seconds, kind, text, expected):
    record = ClipRecord(
        key="a", kind=kind, split="train", seconds=seconds, licence="", source="", text=text
    )
    assert record.zero_shot is expected

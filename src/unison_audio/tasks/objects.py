"""Tells what an edit's words name: speech, noise, an echo, everything, or some other sound."""

import re
from collections.abc import Iterable
from typing import Literal

Kind = Literal["speech", "word", "noise", "echo", "all", "nothing", "sound"]
"""What a phrase names; "word" is a part of what is said, "nothing" is empty or a pronoun."""

_LIST = re.compile(
    r"\s*(?:[,，;；、&+]|\b(?:and also|and|as well as|along with|together with|plus)\b"
    r"|和|与|以及|及|跟)\s*",
    re.IGNORECASE,
)

_OWNED = re.compile(r"(?:its|their|his|her)\b", re.IGNORECASE)

_SPEECH_NOUN = (
    r"(?:speech|speeches|voices?|vocals?|words|talking|talk|speaking|speakers?|narration|narrators?|"
    r"dialogues?|dialogs?|conversations?|announcers?|announcements?|commentary|utterances?|"
    r"sentences?|monologues?|text|spoken content|content|lines?)"
)

_PERSON = (
    r"(?:man|men|woman|women|person|people|someone|somebody|guy|lady|child|kid|boy|girl|he|she|"
    r"they)"
)

_SPEECH = re.compile(
    rf"(?:[\w'’-]+\s+){{0,6}}{_SPEECH_NOUN}"
    rf"|(?:[\w'’-]+\s+){{0,6}}{_PERSON}(?:\s+[\w'’-]+){{0,3}}\s+(?:talking|speaking|saying|says?|speaks|talks)"
    r"|(?:what|everything|anything|all|whatever)\s+(?:[\w'’-]+\s+){0,6}(?:said|says?|saying|spoken|speaks?)"
    r"|.{0,30}(?:说话声|讲话声|说话的声音|讲话的声音|语音|人声|对白|旁白|台词|男声|女声|说话|讲话|对话|朗读声?|"
    r"嗓音|话语|话|言语|谈话声?|交谈声?|说话人)",
    re.IGNORECASE,
)

_WORD = re.compile(
    r"(?:[\w'’-]+\s+){0,4}(?:word|name|number|syllable|phrase|letter|part)|.{0,12}(?:这个词|个词|词|字|单词)",
    re.IGNORECASE,
)

_NOISE = re.compile(
    r"(?:[\w'’-]+\s+){0,6}(?:noises?|hiss|hum|static|crackle|background|ambience|"
    r"(?:background|ambient) sounds?)|.{0,20}(?:噪声|噪音|杂音|杂讯|嘶声|底噪|背景音|背景声)",
    re.IGNORECASE,
)

_ECHO = re.compile(
    r"(?:[\w'’-]+\s+){0,6}(?:echo(?:es)?|reverb|reverbs|reverberations?)|.{0,12}(?:回声|回音|混响)",
    re.IGNORECASE,
)

_ALL = re.compile(
    r"(?:everything|all|it all|all of it|anything|silence|(?:all )?(?:of )?(?:the |this |my |its )?"
    r"(?:recording|record|audio|sounds?|clip|track|file))|(?:这段|整个|全部的?|所有的?)?(?:录音|音频|声音)|所有|"
    r"全部|一切",
    re.IGNORECASE,
)

_NOTHING = re.compile(
    r"(?:it|them|that|this|these|those|him|her|me|us|one|there|here)?|[它他她]们?|这个|那个|这|那",
    re.IGNORECASE,
)

_SOUND_OF = re.compile(r"(?:the |a |any )?(?:sounds?|sound effects?) of ", re.IGNORECASE)

# "what is said" has no noun before its preposition, and "of" in "the voice of a man" cuts it off.
_AFTER_HEAD = re.compile(
    r"\s(?:of|from|in|on|behind|over|under|with|by|at|to|during|that|which|who|whose|around|"
    r"throughout|for)\s",
    re.IGNORECASE,
)

_TAIL = re.compile(
    r"(?:[\s,]+(?:from|in|of|to|out of|into|on|throughout|behind|within|under|over) "
    r"(?:the |this |my |that |its )?(?:whole |entire )?"
    r"(?:recording|record|audio|clip|file|track|mix|scene|it|speech|voice|background|source|sound)"
    r"|[\s,]+(?:please|too|as well|completely|entirely|fully|altogether|instead|now|there|here|"
    r"again|for me))$",
    re.IGNORECASE,
)

_ZH_HEAD = re.compile(
    r"^(?:(?:录音|音频|声音|背景|这段录音|这段音频)(?:里面?|中间?|内)?的?|其?中的)(?=.)"
)

_WHO = re.compile(
    rf"(?:(?:the|this|that|a|an)\s)?(?:\w+\s){{0,2}}{_PERSON}|[他她]|(?:这个|那个)?人",
    re.IGNORECASE,
)

_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")

_THE = re.compile(r"(?:the|all|all the|any|his|her|their|everyone's)\s", re.IGNORECASE)


def name_objects(phrase: str, labels: Iterable[str] = ()) -> tuple[str, ...]:
    """The things that a phrase names, one for each item of a list.

    What belongs to the item before, as in "a car and its horn", stays with it.

    Args:
        phrase: The phrase.
        labels: Names of single sounds; one such as "ducks and geese" is one item.
    """
    whole = [
        found.span()
        for label in labels
        if _LIST.search(label)
        for found in re.finditer(rf"\b{re.escape(label)}\b", phrase, re.IGNORECASE)
    ]
    cuts = [
        cut.span()
        for cut in _LIST.finditer(phrase)
        if not any(first <= cut.start() and cut.end() <= last for first, last in whole)
    ]
    spans: list[list[int]] = []
    start = 0
    for end, following in [*cuts, (len(phrase), 0)]:
        item = phrase[start:end].strip()
        if spans and _OWNED.match(item):
            spans[-1][1] = end
        elif item:
            spans.append([start, end])
        start = following
    return tuple(phrase[a:b].strip() for a, b in spans)


def strip_tail(phrase: str) -> str:
    """A phrase without words such as "from the recording", which every edit is about."""
    phrase = phrase.strip(" \t\r\n.,;:!?。，；：！？")
    for _ in range(4):
        cut = _TAIL.search(phrase[-60:])
        if cut is None:
            break
        phrase = phrase[: len(phrase[:-60]) + cut.start()].rstrip(" ,")
    return _ZH_HEAD.sub("", phrase)


def kind_of(phrase: str) -> Kind:
    """What a phrase without a list names."""
    phrase = strip_tail(phrase[:200])
    inner = _SOUND_OF.match(phrase)
    if inner:
        phrase = phrase[inner.end() :]
    if _NOTHING.fullmatch(phrase):
        return "nothing"
    if _ALL.fullmatch(phrase):
        return "all"
    for candidate in (phrase, _AFTER_HEAD.split(phrase)[0]):
        for kind, pattern in _KINDS:
            if pattern.fullmatch(candidate):
                return kind
    return "sound"


_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("noise", _NOISE),
    ("echo", _ECHO),
    ("speech", _SPEECH),
    ("word", _WORD),
)


def is_said(phrase: str) -> bool:
    """Whether a phrase means the words of a recording, or who says them."""
    plain = strip_tail(phrase[:200])
    return bool(_WHO.fullmatch(plain)) or kind_of(plain) in ("speech", "all", "nothing")


def is_pointed_at(phrase: str) -> bool:
    """Whether a phrase means a thing of the recording: "the speech" does, "speech" does not."""
    return bool(_THE.match(phrase)) or bool(_CHINESE.search(phrase))  # Chinese has no articles

"""Reads the words around a text to be spoken: who says it, and how."""

import re
from dataclasses import dataclass

from unison_audio.errors import UnplacedError
from unison_audio.tasks.quotes import shorten


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MALE = _set("male man man's man’s masculine gentleman guy sir he him his")

_FEMALE = _set("female woman woman's woman’s feminine lady she her")

_PEOPLE = _MALE | _FEMALE | _set("boy girl child kid robot person speaker narrator baby")
"""Words of which two with "and" between them are two voices."""

_MANY = re.compile(
    r"\b(?:voices|speakers|men|women|people|persons|children|kids|boys|girls|both|crowd|choir|"
    r"chorus|audience|group|couple|duet|(?:two|three|four|five|several|many)(?:\s\w+)?|dialogue|"
    r"conversation|each other|one another)\b|两个|两位|二人|两人|三个|三位|几个|一群|众人|大家|"
    r"他们|她们|孩子们|人们|合唱|齐声|对话|"
    r"男女|一男一女",
    re.IGNORECASE,
)

_PLAIN = _set(
    "a an the this that these in by with of and as is are from for to who which it its they their "
    "one someone somebody anyone everyone person voice speaker narrator announcer reader says say "
    "saying said speaks speak speaking spoken reads read reading tells tell telling states "
    "announces announcing utters please now then following words text sentence line phrase aloud "
    "using use make create generate produce give let me us i want hear we hears heard recording "
    "clip speech audio sound human real natural normal clear own new another single only out here "
    "there instead too lines talking talks talk speech's such into record whose has having"
)

_QUALITIES = _set(
    "child childlike child's children's kid kid's boy boy's girl girl's baby teenager teenage old "
    "older young younger elderly adult middle-aged aged year-old robot robotic robot's alien "
    "monster ghost witch giant cartoon computer machine whisper whispers whispering whispered "
    "shout shouts shouting shouted yell yells yelling scream screams screaming sing sings singing "
    "sung murmur murmurs murmuring mumbling mutters cry cries crying sobbing laugh laughs "
    "laughing angry angrily sad sadly happy happily calm calmly cheerful cheerfully excited "
    "excitedly scared afraid nervous tired bored serious friendly warm cold soft softly gentle "
    "gently loud loudly quiet quietly low lower deep high higher high-pitched low-pitched pitched "
    "pitch hoarse husky raspy rough smooth bright dark nasal breathy fast faster quickly quick "
    "slow slowly slower rapid rapidly british american australian scottish irish indian english "
    "french german spanish italian russian chinese mandarin japanese korean accent accented tone "
    "emotion emotional dramatic monotone style voice-over news anchor newsreader radio telephone "
    "phone distant far away nearby close very quite rather really famous singer actor actress "
    "pirate king queen grandmother grandfather mother father doctor teacher soldier echoing "
    "sarcastic sarcastically surprised drunk sleepy urgent urgently expressive energetic "
    "beautiful nice strong weak"
)
"""What voices are described by and no task was trained on."""

_ZH_MALE, _ZH_FEMALE = "男", "女"

_ZH_QUALITIES = (
    "小男孩|小女孩|男孩|女孩|孩子|小孩|儿童|婴儿|老人|老爷爷|老奶奶|老年|年轻|年老|中年|少年|少女|"
    "机器人|外星人|怪物|低声|轻声|小声|悄悄|大声|高声|耳语|喊|叫|唱|哭着|笑着|愤怒|生气|开心|高兴|快乐|"
    "悲伤|难过|平静|温柔|温和|激动|兴奋|严肃|缓慢|慢慢|快速|飞快|低沉|沙哑|沉稳|甜美|清脆|英国|美国|"
    "口音|语气|语调|情绪|英语|中文|普通话|粤语|英文|地"
)

_ZH_PLAIN = (
    "一个人|一名|一位|一个|个|名|位|某人|有人|声音|嗓音|人声|语音|男性|女性|男人|女人|男士|女士|男生|女生|"
    "男声|女声|先生|小姐|人|者|说话|说道|说着|朗读|念出|念|说|讲|道|读|用|以|的|来|请|让|由|里|中|句话|"
    "这句|一句|这段|一段|话|文字|内容|男|女|声|他|她|它|正在|在|着|出"
)

_ZH = re.compile(rf"(?P<quality>{_ZH_QUALITIES})|(?P<plain>{_ZH_PLAIN})")

_ZH_LETTER = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")

_TOKEN = re.compile(
    r"[^\W\d_\u3400-\u9fff]+(?:['’-][^\W\d_]+)*|[\u3400-\u9fff\uf900-\ufaff]+|\d+", re.I
)


@dataclass(frozen=True, kw_only=True)
class VoiceWords:
    """What the words around a text say of the voice."""

    gender: str
    """"male", "female", or "" where the words name none."""
    qualities: tuple[str, ...]
    """What else they ask for."""


def read_voice(words: str) -> VoiceWords:
    """Read the words around a text.

    Args:
        words: Words of a clause, quoted texts reduced to a bare pair of quotes.

    Raises:
        UnplacedError: They ask for several voices, or for something that is no voice.
    """
    plain = words.replace('""', " , ")
    many = _MANY.search(plain)
    tokens = list(_TOKEN.finditer(plain))
    pair = _pair(tokens)
    if many or pair:
        part = shorten(many[0] if many else plain[pair[0] : pair[1]] if pair else "")
        raise UnplacedError(
            f'"{part}" asks for more than one voice, and a request has one; make a sound for each '
            "voice"
        )
    genders: set[str] = set()
    qualities: list[str] = []
    strange: list[tuple[int, int]] = []
    for token in tokens:
        word = token[0].lower()
        if _ZH_LETTER.match(word):
            strange += _read_chinese(token, genders, qualities)
        elif word in _QUALITIES:
            qualities.append(token[0])
        elif word in _MALE or word in _FEMALE:
            genders.add("male" if word in _MALE else "female")
        elif word not in _PLAIN:
            strange.append(token.span())
    if strange:
        part = shorten(plain[strange[0][0] : strange[-1][1]])
        raise UnplacedError(
            f'"{part}" says nothing of a voice that this program knows; leave it out, and name a '
            'sound in a clause of its own, as in [Speech] A voice saying "..." [Audio] rain'
        )
    gender = genders.pop() if len(genders) == 1 else ""
    return VoiceWords(gender=gender, qualities=tuple(dict.fromkeys(qualities)))


def _pair(tokens: list[re.Match[str]]) -> tuple[int, int] | None:
    """Positions of two people with "and" between them."""
    first: re.Match[str] | None = None
    joined = False
    for token in tokens:
        word = token[0].lower()
        if word in _PEOPLE:
            if first is not None and joined:
                return first.start(), token.end()
            first, joined = token, False
        elif word in ("and", "or"):
            joined = True
    return None


def _read_chinese(
    token: re.Match[str], genders: set[str], qualities: list[str]
) -> list[tuple[int, int]]:
    """Read a run of Chinese; positions of what is not understood."""
    strange: list[tuple[int, int]] = []
    run, start, k = token[0], token.start(), 0
    while k < len(run):
        known = _ZH.match(run, k)
        if known is None:
            strange.append((start + k, start + k + 1))
            k += 1
            continue
        k = known.end()
        if known["quality"]:
            qualities.append(known[0])
        elif _ZH_MALE in known[0]:
            genders.add("male")
        elif _ZH_FEMALE in known[0]:
            genders.add("female")
    return strange

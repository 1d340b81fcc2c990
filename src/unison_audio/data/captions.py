"""Rules for captions and texts: which are usable, and which sounds contain speech."""

import re

MAX_CHARACTERS = 2000
"""Longer texts cannot be an instruction: the text encoder takes 256 tokens."""

EMPTY = "no text or caption"

TOO_LONG = f"text longer than {MAX_CHARACTERS} characters"

NOT_UTF8 = "text is not UTF-8"

MENTIONS_SPEECH = "caption speaks of speech"

_SPOKEN = (
    "speak speaks speaking spoke spoken speech speeches talk talks talked talking say says said "
    "saying voiceover voiceovers converse converses conversed conversing conversation "
    "conversations conversational dialog dialogs dialogue dialogues monologue monologues narrate "
    "narrates narrated narrating narration narrator narrators announce announces announced "
    "announcing announcement announcements announcer announcers lecture lectures lectured "
    "lecturing lecturer sermon sermons preach preaches preached preaching preacher interview "
    "interviews interviewed interviewing interviewer commentator commentators commentary "
    "whisper whispers whispered whispering mumble mumbles mumbled mumbling mutter mutters "
    "muttered muttering shout shouts shouted shouting yell yells yelled yelling recite recites "
    "recited reciting recitation chat chats chatted chatting discuss discusses discussed "
    "discussing discussion discussions debate debates debated debating argue argues argued arguing "
    "argument arguments ask asks asked asking tell tells told telling gossip gossips gossiping "
    "storytelling podcast podcasts newscast newscaster newsreader audiobook"
)
"""Words that mean speaking in any context."""

_DOUBTFUL = "chatter chatters chattered chattering babble babbles babbling murmur murmurs murmuring"
"""Words also used of monkeys and brooks, so they count only beside a word of `_PEOPLE`."""

_PEOPLE = (
    "people person persons human man men woman women male males female females boy boys girl girls "
    "child children kid kids baby babies infant adult adults someone somebody crowd crowds "
    "audience guests students passengers customers voice voices radio police"
)

# A singing voice has no transcript to promise: "voice" beside these words is music.
_SUNG = r"\b(?:sing|sings|singing|sung|sang|singer|singers|song|songs|choir|choral|vocals)\b"


def _any_word(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words.split())})\b", re.IGNORECASE)


_SPOKEN_WORD, _DOUBTFUL_WORD, _PEOPLE_WORD = map(_any_word, (_SPOKEN, _DOUBTFUL, _PEOPLE))

_VOICE_WORD, _SUNG_WORD = re.compile(r"\bvoices?\b", re.I), re.compile(_SUNG, re.I)

# Chinese has no word boundaries: a bare 说 would also hit 小说 (novel) and 据说 (it is said).
_CHINESE = re.compile(
    "说话|讲话|谈话|对话|交谈|攀谈|聊天|演讲|演说|讲演|朗读|朗诵|诵读|旁白|播音|解说|讲解|讲述|叙述|"
    "低语|耳语|私语|嘀咕|大喊|叫喊|呼喊|喊叫|喊道|人声|语音|话音|嗓音|说着|说道|说了|在说|说出|"
    "广播员|主持人|访谈|采访|辩论|讨论|争吵|议论"
)


def mentions_speech(caption: str) -> bool:
    """Whether a caption mentions speaking, in English or Chinese.

    Such clips are left out of the sounds: the caption would promise words that no transcript
    has (paper, appendix C: about 390,000 of the audio clips). Whole words count:
    "a loudspeaker hums" and "a parrot whistles" stay, "a parrot talking" does not. "Voice" counts
    unless somebody sings; chattering, babbling and murmuring count beside people only.
    """
    if _SPOKEN_WORD.search(caption) or _CHINESE.search(caption):
        return True
    if _VOICE_WORD.search(caption) and not _SUNG_WORD.search(caption):
        return True
    return bool(_DOUBTFUL_WORD.search(caption) and _PEOPLE_WORD.search(caption))


def text_fault(text: str) -> str:
    """Names what makes a text unusable, apart from its meaning; "" if nothing does.

    Args:
        text: As decoded with ``errors="surrogateescape"``, so that wrong bytes show as surrogates.
    """
    if len(text) > MAX_CHARACTERS:
        return TOO_LONG
    # Bytes that were no UTF-8 became lone surrogates when the text was read.
    if any("\ud800" <= character <= "\udfff" for character in text):
        return NOT_UTF8
    return "" if text.strip() else EMPTY


def plain_caption(caption: str) -> str:
    """Turns a sentence into a phrase: "A dog barks." -> "a dog barks"."""
    phrase = caption.strip().rstrip(".")
    return phrase[:1].lower() + phrase[1:]

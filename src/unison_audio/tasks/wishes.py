"""Finds the task of an edit's wishes, or says which part of them no task covers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unison_audio.errors import UnplacedError
from unison_audio.tasks.chinese import read_chinese
from unison_audio.tasks.clauses import EMPTY_QUOTE
from unison_audio.tasks.objects import is_pointed_at, is_said, kind_of, name_objects, strip_tail
from unison_audio.tasks.quotes import shorten
from unison_audio.tasks.verbs import Wish, check_whole, read_english
from unison_audio.tasks.voice_words import read_voice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unison_audio.tasks.clauses import Clause
    from unison_audio.tasks.objects import Kind

EDITS: dict[tuple[str, ...], str] = {
    ("add audio",): "edit_add",
    ("remove audio",): "edit_remove",
    ("replace audio",): "edit_replace",
    ("remove audio", "add audio"): "edit_replace",
    ("add audio", "remove audio"): "edit_replace",
    ("add speech",): "speech_insert",
    ("remove speech",): "speech_delete",
    ("change speech",): "speech_rewrite",
    ("remove speech", "add speech"): "speech_rewrite",
    ("add speech", "remove speech"): "speech_rewrite",
    ("denoise",): "denoise",
    ("remove audio", "add speech"): "audio_to_speech",
    ("add speech", "remove audio"): "audio_to_speech",
    ("remove speech", "add audio"): "speech_to_audio",
    ("add audio", "remove speech"): "speech_to_audio",
}
"""What an edit's wishes do, in the order of the instruction -> task."""

_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")

_WHOLE_TEXT = 'write the whole new text, as in [Edit][Speech] Change speech to "..."'


@dataclass(frozen=True, kw_only=True)
class Edit:
    """The meaning of an edit's clauses."""

    task: str
    """A key of `TASKS`."""
    objects: tuple[str, ...]
    """The sounds that it names, in order."""
    notes: tuple[str, ...] = ()
    """What the task cannot follow to the letter."""
    text: str | None = None
    """The instruction as two clauses with tags, where it was written as one."""


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A wish with what it does."""

    does: str
    """A part of a key of `EDITS`."""
    wish: Wish
    """The wish."""
    notes: tuple[str, ...] = ()
    """What the task cannot follow to the letter."""


def read_wishes(words: str) -> list[Wish]:
    """Read the words of an edit's clause, in the language that its verb has.

    Raises:
        UnplacedError: A part of them has no place in any edit.
    """
    words = " ".join(words.split())
    wishes = read_english(words)
    if _CHINESE.search(words) and all(wish.action == "other" for wish in wishes):
        return read_chinese(words)
    return wishes


def read_edit(clauses: Sequence[Clause]) -> Edit:
    """Find the task of an edit.

    Args:
        clauses: Clauses with the tags "edit audio" or "edit speech".

    Raises:
        UnplacedError: They ask for something else than one task does.
    """
    own = [(clause, wish) for clause in clauses for wish in read_wishes(clause.words)]
    for _, wish in own:
        if wish.action == "other":
            raise _unknown_verb(wish.words, alone=len(own) == 1)
        check_whole(wish.old)
        if wish.action == "add":
            check_whole(wish.new)
    if not own:
        raise UnplacedError("there is no verb such as add or remove", forms=True)
    one_clause_each = len(own) == len(clauses)
    if one_clause_each:
        steps = [_step(wish, clause.tags) for clause, wish in own]
    elif len(own) == 2:
        steps = [_step(wish, _tags_of(wish)) for _, wish in own]
    else:
        raise UnplacedError(f"{_listed(own)} are {len(own)} wishes; make one edit after the other")
    task = EDITS.get(tuple(step.does for step in steps))
    if task is None:
        raise UnplacedError(
            f"{_listed(own)} are two wishes, and no task was trained on both; make one edit after "
            "the other"
        )
    objects = tuple(
        name for step in steps if step.does.endswith("audio") for name in _objects(step.wish)
    )
    notes = tuple(note for step in steps for note in step.notes)
    text = None
    if len(steps) == 1:
        return _exchanged(steps[0], clauses[0]) or Edit(task=task, objects=objects, notes=notes)
    if not one_clause_each:
        text = _as_clauses(task, steps, clauses[0])
    return Edit(task=task, objects=objects, notes=notes, text=text)


def sound_phrases(clause: Clause) -> list[str]:
    """The phrases of an edit's clause that describe sounds, as far as its verbs are known."""
    try:
        wishes = read_wishes(clause.words)
    except UnplacedError:
        wishes = []
    if not wishes or any(wish.action == "other" for wish in wishes):
        return [clause.words.replace(EMPTY_QUOTE, " ")] if clause.tags == "edit audio" else []
    phrases = [side for wish in wishes for side in (wish.old, wish.new) if side]
    if clause.tags == "edit speech":
        phrases = [phrase for phrase in phrases if kind_of(phrase) == "sound"]
    return [phrase for phrase in phrases if EMPTY_QUOTE not in phrase]


def _objects(wish: Wish) -> tuple[str, ...]:
    sides = (strip_tail(side) for side in (wish.old, wish.new) if EMPTY_QUOTE not in side)
    return tuple(side for side in sides if side)


def _tags_of(wish: Wish) -> str:
    """The tags that a wish would have as a clause of its own."""
    kinds = {kind_of(item) for item in name_objects(wish.old or wish.new)}
    spoken = EMPTY_QUOTE in wish.words or wish.action == "clean" or "speech" in kinds
    return "edit speech" if spoken or kinds == {"noise"} else "edit audio"


def _step(wish: Wish, tags: str) -> _Step:
    if tags == "edit speech":
        return _speech_step(wish)
    if tags == "edit audio":
        return _audio_step(wish)
    raise UnplacedError(f"[{tags}] is no tag of an edit; write [Edit][Audio] or [Edit][Speech]")


def _speech_step(wish: Wish) -> _Step:
    if wish.action == "add":
        return _insert(wish)
    if wish.action in ("change", "replace"):
        return _rewrite(wish)
    if EMPTY_QUOTE in wish.words:
        raise UnplacedError(f"{_quoted(wish.words)} concerns some of the words only; {_WHOLE_TEXT}")
    items = name_objects(strip_tail(wish.old))
    kinds = [kind_of(item) for item in items]
    if wish.action == "clean":
        for item, kind in zip(items, kinds, strict=True):
            if kind not in ("speech", "noise", "all", "nothing"):
                raise UnplacedError(_no_denoising(item, kind))
        return _Step(does="denoise", wish=wish)
    if not items or set(kinds) & {"all", "nothing"}:
        raise UnplacedError(
            f"{_quoted(wish.words)} does not say what is to go; name it, as in "
            "[Edit][Speech] Remove the noise"
        )
    if set(kinds) == {"noise"}:
        return _Step(does="denoise", wish=wish)
    if set(kinds) == {"speech"} and wish.action == "remove":
        return _Step(does="remove speech", wish=wish, notes=_all_speech(items))
    if len(set(kinds)) > 1:
        sound = next((i for i, k in zip(items, kinds, strict=True) if k == "sound"), "the rain")
        raise UnplacedError(
            f"{_named(items)} are of two kinds, and a task removes one; write "
            "[Edit][Speech] Remove the speech, [Edit][Audio] Remove "
            f"{shorten(sound)}, or "
            "[Edit][Speech] Denoise the recording, one after the other"
        )
    if kinds[0] == "speech":
        raise UnplacedError(
            f"{_quoted(wish.words)} asks for a part of an edit; write [Edit][Speech] Remove the "
            "speech"
        )
    raise UnplacedError(_no_denoising(items[0], kinds[0]))


def _insert(wish: Wish) -> _Step:
    texts = wish.new.count(EMPTY_QUOTE)
    if texts > 1:
        raise UnplacedError(f"{_quoted(wish.words)} has {texts} texts; write one")
    if texts == 0:
        kinds = {kind_of(item) for item in name_objects(wish.new)}
        cure = (
            f"write [Edit][Audio] Add {shorten(wish.new)}"
            if kinds == {"sound"} and not re.search(r"voice|say|speak|人声|说", wish.new)
            else 'write them in quotes, as in [Edit][Speech] Add a voice saying "..."'
        )
        raise UnplacedError(f"{_quoted(wish.words)} has no words to speak; {cure}")
    voice = read_voice(wish.new)
    said = [voice.gender] if voice.gender else []
    return _Step(does="add speech", wish=wish, notes=_unknown_voice([*said, *voice.qualities]))


def _rewrite(wish: Wish) -> _Step:
    texts = wish.words.count(EMPTY_QUOTE)
    old = strip_tail(wish.old)
    if texts > 1 or EMPTY_QUOTE in old or kind_of(old) == "word":
        raise UnplacedError(
            f"{_quoted(wish.words)} concerns some of the words only, and the whole text is always "
            f"made anew; {_WHOLE_TEXT}"
        )
    items = name_objects(old)
    if texts == 1 and is_said(old):
        voice = read_voice(wish.new)
        said = [voice.gender] if voice.gender else []
        return _Step(
            does="change speech", wish=wish, notes=_unknown_voice([*said, *voice.qualities])
        )
    spoken = [kind_of(item) == "speech" for item in items]
    replaces_sound = wish.action == "replace" and texts == 1 and items and not any(spoken)
    replaces_speech = wish.new and texts == 0 and spoken and all(spoken)
    if replaces_sound or (replaces_speech and kind_of(wish.new) == "sound"):
        return _Step(does="replace audio", wish=wish)
    raise UnplacedError(
        f"{_quoted(wish.words)} is no change that a task makes; {_WHOLE_TEXT}"
        if texts == 0
        else f"{_quoted(old)} is no speech; {_WHOLE_TEXT}"
    )


def _audio_step(wish: Wish) -> _Step:
    if wish.action in ("clean", "reduce"):
        raise UnplacedError(
            f"{_quoted(wish.words)} concerns speech; write [Edit][Speech] Denoise the recording, "
            "or [Edit][Audio] Remove ..."
        )
    if wish.action in ("replace", "change"):
        if not wish.old or not wish.new:
            raise UnplacedError(
                f"{_quoted(wish.words)} is no change that a task makes; write [Edit][Audio] "
                "Replace ... with ..."
            )
        if EMPTY_QUOTE not in wish.old and (EMPTY_QUOTE not in wish.new or not is_said(wish.old)):
            return _Step(does="replace audio", wish=wish)
        raise UnplacedError(f"{_quoted(wish.words)} concerns speech; {_WHOLE_TEXT}")
    phrase = wish.new if wish.action == "add" else wish.old
    if EMPTY_QUOTE in phrase:
        verb = 'Add a voice saying "..."' if wish.action == "add" else "Remove the speech"
        raise UnplacedError(f"{_quoted(wish.words)} concerns speech; write [Edit][Speech] {verb}")
    items = name_objects(strip_tail(phrase))
    kinds = [kind_of(item) for item in items]
    if set(kinds) <= {"all", "nothing"}:
        raise UnplacedError(f"{_quoted(wish.words)} names no sound; name it", forms=True)
    if wish.action == "add":
        return _Step(does="add audio", wish=wish, notes=_several(items, "add"))
    pointed = [is_pointed_at(item) for item in items]
    spoken = [kind == "speech" and the for kind, the in zip(kinds, pointed, strict=True)]
    if any(spoken) and len(items) > 1:
        raise UnplacedError(
            f"{_named(items)} are of two kinds, and a task removes one; write "
            "[Edit][Speech] Remove the speech for the words, and [Edit][Audio] Remove ... for a "
            "sound"
        )
    if any(spoken):
        raise UnplacedError(
            f"{_quoted(items[0])} is speech; write [Edit][Speech] Remove the speech"
        )
    if kinds[0] == "echo" and pointed[0]:
        raise UnplacedError(_no_denoising(items[0], "echo"))
    return _Step(does="remove audio", wish=wish, notes=_several(items, "remove"))


def _exchanged(step: _Step, clause: Clause) -> Edit | None:
    """The edit of a lone "replace" between speech and a sound; None for any other wish."""
    wish = step.wish
    if step.does != "replace audio":
        return None
    objects = tuple(name for name in _objects(wish) if kind_of(name) != "speech")
    chinese = bool(_CHINESE.search(wish.words))
    remove, add = ("去掉", "加上") if chinese else ("Remove ", "add ")
    if EMPTY_QUOTE in wish.new:
        voice = wish.new if wish.new != EMPTY_QUOTE else f"a voice saying {wish.new}"
        read = read_voice(voice)
        said = [read.gender] if read.gender else []
        text = f"[Edit][Audio] {remove}{wish.old} [Edit][Speech] {add}{voice}"
        return Edit(
            task="audio_to_speech",
            objects=objects,
            notes=_unknown_voice([*said, *read.qualities]),
            text=_filled(text, clause),
        )
    items = name_objects(strip_tail(wish.old))
    spoken = [kind_of(item) == "speech" and is_pointed_at(item) for item in items]
    if clause.tags == "edit speech" or (items and all(spoken)):
        text = f"[Edit][Speech] {remove}{wish.old} [Edit][Audio] {add}{wish.new}"
        return Edit(task="speech_to_audio", objects=objects, text=_filled(text, clause))
    if any(spoken):
        raise UnplacedError(f"{_named(items)} are of two kinds; replace one after the other")
    return None


def _as_clauses(task: str, steps: Sequence[_Step], clause: Clause) -> str:
    """Two wishes of one clause in the form of the training: two clauses, the removal first."""
    if task == "speech_rewrite":
        return _filled('[Edit][Speech] Change speech to ""', clause)
    ordered = sorted(steps, key=lambda step: not step.does.startswith("remove"))
    texts = (
        f"[Edit][{step.does.split()[-1].capitalize()}] {step.wish.words.strip(' .,;!')}"
        for step in ordered
    )
    return _filled(" ".join(texts), clause)


def _filled(text: str, clause: Clause) -> str:
    """A text with the quoted texts in the place of its bare quotes, in their order."""
    parts = text.split(EMPTY_QUOTE)
    quoted = [f'"{said}"' for said in clause.texts] + [""] * len(parts)
    return "".join(
        part + said for part, said in zip(parts, [*quoted[: len(parts) - 1], ""], strict=True)
    )


def _no_denoising(item: str, kind: Kind) -> str:
    if kind == "echo":
        return (
            f"{_quoted(item)} stays: no task was trained on echo; [Edit][Speech] Denoise the "
            "recording removes noise"
        )
    name = shorten(item)
    return (
        f"{_quoted(item)} is neither speech nor noise; write [Edit][Audio] Remove {name} for "
        "one sound, or [Edit][Speech] Denoise the recording for all that is not speech"
    )


def _all_speech(items: Sequence[str]) -> tuple[str, ...]:
    """A note where one of several voices seems to be meant."""
    which = re.compile(
        r"\b(?:male|female|man|woman|men|women|boy|girl|child|background|second|first|other|his|her)"
        r"(?:['’]s)?\b|男|女|背景",
        re.IGNORECASE,
    )
    meant = [item for item in items if which.search(item)]
    if not meant:
        return ()
    return (f"{_quoted(meant[0])} cannot be told from other voices: all speech is removed",)


def _unknown_voice(qualities: Sequence[str]) -> tuple[str, ...]:
    if not qualities:
        return ()
    listed = _named(qualities)
    return (f"no edit was trained on how the new voice sounds, so {listed} may have no effect",)


def _several(items: Sequence[str], verb: str) -> tuple[str, ...]:
    if len(items) < 2:
        return ()
    done = "added" if verb == "add" else "removed"
    return (
        f"edits were trained on one sound at a time, and {_named(items)} may not all be {done}",
    )


_KEEP = re.compile(
    r"(?:keep|isolate|extract|separate|preserve|retain|leave)\s+(?:only\s+)?(?P<en>.+)"
    r"|只?(?:保留|留下|留|要|提取|分离出?)(?P<zh>.+)",
    re.IGNORECASE,
)


def _unknown_verb(words: str, alone: bool) -> UnplacedError:
    kept = _KEEP.match(words)
    phrase = strip_tail(kept["en"] or kept["zh"]) if kept else ""
    if kept and not alone:
        return UnplacedError(f"{_quoted(words)} is no edit: what is not named stays; leave it out")
    if kept and kind_of(phrase) == "speech":
        return UnplacedError(f"{_quoted(words)}: write [Edit][Speech] Denoise the recording")
    if kept:
        return UnplacedError(
            f"{_quoted(words)}: write [Edit][Audio] Remove {shorten(phrase)} with --extract, which "
            "gives what is removed"
        )
    return UnplacedError(
        f"{_quoted(words)} has no verb that an edit has: add, remove, replace, change or denoise",
        forms=True,
    )


def _listed(own: Sequence[tuple[Clause, Wish]]) -> str:
    return _named([wish.words for _, wish in own[:4]])


def _named(items: Sequence[str]) -> str:
    quoted = [_quoted(item) for item in items[:4]]
    return " and ".join(quoted)


def _quoted(part: str) -> str:
    return f'"{shorten(part.strip(" .,;!").replace(EMPTY_QUOTE, "..."))}"'

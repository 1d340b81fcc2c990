"""Finds the task of an edit's wishes, or says which part of them no task covers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unison_audio.errors import UnplacedError
from unison_audio.tasks.chinese import read_chinese
from unison_audio.tasks.clauses import EMPTY_QUOTE
from unison_audio.tasks.edit_steps import Step, named, quoted, step_of, unknown_voice
from unison_audio.tasks.objects import is_pointed_at, kind_of, name_objects, strip_tail
from unison_audio.tasks.quotes import shorten
from unison_audio.tasks.verbs import Wish, check_whole, read_english

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from unison_audio.tasks.clauses import Clause

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


def read_edit(clauses: Sequence[Clause], labels: Collection[str] = ()) -> Edit:
    """Find the task of an edit.

    Args:
        clauses: Clauses with the tags "edit audio" or "edit speech".
        labels: Names of single sounds; one with "and" inside is no list.

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
        steps = [step_of(wish, clause.tags, labels) for clause, wish in own]
    elif len(own) == 2:
        steps = [step_of(wish, _tags_of(wish), labels) for _, wish in own]
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


def _exchanged(step: Step, clause: Clause) -> Edit | None:
    """The edit of a lone "replace" between speech and a sound; None for any other wish."""
    wish = step.wish
    if step.does != "replace audio":
        return None
    objects = tuple(name for name in _objects(wish) if kind_of(name) != "speech")
    chinese = bool(_CHINESE.search(wish.words))
    remove, add = ("去掉", "加上") if chinese else ("Remove ", "add ")
    if EMPTY_QUOTE in wish.new:
        voice = wish.new if wish.new != EMPTY_QUOTE else f"a voice saying {wish.new}"
        text = f"[Edit][Audio] {remove}{wish.old} [Edit][Speech] {add}{voice}"
        return Edit(
            task="audio_to_speech",
            objects=objects,
            notes=unknown_voice(voice),
            text=_filled(text, clause),
        )
    items = name_objects(strip_tail(wish.old))
    spoken = [kind_of(item) == "speech" and is_pointed_at(item) for item in items]
    if clause.tags == "edit speech" or (items and all(spoken)):
        text = f"[Edit][Speech] {remove}{wish.old} [Edit][Audio] {add}{wish.new}"
        return Edit(task="speech_to_audio", objects=objects, text=_filled(text, clause))
    if any(spoken):
        raise UnplacedError(f"{named(items)} are of two kinds; replace one after the other")
    return None


def _as_clauses(task: str, steps: Sequence[Step], clause: Clause) -> str:
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


_KEEP = re.compile(
    r"(?:keep|isolate|extract|separate|preserve|retain|leave)\s+(?:only\s+)?(?P<en>.+)"
    r"|只?(?:保留|留下|留|要|提取|分离出?)(?P<zh>.+)",
    re.IGNORECASE,
)


def _unknown_verb(words: str, alone: bool) -> UnplacedError:
    kept = _KEEP.match(words)
    phrase = strip_tail(kept["en"] or kept["zh"]) if kept else ""
    if kept and not alone:
        return UnplacedError(f"{quoted(words)} is no edit: what is not named stays; leave it out")
    if kept and kind_of(phrase) == "speech":
        return UnplacedError(f"{quoted(words)}: write [Edit][Speech] Denoise the recording")
    if kept:
        return UnplacedError(
            f"{quoted(words)}: write [Edit][Audio] Remove {shorten(phrase)} with --extract, which "
            "gives what is removed"
        )
    return UnplacedError(
        f"{quoted(words)} has no verb that an edit has: add, remove, replace, change or denoise",
        forms=True,
    )


def _listed(own: Sequence[tuple[Clause, Wish]]) -> str:
    return named([wish.words for _, wish in own[:4]])

"""Finds what one wish of an edit does, or says why no task does that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unison_audio.errors import UnplacedError
from unison_audio.tasks.clauses import EMPTY_QUOTE
from unison_audio.tasks.objects import is_pointed_at, is_said, kind_of, name_objects, strip_tail
from unison_audio.tasks.quotes import shorten
from unison_audio.tasks.voice_words import read_voice

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from unison_audio.tasks.objects import Kind
    from unison_audio.tasks.verbs import Wish

_WHOLE_TEXT = 'write the whole new text, as in [Edit][Speech] Change speech to "..."'


@dataclass(frozen=True, kw_only=True)
class Step:
    """A wish with what it does."""

    does: str
    """A part of a key of `EDITS`."""
    wish: Wish
    """The wish."""
    notes: tuple[str, ...] = ()
    """What the task cannot follow to the letter."""


def step_of(wish: Wish, tags: str, labels: Collection[str] = ()) -> Step:
    """Find what a wish does.

    Args:
        wish: The wish; its verb is known.
        tags: "edit audio" or "edit speech".
        labels: Names of single sounds; one with "and" inside is no list.

    Raises:
        UnplacedError: No task does it.
    """
    if tags == "edit speech":
        return _speech_step(wish)
    if tags == "edit audio":
        return _audio_step(wish, labels)
    raise UnplacedError(f"[{tags}] is no tag of an edit; write [Edit][Audio] or [Edit][Speech]")


def _speech_step(wish: Wish) -> Step:
    if wish.action == "add":
        return _insert(wish)
    if wish.action in ("change", "replace"):
        return _rewrite(wish)
    if EMPTY_QUOTE in wish.words:
        raise UnplacedError(f"{quoted(wish.words)} concerns some of the words only; {_WHOLE_TEXT}")
    items = name_objects(strip_tail(wish.old))
    kinds = [kind_of(item) for item in items]
    if wish.action == "clean":
        for item, kind in zip(items, kinds, strict=True):
            if kind not in ("speech", "noise", "all", "nothing"):
                raise UnplacedError(_no_denoising(item, kind))
        return Step(does="denoise", wish=wish)
    if not items or set(kinds) & {"all", "nothing"}:
        raise UnplacedError(
            f"{quoted(wish.words)} does not say what is to go; name it, as in "
            "[Edit][Speech] Remove the noise"
        )
    if set(kinds) == {"noise"}:
        return Step(does="denoise", wish=wish)
    if set(kinds) == {"speech"} and wish.action == "remove":
        return Step(does="remove speech", wish=wish, notes=_all_speech(items))
    if len(set(kinds)) > 1:
        sound = next((i for i, k in zip(items, kinds, strict=True) if k == "sound"), "the rain")
        raise UnplacedError(
            f"{named(items)} are of two kinds, and a task removes one; write "
            "[Edit][Speech] Remove the speech, [Edit][Audio] Remove "
            f"{shorten(sound)}, or "
            "[Edit][Speech] Denoise the recording, one after the other"
        )
    if kinds[0] == "speech":
        raise UnplacedError(
            f"{quoted(wish.words)} asks for a part of an edit; write [Edit][Speech] Remove the "
            "speech"
        )
    raise UnplacedError(_no_denoising(items[0], kinds[0]))


def _insert(wish: Wish) -> Step:
    texts = wish.new.count(EMPTY_QUOTE)
    if texts > 1:
        raise UnplacedError(f"{quoted(wish.words)} has {texts} texts; write one")
    if texts == 0:
        kinds = {kind_of(item) for item in name_objects(wish.new)}
        cure = (
            f"write [Edit][Audio] Add {shorten(wish.new)}"
            if kinds == {"sound"} and not re.search(r"voice|say|speak|人声|说", wish.new)
            else 'write them in quotes, as in [Edit][Speech] Add a voice saying "..."'
        )
        raise UnplacedError(f"{quoted(wish.words)} has no words to speak; {cure}")
    return Step(does="add speech", wish=wish, notes=unknown_voice(wish.new))


def _rewrite(wish: Wish) -> Step:
    texts = wish.words.count(EMPTY_QUOTE)
    old = strip_tail(wish.old)
    if texts > 1 or EMPTY_QUOTE in old or kind_of(old) == "word":
        raise UnplacedError(
            f"{quoted(wish.words)} concerns some of the words only, and the whole text is always "
            f"made anew; {_WHOLE_TEXT}"
        )
    items = name_objects(old)
    if texts == 1 and is_said(old):
        return Step(does="change speech", wish=wish, notes=unknown_voice(wish.new))
    spoken = [kind_of(item) == "speech" for item in items]
    replaces_sound = wish.action == "replace" and texts == 1 and items and not any(spoken)
    replaces_speech = wish.new and texts == 0 and spoken and all(spoken)
    if replaces_sound or (replaces_speech and kind_of(wish.new) == "sound"):
        return Step(does="replace audio", wish=wish)
    raise UnplacedError(
        f"{quoted(wish.words)} is no change that a task makes; {_WHOLE_TEXT}"
        if texts == 0
        else f"{quoted(old)} is no speech; {_WHOLE_TEXT}"
    )


def _audio_step(wish: Wish, labels: Collection[str]) -> Step:
    if wish.action in ("clean", "reduce"):
        raise UnplacedError(
            f"{quoted(wish.words)} concerns speech; write [Edit][Speech] Denoise the recording, "
            "or [Edit][Audio] Remove ..."
        )
    if wish.action in ("replace", "change"):
        if not wish.old or not wish.new:
            raise UnplacedError(
                f"{quoted(wish.words)} is no change that a task makes; write [Edit][Audio] "
                "Replace ... with ..."
            )
        if EMPTY_QUOTE not in wish.old and (EMPTY_QUOTE not in wish.new or not is_said(wish.old)):
            return Step(does="replace audio", wish=wish)
        raise UnplacedError(f"{quoted(wish.words)} concerns speech; {_WHOLE_TEXT}")
    phrase = wish.new if wish.action == "add" else wish.old
    if EMPTY_QUOTE in phrase:
        verb = 'Add a voice saying "..."' if wish.action == "add" else "Remove the speech"
        raise UnplacedError(f"{quoted(wish.words)} concerns speech; write [Edit][Speech] {verb}")
    items = name_objects(strip_tail(phrase), labels)
    kinds = [kind_of(item) for item in items]
    if set(kinds) <= {"all", "nothing"}:
        raise UnplacedError(f"{quoted(wish.words)} names no sound; name it", forms=True)
    if wish.action == "add":
        return Step(does="add audio", wish=wish, notes=_several(items, "add"))
    pointed = [is_pointed_at(item) for item in items]
    spoken = [kind == "speech" and the for kind, the in zip(kinds, pointed, strict=True)]
    if any(spoken) and len(items) > 1:
        raise UnplacedError(
            f"{named(items)} are of two kinds, and a task removes one; write "
            "[Edit][Speech] Remove the speech for the words, and [Edit][Audio] Remove ... for a "
            "sound"
        )
    if any(spoken):
        raise UnplacedError(f"{quoted(items[0])} is speech; write [Edit][Speech] Remove the speech")
    if kinds[0] == "echo" and pointed[0]:
        raise UnplacedError(_no_denoising(items[0], "echo"))
    return Step(does="remove audio", wish=wish, notes=_several(items, "remove"))


def _no_denoising(item: str, kind: Kind) -> str:
    if kind == "echo":
        return (
            f"{quoted(item)} stays: no task was trained on echo; [Edit][Speech] Denoise the "
            "recording removes noise"
        )
    name = shorten(item)
    return (
        f"{quoted(item)} is neither speech nor noise; write [Edit][Audio] Remove {name} for "
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
    return (f"{quoted(meant[0])} cannot be told from other voices: all speech is removed",)


def unknown_voice(phrase: str) -> tuple[str, ...]:
    """A note where the words around a text say how the new voice sounds."""
    voice = read_voice(phrase)
    said = [*([voice.gender] if voice.gender else []), *voice.qualities]
    if not said:
        return ()
    return (
        f"no edit was trained on how the new voice sounds, so {named(said)} may have no effect",
    )


def _several(items: Sequence[str], verb: str) -> tuple[str, ...]:
    if len(items) < 2:
        return ()
    done = "added" if verb == "add" else "removed"
    return (f"edits were trained on one sound at a time, and {named(items)} may not all be {done}",)


def named(items: Sequence[str]) -> str:
    """The first of several parts of an instruction, in quotes."""
    return " and ".join(quoted(item) for item in items[:4])


def quoted(part: str) -> str:
    """A part of an instruction as a message quotes it."""
    return f'"{shorten(part.strip(" .,;!").replace(EMPTY_QUOTE, "..."))}"'

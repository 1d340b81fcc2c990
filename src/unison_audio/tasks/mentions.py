"""Finds the texts and the sounds that an instruction names, also where its task is unclear."""

from dataclasses import dataclass

from unison_audio.errors import UnplacedError
from unison_audio.tasks.clauses import EMPTY_QUOTE, split_clauses
from unison_audio.tasks.reference_text import new_text_span
from unison_audio.tasks.timings import read_timing
from unison_audio.tasks.wishes import sound_phrases


@dataclass(frozen=True)
class Mentions:
    """The texts and the sounds that an instruction names."""

    texts: tuple[str, ...]
    """Texts to speak."""
    sounds: tuple[str, ...]
    """Descriptions of sounds, one for each clause; a description may name several sounds."""


def mentions(instruction: str) -> Mentions:
    """Find the texts and the sounds that an instruction names, in whatever wording.

    Args:
        instruction: Instruction with the tags of the task table.
    """
    clauses = split_clauses(instruction)
    if clauses and clauses[0].tags == "speech with voice":
        start, end = new_text_span(instruction)
        return Mentions((instruction[start:end],), ())
    texts = [text for clause in clauses for text in clause.texts]
    sounds: list[str] = []
    for clause in clauses:
        if clause.tags == "audio":
            sounds.append(_without_times(clause.words.replace(EMPTY_QUOTE, " ")))
        elif clause.tags.startswith("edit"):
            phrases = sound_phrases(clause)
            sounds += [", ".join(phrases)] if phrases else []
    return Mentions(tuple(texts), tuple(sounds))


def _without_times(words: str) -> str:
    try:
        return read_timing(words).without_times()
    except UnplacedError:
        return words

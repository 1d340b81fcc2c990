"""What to write where an instruction begins with no tag, or with one that does not exist."""

import difflib
import re

from unison_audio.tasks.clauses import TAG
from unison_audio.tasks.quotes import outside_quotes, shorten

_BRACKETS = re.compile(r"[\[［【][^\[\]［］【】]{1,60}[\]］】]")
"""Words in brackets, which may be meant as a tag."""

_MEANT = {
    "speech": "[Speech]",
    "audio": "[Audio]",
    "speech with voice": "[Speech with voice]",
    "edit audio": "[Edit][Audio]",
    "edit speech": "[Edit][Speech]",
    "edit": "[Edit]",
}
"""Words of a tag -> the tag, for suggestions."""


def first_tag(instruction: str, has_source: bool, has_reference: bool) -> str:
    """Say what is wrong with the beginning of an instruction, and what to write.

    Args:
        instruction: An instruction that does not begin with a tag.
        has_source: Whether a recording to edit is given.
        has_reference: Whether a recording of a voice is given.
    """
    first = _BRACKETS.match(instruction.lstrip())
    if first and not TAG.match(first[0]):
        return f"is not understood: {no_tag(first[0])}"
    return f"does not begin with a tag; {_with_tag(instruction, has_source, has_reference)}"


def no_tag(written: str) -> str:
    """Say that words in brackets are no tag, and which tag they are near to.

    Args:
        written: The words with their brackets.
    """
    words = " ".join(re.findall(r"\w+", written.lower()))
    near = difflib.get_close_matches(words, _MEANT, n=1)
    if near:
        return f'"{written}" is no tag; did you mean {_MEANT[near[0]]}?'
    *others, last = (tag for tag in _MEANT.values() if tag != "[Edit]")
    return f'"{written}" is no tag; write {", ".join(others)} or {last}'


def _with_tag(instruction: str, has_source: bool, has_reference: bool) -> str:
    """The words with the tags that they may lack, so that they can be copied."""
    words = shorten(instruction)
    inside = TAG.search(instruction)
    if inside:
        return f"put {inside[0]} first"
    if not re.search(r"\w", words):
        return "write the tag of its task and the words, such as [Audio] rain"
    if has_source:
        return f"write [Edit][Audio] {words} for a sound, [Edit][Speech] {words} for speech"
    if has_reference:
        return f"write [Speech with voice] {words} for speech in that voice"
    if outside_quotes(instruction)[1]:
        return f"write [Speech] {words} for speech"
    return f'write [Audio] {words} for a sound, [Speech] Say "{words}" for speech'

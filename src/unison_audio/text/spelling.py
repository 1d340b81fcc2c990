"""The one place where instructions are spelled for a variant.

Generation, batches, training, fine-tuning, evaluation and baselines all read their instructions
through a text encoder, so that it alone can give every path the same tokens.
"""

import re
from collections.abc import Sequence

from unison_audio.tasks.clauses import respell, split_clauses
from unison_audio.tasks.quotes import outside_quotes
from unison_audio.tasks.reference_text import new_text_span
from unison_audio.text.states import TextSetup

_PART = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[,;:.!?…—–，。！？；：]+(?=\s|$)|[—…，。！？；：]+")

WORD_BREAK, PAUSE = " | ", " , "
"""What stands between two words in letters, and between two phrases."""


def spelled(instructions: Sequence[str], setup: TextSetup) -> list[str]:
    """Spells the tags of edits, and the words to be spoken, as the variant's weights saw them."""
    found = list(instructions)
    if setup.edit_tag_spelling:
        found = [respell(instruction, setup.edit_tag_spelling) for instruction in found]
    return [_with_letters(instruction) for instruction in found] if setup.letters else found


def _with_letters(instruction: str) -> str:
    """Spells the words to be spoken in letters; the rest of the instruction does not change."""
    clauses = split_clauses(instruction)
    if clauses and clauses[0].tags == "speech with voice":
        start, end = new_text_span(instruction)
        return instruction[:start] + letters(instruction[start:end]) + instruction[end:]
    parts, quotes = outside_quotes(instruction)
    said = [quote.marked[0] + letters(quote.text) + quote.marked[-1] for quote in quotes]
    return "".join(part + quote for part, quote in zip(parts, [*said, ""], strict=True))


def letters(text: str) -> str:
    """Spells a text: "the red dog, there" -> "t h e | r e d | d o g , t h e r e".

    Marks between two phrases become a comma, the mark of a pause; those at the ends are left out. A
    text without any word comes back as it is.

    Args:
        text: Words in any case.
    """
    spelled_text = ""
    for part in _PART.findall(text.lower().replace("’", "'")):
        if not part[0].isalnum():
            spelled_text = spelled_text.removesuffix(PAUSE) + (PAUSE if spelled_text else "")
            continue
        between = "" if not spelled_text or spelled_text.endswith(PAUSE) else WORD_BREAK
        spelled_text += between + " ".join(part)
    return spelled_text.removesuffix(PAUSE) or text

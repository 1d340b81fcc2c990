"""The tags of instructions: finds them, spells them, and splits an instruction at them."""

import re
from dataclasses import dataclass

from unison_audio.errors import InputError
from unison_audio.tasks.quotes import Quote, outside_quotes
from unison_audio.tasks.table import TASKS

SPELLINGS: dict[str, str] = {"[Edit][Audio]": "", "[Edit] [Audio]": " "}
"""Spellings of an edit's tags, named by example -> the text between the two tags."""

MAX_CHARACTERS = 100_000
"""Longest instruction that is read at all; books are spoken from a file."""

_OPEN, _CLOSE = r"[\[［【]\s{0,9}", r"\s{0,9}[\]］】]"

TAG = re.compile(
    rf"{_OPEN}(edit|speech\s{{1,9}}with\s{{1,9}}voice|speech|audio){_CLOSE}", re.IGNORECASE
)
"""A tag, in any case and in square brackets of any width."""

EMPTY_QUOTE = '""'
"""What stands for a quoted text in a clause's words."""


@dataclass(frozen=True, kw_only=True)
class Clause:
    """A tag, or an edit's two tags, with the words that follow."""

    tags: str
    """Such as "speech" or "edit audio"."""
    words: str
    """The words, with each quoted text reduced to `EMPTY_QUOTE`. Empty quotes are left out, so that
    a missing text is noticed."""
    texts: tuple[str, ...]
    """The quoted texts."""
    whole: str
    """The words with the quoted texts."""


def check_size(instruction: str) -> None:
    """Refuse an instruction that is too long to be read.

    Raises:
        InputError: It has more than `MAX_CHARACTERS`.
    """
    if len(instruction) > MAX_CHARACTERS:
        raise InputError(
            f"The instruction has {len(instruction):,} characters, at most {MAX_CHARACTERS:,} are "
            "read; shorten it, or give a long text with --text-file."
        )


def with_tags(instruction: str, task: str) -> str:
    """Put the tags of a named task before an instruction that begins with none.

    The weights saw no instruction without tags. Of a task with two clauses these are the tags of
    the first.

    Args:
        instruction: The user's instruction.
        task: A key of `TASKS`.
    """
    if TAG.match(instruction.lstrip()):
        return instruction
    tags = re.match(r"(?:\[[^\]]*\]\s*)+", TASKS[task].templates[0])
    return f"{tags[0].strip()} {instruction.strip()}" if tags else instruction


def respell(instruction: str, spelling: str) -> str:
    """Spell the tags of an instruction as in the training of a variant's weights.

    Args:
        instruction: An instruction in either spelling; quoted text does not change.
        spelling: A key of `SPELLINGS`.

    Raises:
        InputError: The spelling is unknown.
    """
    if spelling not in SPELLINGS:
        raise InputError(
            f"Unknown spelling {spelling!r} of the edit tags; choose from {', '.join(SPELLINGS)}."
        )

    def tidy(outside: str) -> str:
        plain = TAG.sub(lambda tag: f"[{_tag_name(tag[1]).capitalize()}]", outside)
        return re.sub(r"\[Edit\]\s*\[", f"[Edit]{SPELLINGS[spelling]}[", plain)

    # A spoken text may itself contain "[edit]"; only what stands outside of quotes is changed.
    parts, quotes = outside_quotes(instruction)
    marked = [quote.marked for quote in quotes]
    return "".join(tidy(part) + quote for part, quote in zip(parts, [*marked, ""], strict=True))


def split_clauses(instruction: str) -> list[Clause]:
    """Split an instruction at its tags, those in quotes aside.

    Returns:
        The clauses; none if the instruction does not begin with a tag.
    """
    parts, quotes = outside_quotes(instruction)
    # A character that no instruction holds stands for each quote, so that one split serves all.
    marked = "\0".join(part.replace("\0", " ") for part in parts)
    texts = iter(quotes)
    pieces = TAG.split(marked)  # words, tag, words, tag, words ...
    if pieces[0].strip() or len(pieces) < 3:
        return []
    clauses: list[Clause] = []
    edit = ""  # "edit " after [Edit], which belongs to the next tag
    for tag, words in zip(pieces[1::2], pieces[2::2], strict=True):
        name = _tag_name(tag)
        if name == "edit" and not words.strip() and not edit:
            edit = "edit "
            continue
        own = [next(texts) for _ in range(words.count("\0"))]
        clauses.append(_clause(edit + name, words.split("\0"), own))
        edit = ""
    return [*clauses, Clause(tags="edit", words="", texts=(), whole="")] if edit else clauses


def _clause(tags: str, parts: list[str], quotes: list[Quote]) -> Clause:
    """A clause of its parts outside of quotes, and the quotes between them."""
    ends = [*quotes, None]
    bare = ("" if end is None or not end.text.strip() else EMPTY_QUOTE for end in ends)
    whole = ("" if end is None else end.marked for end in ends)
    return Clause(
        tags=tags,
        words="".join(part + end for part, end in zip(parts, bare, strict=True)).strip(),
        texts=tuple(quote.text for quote in quotes if quote.text.strip()),
        whole="".join(part + end for part, end in zip(parts, whole, strict=True)).strip(),
    )


def _tag_name(written: str) -> str:
    return " ".join(written.lower().split())

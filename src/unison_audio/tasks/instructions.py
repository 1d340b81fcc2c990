"""Reads instructions: finds their task and spells their tags.

Tags, inputs and verbs determine the task. A task without verbs here, such as one that
`register_task` added, is recognized by its templates. An instruction that fits no task is refused
with the templates that fit the inputs.
"""

import functools
import re
from dataclasses import dataclass

from unison_audio.errors import InputError
from unison_audio.tasks.reference_text import new_text_span
from unison_audio.tasks.table import TASKS
from unison_audio.tasks.verbs import EDIT_VERB, EDITS, find_action

SPELLINGS: dict[str, str] = {"[Edit][Audio]": "", "[Edit] [Audio]": " "}
"""Spellings of an edit's tags, named by example -> the text between the two tags."""

_TAG = re.compile(r"\[\s*(edit|speech\s+with\s+voice|speech|audio)\s*\]", re.IGNORECASE)

SHOWN = 120
"""Characters of an instruction that an error quotes."""

# Straight, curly and Chinese quotes. What stands inside is speech, never a tag or a verb.
_QUOTED = re.compile(r'"[^"]*"|“[^”]*”|「[^」]*」')

# Digits are bounded and begin only where no digit stands before: a search then takes linear time.
_NUMBER = r"(?<![\d.])(\d{1,9}(?:\.\d{1,9})?)(?![\d])"
_SECONDS = rf"{_NUMBER}\s*(?:s|sec|secs|seconds)?"

_WINDOW = re.compile(
    rf"{_SECONDS}\s*(?:to|-|–|until|till|and)\s*{_NUMBER}\s*(?:s|sec|secs|seconds)\b",
    re.IGNORECASE,
)

# A lone "with" is part of many captions ("a car with a horn"), so only ", with" counts as a mix.
_MIX = re.compile(r", with\b|\b(?:and|together with|mixed with|along with|while)\b", re.IGNORECASE)

_READ_BY_TAGS = frozenset({"tts", "zero_shot_tts", "t2a", "t2a_mix", "t2as", "timed"})
"""Tasks that `_read` finds without verbs."""


def parse_instruction(
    instruction: str, has_source: bool, has_reference: bool, task: str | None = None
) -> str:
    """Find the task of an instruction.

    Tags may have either spelling and any case. Other words than the table's templates are
    understood where their verbs are clear, in English and, for edits, in Chinese. A caption with
    "and" counts as a mix, which the model treats like any other caption. Where a task is named, the
    words are not read: the language model follows what no pattern does.

    Args:
        instruction: The user's instruction.
        has_source: Whether a recording to edit is given.
        has_reference: Whether a recording of a voice is given.
        task: The task, where the user names it.

    Returns:
        A key of `TASKS`.

    Raises:
        InputError: The instruction fits no task, or does not fit the inputs; the message lists the
            templates that do. Or the named task is unknown, or the instruction has no words.
    """
    if task is not None:
        if task not in TASKS:
            raise InputError(f"There is no task {task!r}; use one of {', '.join(TASKS)}.")
        if not re.search(r"\w", _TAG.sub("", instruction)):
            raise InputError(f"The instruction {_shown(instruction)} has no words; say what to do.")
        return _require_inputs(task, instruction, has_source, has_reference)
    # Templates of other tasks come first: the verbs below might claim a part of their text.
    name = _read_template(instruction)
    if name is not None:
        return _require_inputs(name, instruction, has_source, has_reference)
    clauses = _clauses(instruction)
    if not clauses:
        raise InputError(
            f"The instruction {_shown(instruction)} does not begin with a tag; name its task, or "
            f"{_listing(has_source, has_reference)}."
        )
    name = _read(clauses)
    if name is None:
        tags = tuple(tag for tag, _ in clauses)
        raise InputError(
            f"The instruction {_shown(instruction)} is not understood; name its task, or "
            f"{_listing(has_source, has_reference, tags)}."
        )
    return _require_inputs(name, instruction, has_source, has_reference)


def _require_inputs(name: str, instruction: str, has_source: bool, has_reference: bool) -> str:
    """Return the task's name if the inputs are those that it needs."""
    given = {"source": has_source, "reference": has_reference}
    for kind, present in given.items():
        if (kind in TASKS[name].needs) != present:
            what = "takes no" if present else "needs a"
            how = f"leave the {kind} out" if present else f"give the {kind}"
            raise InputError(
                f"The instruction {_shown(instruction)} ({name}) {what} {kind}; {how}, or "
                f"{_listing(has_source, has_reference)}."
            )
    return name


def with_tags(instruction: str, task: str) -> str:
    """Put the tags of a named task before an instruction that begins with none.

    The weights saw no instruction without tags. Of a task with two clauses these are the tags of
    the first.

    Args:
        instruction: The user's instruction.
        task: A key of `TASKS`.
    """
    if _TAG.match(instruction.lstrip()):
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
        plain = _TAG.sub(lambda tag: f"[{_tag_name(tag[1]).capitalize()}]", outside)
        return re.sub(r"\[Edit\]\s*\[", f"[Edit]{SPELLINGS[spelling]}[", plain)

    # A spoken text may itself contain "[edit]"; only what stands outside of quotes is changed.
    quoted = _QUOTED.findall(instruction)
    outside = [tidy(part) for part in _QUOTED.split(instruction)]
    return "".join(part + quote for part, quote in zip(outside, [*quoted, ""], strict=True))


def _tag_name(written: str) -> str:
    return " ".join(written.lower().split())


def _clauses(instruction: str) -> list[tuple[str, str]]:
    """Split an instruction at its tags into pairs of tags and text.

    Quoted text is reduced to a bare pair of quotes, and empty quotes vanish, so that a missing text
    is noticed. The result is empty if the instruction does not begin with a tag.
    """

    def bare(quote: re.Match[str]) -> str:
        return '""' if quote[0][1:-1].strip() else ""

    text = _QUOTED.sub(bare, instruction).strip()
    pieces = _TAG.split(text)  # words, tag, words, tag, words ...
    if pieces[0].strip() or len(pieces) < 3:
        return []
    clauses: list[tuple[str, str]] = []
    edit = ""  # "edit " after [Edit], which belongs to the next tag
    for tag, words in zip(pieces[1::2], pieces[2::2], strict=True):
        name = _tag_name(tag)
        if name == "edit" and not words.strip() and not edit:
            edit = "edit "
            continue
        clauses.append((edit + name, words.strip()))
        edit = ""
    return [*clauses, ("edit", "")] if edit else clauses


def _read_template(instruction: str) -> str | None:
    """Return the task with a matching template, among the tasks that verbs do not cover."""
    covered = _READ_BY_TAGS | set(EDITS.values())
    text = _normalized(instruction)
    for name, task in TASKS.items():
        if name not in covered and any(_pattern(form).fullmatch(text) for form in task.templates):
            return name
    return None


def _normalized(text: str) -> str:
    """Bring tags, quotes and spaces to one form."""
    straight = re.sub("[“”]", '"', respell(text, "[Edit][Audio]"))
    return " ".join(straight.split()).rstrip(".!")


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    """Compile a template to a pattern in which each placeholder stands for some text."""
    literals = re.split(r"\{\w+\}", _normalized(template))
    return re.compile(r"\S.*?".join(map(re.escape, literals)), re.IGNORECASE | re.DOTALL)


def _read(clauses: list[tuple[str, str]]) -> str | None:
    """Return the task of some clauses, whatever the inputs; None if they are not understood."""
    tags = tuple(tag for tag, _ in clauses)
    words = [text for _, text in clauses]
    if not all(re.search(r'\w|""', text) for text in words):
        return None
    if tags == ("speech",):
        return "tts" if '""' in words[0] else None
    if tags == ("speech", "audio"):
        return "t2as" if '""' in words[0] else None
    if tags == ("speech with voice",):
        return "zero_shot_tts"
    if tags == ("audio",):
        # Times make a timeline, whatever else the caption says. One that ends before it begins is
        # an error, not a caption.
        spans = _WINDOW.findall(words[0])
        if spans:
            return "timed" if all(float(a) < float(b) for a, b in spans) else None
        return "t2a_mix" if _MIX.search(words[0]) else "t2a"
    actions = tuple(find_action(tag, text) for tag, text in clauses)
    return EDITS.get(actions)


def _listing(has_source: bool, has_reference: bool, tags: tuple[str, ...] = ()) -> str:
    """List the first templates that fit the inputs, and if possible the tags."""
    fitting = [
        task.templates[0]
        for task in TASKS.values()
        if has_source == ("source" in task.needs) and has_reference == ("reference" in task.needs)
    ]
    if not fitting:
        return "no task takes both a source and a reference: leave one out"
    tagged = [
        form for form in fitting if tuple(tag for tag, _ in _clauses(form))[: len(tags)] == tags
    ]
    given = "a source" if has_source else "a reference" if has_reference else "no recording"
    # Some templates end in a full stop, and so does the sentence that this is the end of.
    return f"with {given} the forms are: {' | '.join(tagged or fitting)}".removesuffix(".")


def _shown(instruction: str) -> str:
    """The instruction as an error quotes it: a long one's beginning is enough to find it."""
    return repr(instruction if len(instruction) <= SHOWN else f"{instruction[:SHOWN]}...")


@dataclass(frozen=True)
class Mentions:
    """The texts and the sounds that an instruction names."""

    texts: tuple[str, ...]
    """Texts to speak."""
    sounds: tuple[str, ...]
    """Descriptions of sounds, one for each clause; a description may name several sounds."""


def mentions(instruction: str) -> Mentions:
    """Find the texts and the sounds that an instruction names.

    Args:
        instruction: Instruction with the tags of the task table.
    """
    clauses = _clauses(instruction)
    if clauses and clauses[0][0] == "speech with voice":
        start, end = new_text_span(instruction)
        return Mentions((instruction[start:end],), ())
    texts = [quote[1:-1] for quote in _QUOTED.findall(instruction) if quote[1:-1].strip()]
    sounds = []
    for tags, words in clauses:
        if tags == "audio":
            sounds.append(_WINDOW.sub(",", words.replace('""', " ")))
        elif tags == "edit audio":
            sounds.append(EDIT_VERB.sub(",", words.replace('""', " ")))
    return Mentions(tuple(texts), tuple(sounds))

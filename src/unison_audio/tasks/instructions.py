"""Reads instructions whole: the task, the texts, the sounds and the times that they name.

`quotes` and `clauses` split an instruction into clauses. `timings` reads times, `voice_words` reads
the words around a text, and `verbs`, `chinese` and `wishes` read edits. A task without words here,
such as one that `register_task` added, is recognized by its templates. What has no place in any
task is refused by its part; where the task is named, the words are passed on as they are.
"""

import functools
import re
from collections.abc import Collection
from dataclasses import dataclass

from unison_audio.errors import InputError, UnplacedError
from unison_audio.tasks.clauses import EMPTY_QUOTE, TAG, Clause, check_size, respell, split_clauses
from unison_audio.tasks.mentions import mentions
from unison_audio.tasks.quotes import shorten
from unison_audio.tasks.reference_text import new_text_span
from unison_audio.tasks.table import TASKS
from unison_audio.tasks.tag_hints import first_tag, no_tag
from unison_audio.tasks.timings import (
    TimedEvent,
    Timing,
    is_trained_spelling,
    read_timing,
    timed_events,
    timeline_text,
)
from unison_audio.tasks.voice_words import read_voice
from unison_audio.tasks.wishes import EDITS, read_edit

SHOWN = 120
"""Characters of an instruction that an error quotes."""

# A lone "with" is part of many captions ("a car with a horn"), so only ", with" counts as a mix.
_MIX = re.compile(
    r", with\b|\b(?:and|together with|mixed with|along with|while)\b|和|与|以及|同时", re.IGNORECASE
)

# A text in a caption is spoken by no sound task, unless it is a name ("a song called "...").
_SAID = re.compile(
    r"(?:\b(?:says?|said|saying|speaks?|speaking|shouts?|shouting|whispers?|whispering|yells?|"
    r"yelling|reads?|reading)\b|说|讲|念)[\s,:：，]{0,3}$",
    re.IGNORECASE,
)

_STRANGE_TAG = re.compile(r"[\[［【]\s{0,9}([a-z][a-z ]{0,30})\s{0,9}[\]］】]", re.IGNORECASE)

_READ_BY_TAGS = frozenset({"tts", "zero_shot_tts", "t2a", "t2a_mix", "t2as", "timed"})
"""Tasks that are found without verbs."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What an instruction means."""

    task: str
    """A key of `TASKS`."""
    instruction: str
    """The instruction as a model reads it: times and two wishes in the form of the training."""
    texts: tuple[str, ...] = ()
    """The texts to speak."""
    objects: tuple[str, ...] = ()
    """The sounds that it names: one for each event of a timeline or wish of an edit."""
    events: tuple[TimedEvent, ...] = ()
    """The events of a timeline."""
    length: tuple[float, float] | None = None
    """The least and the greatest length in seconds that it states."""
    notes: tuple[str, ...] = ()
    """What the task cannot follow to the letter, a sentence each."""

    @property
    def end(self) -> float:
        """The time when its last event ends; 0 without events."""
        return max((event.end for event in self.events), default=0.0)


def parse_instruction(
    instruction: str, has_source: bool, has_reference: bool, task: str | None = None
) -> str:
    """Find the task of an instruction; arguments and errors are those of `read_instruction`.

    Returns:
        A key of `TASKS`.
    """
    return read_instruction(instruction, has_source, has_reference, task).task


def read_instruction(
    instruction: str,
    has_source: bool,
    has_reference: bool,
    task: str | None = None,
    *,
    labels: Collection[str] = (),
) -> Reading:
    """Read an instruction.

    Tags may have either spelling and any case. Words other than the templates' are understood where
    their verbs are clear, in English and Chinese. A caption with "and" counts as a mix, which the
    model treats like any other caption.

    Args:
        instruction: The user's instruction.
        has_source: Whether a recording to edit is given.
        has_reference: Whether a recording of a voice is given.
        task: The task, where the user names it; then the words are passed on as they are.
        labels: Sounds that the model knows; one such as "ducks and geese" counts as one sound.

    Returns:
        Its task and all that it names.

    Raises:
        InputError: A part of the instruction fits no task, or the instruction does not fit the
            inputs; the message quotes the part and says what to write. Or the named task is
            unknown, or the instruction has no words, or too many.
    """
    check_size(instruction)
    if task is not None:
        if task not in TASKS:
            raise InputError(f"There is no task {task!r}; use one of {', '.join(TASKS)}.")
        if not re.search(r"\w", TAG.sub("", instruction)):
            raise InputError(f"The instruction {_shown(instruction)} has no words; say what to do.")
        reading = _read_named(instruction, task)
    else:
        reading = _read(instruction, has_source, has_reference, labels)
    _require_inputs(reading.task, instruction, has_source, has_reference)
    return reading


def _read_named(instruction: str, task: str) -> Reading:
    """The reading of free wording: its texts, and its times where they are clear."""
    clauses = split_clauses(instruction)
    events: tuple[TimedEvent, ...] = ()
    if task == "timed" and len(clauses) < 2:
        words = clauses[0].words if clauses else instruction
        try:
            events = tuple(timed_events(read_timing(words)))
        except UnplacedError:
            events = ()  # the language model may follow what no pattern does
    found = mentions(instruction)
    return Reading(task=task, instruction=instruction, texts=found.texts, events=events)


def _read(
    instruction: str, has_source: bool, has_reference: bool, labels: Collection[str]
) -> Reading:
    """The reading of an instruction with tags."""
    # Templates of other tasks come first: the verbs below might claim a part of their text.
    name = _read_template(instruction)
    if name is not None:
        found = mentions(instruction)
        return Reading(task=name, instruction=instruction, texts=found.texts, objects=found.sounds)
    clauses = split_clauses(instruction)
    if not clauses:
        fault = first_tag(instruction, has_source, has_reference)
        raise InputError(f"The instruction {_shown(instruction)} {_with_task(fault)}")
    tags = tuple(clause.tags for clause in clauses)
    given = (has_source, has_reference)
    if not any(given):  # the words are what is wrong, and the forms those of its tags
        given = (tags[0].startswith("edit"), tags[0] == "speech with voice")
    forms = _listing(*given, tags)
    try:
        reading = _read_clauses(instruction, clauses, labels)
    except UnplacedError as error:
        way = f"; {forms}" if error.forms else ""
        raise InputError(
            f"The instruction {_shown(instruction)} is not understood: "
            + _with_task(f"{error}{way}")
        ) from error
    if reading is None:
        raise InputError(
            f"The instruction {_shown(instruction)} is not understood; name its task with --task, "
            f"or {forms}."
        )
    return reading


def _with_task(fault: str) -> str:
    """What is wrong, with the way that is always open, unless it ends in a question."""
    if fault.endswith("?"):
        return fault
    return f"{fault}; or name its task with --task, which passes the words on as they are."


def _read_clauses(
    instruction: str, clauses: list[Clause], labels: Collection[str]
) -> Reading | None:
    """The reading of clauses, whatever the inputs; None if there is no such form."""
    tags = tuple(clause.tags for clause in clauses)
    if tags == ("speech with voice",):
        start, end = new_text_span(instruction)
        said = instruction[start:end]
        if not re.search(r"\w", said):
            return None
        return Reading(task="zero_shot_tts", instruction=instruction, texts=(said,))
    if not all(re.search(r'\w|""', clause.words) for clause in clauses):
        return None
    for clause in clauses:
        _check_clause(clause)
        for text in clause.texts:
            if clause.tags != "audio" and not re.search(r"\w", text):
                raise UnplacedError(f'"{text}" has no word to speak; write words in the quotes')
    if tags in (("speech",), ("speech", "audio")):
        return _read_speech(instruction, clauses)
    if tags == ("audio",):
        return _read_sound(instruction, clauses[0])
    if not all(tag in ("edit audio", "edit speech") for tag in tags):
        return None
    for clause in clauses:
        _check_untimed(clause)
    edit = read_edit(clauses, labels)
    return Reading(
        task=edit.task,
        instruction=edit.text or instruction,
        texts=tuple(text for clause in clauses for text in clause.texts),
        objects=edit.objects,
        notes=edit.notes,
    )


def _check_clause(clause: Clause) -> None:
    """Refuse quotes that are not closed, and tags that do not exist."""
    strange = _STRANGE_TAG.search(clause.words)
    if strange:
        raise UnplacedError(no_tag(strange[0]))
    if clause.tags == "audio":  # a caption may hold inches
        return
    lone = re.search(r'["“”„「」『』]', clause.words.replace(EMPTY_QUOTE, ""))
    if lone:
        raise UnplacedError(f"the quotation mark {lone[0]} is not closed; write both marks")


def _read_speech(instruction: str, clauses: list[Clause]) -> Reading | None:
    """Speech, alone or with a sound."""
    speech = clauses[0]
    timing = read_timing(speech.words)
    _refuse_windows(timing, "speech fills its recording; leave it out, or set the length")
    if len(speech.texts) != 1:
        if not speech.texts:
            return None
        listed = " and ".join(f'"{text}"' for text in speech.texts[:3])
        raise UnplacedError(
            f"{listed} are {len(speech.texts)} texts; write one in one pair of quotes"
        )
    voice = read_voice(timing.without_times())
    notes: tuple[str, ...] = ()
    if voice.qualities:
        listed = ", ".join(voice.qualities)
        notes = (f"voices were trained as male or female alone, so {listed!r} may have no effect",)
    if len(clauses) == 1:
        return Reading(
            task="tts",
            instruction=instruction,
            texts=speech.texts,
            length=timing.length,
            notes=notes,
        )
    scene = read_timing(clauses[1].words)
    _refuse_windows(
        scene, "a sound beside speech fills the recording; leave it out, or set the length"
    )
    _refuse_speech(clauses[1])
    return Reading(
        task="t2as",
        instruction=instruction,
        texts=speech.texts,
        objects=(_plain(scene),),
        length=timing.length or scene.length,
        notes=notes,
    )


def _read_sound(instruction: str, clause: Clause) -> Reading:
    """Sounds: a caption or a timeline."""
    _refuse_speech(clause)
    timing = read_timing(clause.whole)
    if timing.windows:
        events = tuple(timed_events(timing))
        trained = is_trained_spelling(timing)
        return Reading(
            task="timed",
            instruction=instruction if trained else f"[Audio] {timeline_text(list(events))}",
            objects=tuple(event.text for event in events),
            events=events,
        )
    caption = _plain(timing)
    if not caption:
        raise UnplacedError(f'"{shorten(clause.whole)}" names no sound; write what is heard')
    mixed = _MIX.search(timing.without_times())
    return Reading(
        task="t2a_mix" if mixed else "t2a",
        instruction=instruction,
        objects=(caption,),
        length=timing.length,
    )


def _plain(timing: Timing) -> str:
    """A caption without its times."""
    plain = " ".join(timing.without_times().split())
    return plain.replace("(,)", "").replace("（,）", "").strip(" ,.;，。；")


def _refuse_speech(clause: Clause) -> None:
    parts = clause.words.split(EMPTY_QUOTE)
    for part, text in zip(parts, clause.texts, strict=False):
        if _SAID.search(part[-30:]):
            raise UnplacedError(
                f'"{text[:60]}" is to be spoken, which [Audio] does not do; write '
                f'[Speech] A voice saying "{text[:60]}" [Audio] and the sound'
            )


def _refuse_windows(timing: Timing, reason: str) -> None:
    if timing.windows:
        span = timing.windows[0]
        part = timing.words[span.start : span.end].strip(" ,.")
        raise UnplacedError(f'"{part}" is a time of [Audio] alone: {reason} with --duration')


def _check_untimed(clause: Clause) -> None:
    """Refuse times in an edit."""
    try:
        timing = read_timing(clause.words)
    except UnplacedError as error:
        raise UnplacedError(
            f"{str(error).split(';')[0]}, and edits take no times; {_REGION}"
        ) from error
    for span in (*timing.windows, *timing.lengths):
        part = clause.words[span.start : span.end].strip(" ,.")
        raise UnplacedError(
            f'"{part}" is a time, and edits take none; {_REGION}, such as --region '
            f"{span.low:g}-{span.high if span.high > span.low else span.low + 1:g}"
        )


_REGION = "name the part of the recording with --region"


def _require_inputs(name: str, instruction: str, has_source: bool, has_reference: bool) -> None:
    """Refuse inputs that the task does not need, and missing ones."""
    given = {"source": has_source, "reference": has_reference}
    for kind, present in given.items():
        if (kind in TASKS[name].needs) == present:
            continue
        said = f"The instruction {_shown(instruction)} ({name})"
        if not present:
            raise InputError(f"{said} needs a {kind}; give it with --{kind} FILE.")
        raise InputError(
            f"{said} takes no {kind}; leave --{kind} out, or {_listing(has_source, has_reference)}."
        )


def _read_template(instruction: str) -> str | None:
    """Return the task with a matching template, among the tasks that verbs do not cover."""
    covered = _READ_BY_TAGS | set(EDITS.values())
    others = [(name, task) for name, task in TASKS.items() if name not in covered]
    if not others:
        return None
    text = _normalized(instruction)
    for name, task in others:
        if any(_pattern(form).fullmatch(text) for form in task.templates):
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


def _listing(has_source: bool, has_reference: bool, tags: tuple[str, ...] = ()) -> str:
    """List the first templates that fit the inputs, and if possible the tags."""
    fitting = [
        task.templates[0]
        for task in TASKS.values()
        if has_source == ("source" in task.needs) and has_reference == ("reference" in task.needs)
    ]
    if not fitting:
        return "no task takes both a source and a reference: leave --source or --reference out"
    tagged = [
        form
        for form in fitting
        if tuple(clause.tags for clause in split_clauses(form))[: len(tags)] == tags
    ]
    given = "with --source" if has_source else "with --reference" if has_reference else "without"
    recording = "" if has_source or has_reference else " a recording"
    # Some templates end in a full stop, and so does the sentence that this is the end of.
    return f"{given}{recording} the forms are: {' | '.join(tagged or fitting)}".removesuffix(".")


def _shown(instruction: str) -> str:
    """The instruction as an error quotes it: a long one's beginning is enough to find it."""
    return repr(instruction if len(instruction) <= SHOWN else f"{instruction[:SHOWN]}...")

"""Edits told as generation: what would be asked to make an edit's source, and its target."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from unison_audio.errors import InputError
from unison_audio.evaluation.benchmark import Item
from unison_audio.tasks.table import TASKS
from unison_audio.tasks.templates import render


@dataclass(frozen=True, kw_only=True)
class Described:
    """An edit without its instruction: what is heard before and after, as a generator is asked."""

    source: str
    """Instruction that would generate the source."""
    target: str
    """Likewise, the target."""


def _scene(caption: str) -> str:
    return render(TASKS["t2a"].templates[0], {"caption": caption})


def _spoken(item: Item, text: str) -> str:
    """A voice in the scene; its gender is the one that was drawn, though an edit does not say it.

    Raises:
        InputError: The set does not tell the words, or what else is heard.
    """
    label = item.details.get("base_label", "")
    if not text or not label:
        raise InputError(
            f"{item.id} does not tell the words and the scene of its recordings; build the test "
            "set again."
        )
    gender = item.gender or item.details.get("gender", "")
    fields = {"gender": gender, "text": text, "caption": label}
    return render(TASKS["t2as"].templates[0], fields)


def _both_scenes(item: Item) -> Described:
    return Described(source=_scene(item.source_caption), target=_scene(item.caption))


_DESCRIBED: Mapping[str, Callable[[Item], Described]] = {
    "edit_add": _both_scenes,
    "edit_remove": _both_scenes,
    "edit_replace": _both_scenes,
    "speech_insert": lambda item: Described(
        source=_scene(item.source_caption), target=_spoken(item, item.text)
    ),
    "speech_delete": lambda item: Described(
        source=_spoken(item, item.details.get("text", "")), target=_scene(item.caption)
    ),
    "speech_rewrite": lambda item: Described(
        source=_spoken(item, item.details.get("old_text", "")), target=_spoken(item, item.text)
    ),
}
"""Task -> how its items are described."""


def describe_edit(item: Item) -> Described:
    """Describe an edit in the model's own wording of generation.

    Sounds become "[Audio] CAPTION"; speech in a scene becomes "[Speech] A GENDER voice saying
    "TEXT" [Audio] SCENE".

    Args:
        item: Of the sets "audio-editing" and "speech-editing".

    Raises:
        InputError: It is of another task, or the set does not tell what is heard.
    """
    if item.task not in _DESCRIBED:
        raise InputError(
            f"{item.id} ({item.task}) cannot be described; the tasks that can are "
            f"{', '.join(_DESCRIBED)}."
        )
    return _DESCRIBED[item.task](item)


def can_describe(item: Item) -> bool:
    """Whether it is an edit of the sets "audio-editing" and "speech-editing"."""
    return bool(item.source) and item.task in _DESCRIBED

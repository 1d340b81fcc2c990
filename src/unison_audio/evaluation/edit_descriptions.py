"""Describes the source and the target of an edit by the templates of generation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from unison_audio.errors import InputError
from unison_audio.evaluation.test_sets.manifest import TestItem
from unison_audio.tasks.table import TASKS
from unison_audio.tasks.templates import render


@dataclass(frozen=True, kw_only=True)
class Described:
    """An edit without its instruction: source and target as instructions of generation."""

    source: str
    """Instruction that would generate the source."""
    target: str
    """Instruction that would generate the target."""


def _scene(caption: str) -> str:
    return render(TASKS["t2a"].templates[0], {"caption": caption})


def _spoken(item: TestItem, text: str) -> str:
    """A voice in the scene; its gender is the one that was drawn, though an edit does not say it.

    Raises:
        InputError: The set does not tell the words, or the rest of the scene.
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


def _both_scenes(item: TestItem) -> Described:
    return Described(source=_scene(item.source_caption), target=_scene(item.caption))


DESCRIBED: Mapping[str, Callable[[TestItem], Described]] = {
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


def describe_edit(item: TestItem) -> Described:
    """Describe an edit by the model's own templates of generation.

    Sounds become "[Audio] CAPTION"; speech in a scene becomes "[Speech] A GENDER voice saying
    "TEXT" [Audio] SCENE".

    Args:
        item: Of the sets "audio-editing" and "speech-editing".

    Raises:
        InputError: It is of another task, or the set does not say what sounds.
    """
    if item.task not in DESCRIBED:
        raise InputError(
            f"{item.id} ({item.task}) cannot be described; the tasks that can are "
            f"{', '.join(DESCRIBED)}."
        )
    return DESCRIBED[item.task](item)

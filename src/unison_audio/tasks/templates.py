"""Instruction templates: one pool per task, the paper's own template first (paper Table 10).

The placeholder `{event}` stands for a field, `{Event}` for the same field with a capital letter. In
a timeline the text after the tag is repeated for each event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

TEMPLATES: dict[str, tuple[str, ...]] = {
    "tts": (
        '[Speech] A {gender} voice saying "{text}"',
        '[Speech] A {gender} voice says "{text}"',
        '[Speech] A {gender} speaker says "{text}"',
        '[Speech] "{text}", spoken by a {gender} voice',
        '[Speech] Say "{text}" in a {gender} voice',
    ),
    "zero_shot_tts": (
        "[Speech with voice] {text}",
        '[Speech with voice] Say "{text}"',
        '[Speech with voice] The same voice saying "{text}"',
        '[Speech with voice] Speak "{text}" in this voice',
    ),
    "t2a": (
        "[Audio] {caption}",
        "[Audio] We hear {caption}",
        "[Audio] A recording: {caption}",
        "[Audio] Generate this sound: {caption}",
    ),
    "t2a_mix": (
        "[Audio] {first} and {last}",
        "[Audio] {first}, mixed with {last}",
        "[Audio] {first} together with {last}",
        "[Audio] A mix: {first} and {last}",
        "[Audio] {first}, with {last} at the same time",
    ),
    "t2as": (
        '[Speech] A {gender} voice saying "{text}" [Audio] {caption}',
        '[Speech] A {gender} voice says "{text}" [Audio] {caption}',
        '[Speech] A {gender} speaker says "{text}" [Audio] {caption} in the background',
        '[Speech] Say "{text}" in a {gender} voice [Audio] in the background {caption}',
    ),
    "timed": (
        "[Audio] From {start}s to {end}s, {event}.",
        "[Audio] Between {start}s and {end}s, {event}.",
        "[Audio] {Event} from {start}s to {end}s.",
        "[Audio] From {start} to {end} seconds, {event}.",
    ),
    "edit_add": (
        "[Edit][Audio] Add {event}",
        "[Edit][Audio] Mix in {event}",
        "[Edit][Audio] Insert {event}",
        "[Edit][Audio] Overlay {event}",
        "[Edit][Audio] Add the sound of {event}",
    ),
    "edit_remove": (
        "[Edit][Audio] Remove {event}",
        "[Edit][Audio] Eliminate {event}",
        "[Edit][Audio] Get rid of {event}",
        "[Edit][Audio] Take out {event}",
        "[Edit][Audio] Remove the sound of {event}",
    ),
    "edit_replace": (
        "[Edit][Audio] Remove {old} [Edit][Audio] add {new}",
        "[Edit][Audio] Eliminate {old} [Edit][Audio] mix in {new}",
        "[Edit][Audio] Get rid of {old} [Edit][Audio] insert {new}",
        "[Edit][Audio] Replace {old} with {new}",
        "[Edit][Audio] Swap {old} for {new}",
    ),
    "speech_insert": (
        '[Edit][Speech] Add a voice saying "{text}"',
        '[Edit][Speech] Mix in a voice saying "{text}"',
        '[Edit][Speech] Insert speech saying "{text}"',
        '[Edit][Speech] Add somebody who says "{text}"',
    ),
    "speech_delete": (
        "[Edit][Speech] Remove the speech",
        "[Edit][Speech] Eliminate the speech",
        "[Edit][Speech] Get rid of the voice",
        "[Edit][Speech] Delete the spoken words",
        "[Edit][Speech] Take out the voice",
    ),
    "speech_rewrite": (
        '[Edit][Speech] Change speech to "{new}"',
        '[Edit][Speech] Alter the spoken content to "{new}"',
        '[Edit][Speech] Replace the speech with "{new}"',
        '[Edit][Speech] Make the voice say "{new}"',
        '[Edit][Speech] Swap the spoken words for "{new}"',
    ),
    "denoise": (
        "[Edit][Speech] Denoise the recording",
        "[Edit][Speech] Remove the noise",
        "[Edit][Speech] Clean up the recording",
        "[Edit][Speech] Get rid of the background noise",
        "[Edit][Speech] Eliminate the noise behind the voice",
    ),
    "audio_to_speech": (
        '[Edit][Audio] Remove {event} [Edit][Speech] add a voice saying "{text}"',
        '[Edit][Audio] Eliminate {event} [Edit][Speech] mix in a voice saying "{text}"',
        '[Edit][Audio] Get rid of {event} [Edit][Speech] insert speech saying "{text}"',
        '[Edit][Audio] Take out {event} [Edit][Speech] add somebody who says "{text}"',
    ),
    "speech_to_audio": (
        "[Edit][Speech] Remove the speech [Edit][Audio] add {event}",
        "[Edit][Speech] Eliminate the speech [Edit][Audio] mix in {event}",
        "[Edit][Speech] Get rid of the voice [Edit][Audio] insert {event}",
        "[Edit][Speech] Take out the voice [Edit][Audio] add the sound of {event}",
    ),
}
"""Task -> its templates."""

RELEASE_FIRST: dict[str, str] = {
    "edit_add": "[Edit][Audio] Mix in the sound of {Event}.",
    "edit_remove": "[Edit][Audio] Eliminate the sound of {Event}.",
    "edit_replace": "[Edit][Audio] Eliminate the sound of {Old}. [Edit][Audio] Add {New}.",
    "speech_delete": "[Edit][Speech] Remove the speech.",
    "denoise": "[Edit][Speech] Denoise the record.",
    # Known in parts: each half is one of the sentences above, or the paper's.
    "audio_to_speech": (
        '[Edit][Audio] Eliminate the sound of {Event}. [Edit][Speech] Add a voice saying "{text}"'
    ),
    "speech_to_audio": "[Edit][Speech] Remove the speech. [Edit][Audio] Add {Event}.",
}
"""Task -> the template that the released weights were trained with, where it is not the paper's.

docs/differences.md says for every task where its wording is from."""

WORDINGS = ("paper", "release")
"""Whose templates a variant's weights were trained with."""

WITHOUT_GENDER: dict[str, str] = {
    '[Speech] A {gender} voice saying "{text}"': '[Speech] A voice saying "{text}"',
    '[Speech] A {gender} voice says "{text}"': '[Speech] A voice says "{text}"',
    '[Speech] A {gender} speaker says "{text}"': '[Speech] A speaker says "{text}"',
    '[Speech] "{text}", spoken by a {gender} voice': '[Speech] "{text}", spoken by a voice',
    '[Speech] Say "{text}" in a {gender} voice': '[Speech] Say "{text}"',
    '[Speech] A {gender} voice saying "{text}" [Audio] {caption}': (
        '[Speech] A voice saying "{text}" [Audio] {caption}'
    ),
    '[Speech] A {gender} voice says "{text}" [Audio] {caption}': (
        '[Speech] A voice says "{text}" [Audio] {caption}'
    ),
    '[Speech] A {gender} speaker says "{text}" [Audio] {caption} in the background': (
        '[Speech] A speaker says "{text}" [Audio] {caption} in the background'
    ),
    '[Speech] Say "{text}" in a {gender} voice [Audio] in the background {caption}': (
        '[Speech] Say "{text}" [Audio] in the background {caption}'
    ),
}
"""Template with a gender -> the template for clips of unknown gender (Emilia, WenetSpeech).

A template that is not listed loses the placeholder alone."""


def pool_of(task: str, wording: str = "paper") -> tuple[str, ...]:
    """Return the templates of a task in the wording of a variant's training.

    Args:
        task: A key of `TEMPLATES`.
        wording: One of `WORDINGS`.

    Returns:
        The pool. Its first template is the one that evaluation uses.
    """
    pool = TEMPLATES[task]
    if wording == "release" and task in RELEASE_FIRST:
        return (RELEASE_FIRST[task], *pool[1:])
    return pool


def render(template: str, fields: Mapping[str, Any]) -> str:
    """Fill the fields into a template.

    Args:
        template: A template of `TEMPLATES`.
        fields: Name -> text; a timeline has "events", a list of such mappings. With an empty
            "gender" the template of `WITHOUT_GENDER` is used instead.

    Returns:
        The instruction.
    """
    if not fields.get("gender", "known"):
        template = WITHOUT_GENDER.get(template, template.replace("{gender} ", ""))
    if "events" not in fields:
        return _fill(template, fields)
    tag, sentence = template.split("] ", 1)
    return f"{tag}] " + " ".join(_fill(sentence, event) for event in fields["events"])


def choose(
    templates: Sequence[str], first_probability: float, count: int, generator: torch.Generator
) -> list[str]:
    """Draw one template per item.

    Args:
        templates: A pool.
        first_probability: Probability of its first template; the others share the rest evenly.
        count: Number of items.
        generator: A CPU generator.
    """
    import torch

    # Evaluation uses the paper's template alone, hence its large share in training. The second
    # number is drawn even where the first decides: a fixed count per item keeps the rest of the
    # batch independent of the probability.
    is_first = torch.rand(count, generator=generator) < first_probability
    other = torch.rand(count, generator=generator) * (len(templates) - 1)
    return [
        templates[0] if first or len(templates) == 1 else templates[1 + int(k)]
        for first, k in zip(is_first.tolist(), other.tolist(), strict=True)
    ]


def _fill(template: str, fields: Mapping[str, Any]) -> str:
    capitals = {
        name.capitalize(): str(value)[:1].upper() + str(value)[1:] for name, value in fields.items()
    }
    return template.format(**fields, **capitals)

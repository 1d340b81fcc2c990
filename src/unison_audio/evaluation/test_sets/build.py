"""The paper's test sets (§4.2), built by the builders of training with a fixed seed.

A recording is used once before any is used again, in an order drawn with the seed; each item's own
draws depend on the seed and its name alone. Templates are the paper's own. Where it is silent:

- AudioCaps: one item for each clip, with its first caption as the instruction; the item keeps all
  captions. If the count is lower, clips are drawn.
- Sounds in scenes are clips without a caption that mentions speech. The phrase for an event is the
  first caption. The caption of a scene joins its parts' captions by "and", of a timeline by
  "followed by". Speech in it is called "a man speaking" or "a woman speaking"; Seed-TTS does not
  state the gender, so the median pitch decides.
- The gender of plain speech is drawn at random, with equal numbers of both.
- Zero-shot speech and rewriting use an utterance's prompt, as the reference or as the old words.
- Clips last 10 s; an item is longer if its recording of speech is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from unison_audio.errors import InputError
from unison_audio.evaluation.test_sets.manifest import (
    MANIFEST,
    Event,
    RenderedItem,
    TestSet,
    TestSetAbout,
    read_manifest,
    read_test_set,
    write_test_set,
)
from unison_audio.evaluation.test_sets.recordings import LANGUAGES, Recordings, Utterance
from unison_audio.evaluation.test_sets.scenes import (
    MARGIN_SECONDS,
    ONSET_SECONDS,
    BuildContext,
    ItemPools,
    Shuffler,
    TestSetSpec,
    next_utterance,
)
from unison_audio.tasks.draw import BuilderConfig
from unison_audio.tasks.table import TASKS
from unison_audio.tasks.templates import render

GENDERS = ("female", "male")

PAPER_COUNTS: dict[str, int] = {
    "audiocaps": 881,
    "seed-tts-en": 1088,
    "seed-tts-zh": 2020,
    "gender-tts-en": 106,
    "gender-tts-zh": 194,
    "t2as": 600,
    "audio-editing": 400,
    "speech-editing": 200,
    "timed": 150,
}
"""Items of each set; of the two sets of edits, of each of their three tasks."""

_SPEAKING = {"male": "a man speaking", "female": "a woman speaking"}


def build_test_set(
    name: str,
    recordings: Recordings,
    folder: Path,
    spec: TestSetSpec,
    *,
    counts: Mapping[str, int] = PAPER_COUNTS,
    seed: int = 0,
) -> TestSet:
    """Build a test set, or read the one in the folder if it was built from the same inputs.

    Args:
        name: A key of `SETS`.
        recordings: Recordings to build it from.
        folder: Folder of the set.
        spec: Rate and lengths.
        counts: Keys of `PAPER_COUNTS` -> items; those left out are the paper's.
        seed: Equal seeds give equal files.

    Returns:
        The set.

    Raises:
        InputError: The set or a count is unknown, there are too few recordings, or the folder holds
            a set that was built from something else; the message names what has changed.
    """
    kind = find_set(name)
    full = {**PAPER_COUNTS, **check_counts(counts)}
    context = BuildContext(recordings=recordings, spec=spec, seed=seed, counts=full, name=name)
    return build_once(
        folder,
        TestSetAbout(
            name=name,
            sample_rate=spec.sample_rate,
            seed=seed,
            settings={
                # These keys stand in the manifests of existing sets, which must stay readable.
                "material": recordings.name,
                "counts": {key: full[key] for key in kind.counts},
                "form": spec.stored,
            },
            inputs=recordings.inputs(sounds=kind.sounds, voices=kind.voices),
        ),
        lambda: kind.rendered(context),
    )


def build_once(
    folder: Path, about: TestSetAbout, render_items: Callable[[], Iterable[RenderedItem]]
) -> TestSet:
    """Write a test set, or read the one in the folder if it was built from the same inputs.

    Args:
        folder: Folder of the set.
        about: Everything that the set depends on.
        render_items: Makes its items.

    Raises:
        InputError: The folder holds a set that was built from something else; the message names
            what has changed.
    """
    if (folder / MANIFEST).is_file():
        asked = {"name": about.name, "seed": about.seed, "settings": about.settings}
        _require_same(folder, asked, about.inputs)
        return read_test_set(folder)
    return write_test_set(folder, about, render_items())


def check_counts(counts: Mapping[str, int]) -> Mapping[str, int]:
    """Refuse counts of unknown sets and negative counts.

    Raises:
        InputError: There is one.
    """
    for key, count in counts.items():
        if key not in PAPER_COUNTS or count < 0:
            raise InputError(
                f"{key}={count} is no number of items; the sets are {', '.join(PAPER_COUNTS)}, "
                "and at least 0 items are asked of each."
            )
    return counts


def needed_languages(sets: Iterable[str], counts: Mapping[str, int]) -> list[str]:
    """The languages of which some sets have items of their own.

    Args:
        sets: Keys of `SETS`.
        counts: Items of each key of `PAPER_COUNTS`.
    """
    keys = {key for name in sets for key in find_set(name).counts if counts[key]}
    return [name for name in LANGUAGES if any(key.endswith(f"-tts-{name}") for key in keys)]


def _require_same(folder: Path, asked: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Refuse a set that was built with other settings or from other files."""
    manifest = read_manifest(folder)
    for key, value in asked.items():
        if manifest[key] != value:
            raise InputError(
                f"The test set {folder} was built with {key} {manifest[key]}, and {value} is asked "
                "for; delete the folder, or choose another."
            )
    before = manifest["inputs"]
    for name in sorted({*before, *inputs}):
        if before.get(name) != inputs.get(name):
            how = "is missing" if name not in inputs else "has changed"
            how = how if name in before else "is new"
            raise InputError(
                f"{name} {how} since the test set {folder} was built; put the old file back, or "
                "delete the folder to build the set again."
            )


def _sounds(context: BuildContext) -> Iterator[RenderedItem]:
    """One item for each sound clip, with its first caption as the instruction."""
    for sound in context.draw("audiocaps", context.recordings.sounds, "clips with audio"):
        # "deck" is part of the seed: another word would give other test sets.
        pools = ItemPools(Shuffler([sound], context.generator(sound.id, "deck")))
        item, waves, _ = context.scene(sound.id, "t2a", pools, context.spec.seconds)
        caption = sound.captions[0]
        yield RenderedItem(
            item=replace(item, caption=caption, captions=sound.captions), sounds=waves
        )


def _seed_tts(context: BuildContext) -> Iterator[RenderedItem]:
    """Every utterance twice: with a requested gender, and with a reference."""
    for language in LANGUAGES:
        key, what = f"seed-tts-{language}", f"utterances in {language!r}"
        voices = context.draw(key, _with_room(context, context.recordings.voices, language), what)
        for voice, gender in zip(voices, _genders(context, len(voices), language), strict=True):
            yield _spoken(context, voice, f"tts-{voice.id}", gender)
        for voice in context.draw(
            key, _with_room(context, context.recordings.zero_shot, language), what
        ):
            yield _cloned(context, voice, f"zero-shot-{voice.id}")


def _gender_tts(context: BuildContext) -> Iterator[RenderedItem]:
    """Utterances drawn from each language; half request a female voice, half a male one."""
    voices: list[Utterance] = []
    for language in LANGUAGES:
        spoken = _with_room(context, context.recordings.voices, language)
        voices += context.draw(f"gender-tts-{language}", spoken, f"utterances in {language!r}")
    for voice, gender in zip(voices, _genders(context, len(voices), "all"), strict=True):
        yield _spoken(context, voice, voice.id, gender)


def _genders(context: BuildContext, count: int, what: str) -> list[str]:
    """Equal numbers of both genders, in random order."""
    # Alternating over a permutation balances the genders exactly; coin flips would not.
    order = torch.randperm(count, generator=context.generator("genders", what)).tolist()
    return [GENDERS[k % 2] for k in order]


def _with_room(
    context: BuildContext, voices: Sequence[Utterance], language: str
) -> list[Utterance]:
    """The utterances of a language: all of a published list, otherwise those that fit."""
    spec = context.spec
    spoken = [voice for voice in voices if voice.language == language]
    # Figures on a published list compare with others' only if every utterance takes part.
    if context.recordings.published:
        return spoken
    ahead = spec.longest - spec.zero_shot_seconds - _gap_seconds(spec)
    room = min(spec.zero_shot_seconds, spec.seconds - ONSET_SECONDS - MARGIN_SECONDS)
    return [v for v in spoken if v.seconds <= room and v.prompt and v.prompt.seconds <= ahead]


def _gap_seconds(spec: TestSetSpec) -> float:
    """Longest silence between a reference and the new words."""
    return BuilderConfig().reference_silence_seconds + spec.hop / spec.sample_rate


def _spoken(context: BuildContext, voice: Utterance, name: str, gender: str) -> RenderedItem:
    """Speech with a requested gender; the target is the recording, whatever its voice."""
    seconds = max(context.spec.seconds, voice.seconds + ONSET_SECONDS + MARGIN_SECONDS)
    _require_time(voice, seconds, context.spec)
    item, waves, _ = context.scene(name, "tts", ItemPools(None, voice, gender), seconds)
    return RenderedItem(item=replace(item, language=voice.language), sounds=waves)


def _cloned(context: BuildContext, voice: Utterance, name: str) -> RenderedItem:
    """Zero-shot speech: the reference and the new words as separate files."""
    spec, prompt = context.spec, voice.prompt
    assert prompt is not None
    seconds = max(spec.zero_shot_seconds, voice.seconds)
    _require_time(voice, seconds, spec)
    whole = prompt.seconds + seconds + 2 * _gap_seconds(spec)
    item, waves, edge = context.scene(name, "zero_shot_tts", ItemPools(None, voice), whole)
    head = round(item.details["reference_window"][1] * spec.sample_rate)
    samples = round(seconds * spec.sample_rate)
    tail = waves["target"][edge : edge + samples]
    return RenderedItem(
        item=replace(
            item,
            instruction=render(TASKS["zero_shot_tts"].templates[0], {"text": voice.text}),
            reference_text=prompt.text,
            language=voice.language,
            seconds=seconds,
            details={"speaker": voice.speaker, "reference_seconds": head / spec.sample_rate},
        ),
        sounds={
            "reference": waves["source"][:head],
            "target": torch.nn.functional.pad(tail, (0, samples - len(tail))),
        },
    )


def _require_time(voice: Utterance, seconds: float, spec: TestSetSpec) -> None:
    if seconds > spec.longest:
        raise InputError(
            f"The utterance {voice.id} lasts {voice.seconds:.2f} s, and at most {spec.longest} s "
            "can be made; leave it out of the list."
        )


def _t2as(context: BuildContext) -> Iterator[RenderedItem]:
    """Speech over a continuous sound of equal level."""
    seconds = context.spec.seconds
    sounds, voices = context.sound_shuffler(), context.utterance_shuffler()
    for number in range(context.counts["t2as"]):
        voice = next_utterance(voices, seconds - ONSET_SECONDS)
        pools = ItemPools(sounds, voice, voice.gender())
        item, waves, _ = context.scene(f"t2as-{number:04d}", "t2as", pools, seconds)
        said = f"{_SPEAKING[item.gender]} and {pools.used[0].captions[0]}"
        row = replace(item, caption=said, captions=(said,), language=voice.language)
        yield RenderedItem(item=row, sounds=waves)


_CAPTIONS: dict[str, Callable[..., tuple[str, str]]] = {
    "edit_add": lambda base, event: (base, f"{base} and {event}"),
    "edit_remove": lambda base, event: (f"{base} and {event}", base),
    "edit_replace": lambda base, old, new: (f"{base} and {old}", f"{base} and {new}"),
    "speech_insert": lambda scene, spoken: (scene, spoken),
    "speech_delete": lambda scene, spoken: (spoken, scene),
    "speech_rewrite": lambda scene, spoken: (spoken, spoken),
}
"""Task -> captions of source and target."""


def _audio_edits(context: BuildContext) -> Iterator[RenderedItem]:
    """Adding, removing and replacing an event in a scene."""
    sounds = context.sound_shuffler()
    for task in ("edit_add", "edit_remove", "edit_replace"):
        for number in range(context.counts["audio-editing"]):
            pools, name = ItemPools(sounds), f"{task}-{number:04d}"
            item, waves, _ = context.scene(name, task, pools, context.spec.seconds)
            before, after = _CAPTIONS[task](*(sound.label for sound in pools.used))
            row = replace(item, caption=after, captions=(after,), source_caption=before)
            yield RenderedItem(item=row, sounds=waves)


def _speech_edits(context: BuildContext) -> Iterator[RenderedItem]:
    """Inserting, deleting and rewriting speech in a scene."""
    seconds = context.spec.seconds
    sounds, voices = context.sound_shuffler(), context.utterance_shuffler()
    for task in ("speech_insert", "speech_delete", "speech_rewrite"):
        for number in range(context.counts["speech-editing"]):
            voice = next_utterance(voices, seconds, pair=task == "speech_rewrite")
            pools = ItemPools(sounds, voice, voice.gender())
            item, waves, _ = context.scene(f"{task}-{number:04d}", task, pools, seconds)
            scene = pools.used[0].label
            before, after = _CAPTIONS[task](scene, f"{_SPEAKING[item.gender]} and {scene}")
            row = replace(
                item,
                caption=after,
                captions=(after,),
                source_caption=before,
                # Deleted words are not in the target, so no metric may expect them.
                text="" if task == "speech_delete" else item.text,
                language=voice.language,
                gender="",
            )
            yield RenderedItem(item=row, sounds=waves)


def _timed(context: BuildContext) -> Iterator[RenderedItem]:
    """Two or three sounds, each in its window."""
    sounds = context.sound_shuffler()
    for number in range(context.counts["timed"]):
        pools, name = ItemPools(sounds), f"timed-{number:04d}"
        item, waves, _ = context.scene(name, "timed", pools, context.spec.timed_seconds)
        events = tuple(
            Event(caption=sound.label, start=start, end=end)
            for sound, (start, end) in zip(pools.used, item.details["windows"], strict=True)
        )
        said = " followed by ".join(event.caption for event in events)
        yield RenderedItem(
            item=replace(item, caption=said, captions=(said,), events=events), sounds=waves
        )


@dataclass(frozen=True, kw_only=True)
class SetKind:
    """A kind of test set: how items are made, keys of its counts, recordings that it needs."""

    rendered: Callable[[BuildContext], Iterator[RenderedItem]]
    counts: tuple[str, ...]
    sounds: bool = False
    voices: bool = False


_sound, _speech = partial(SetKind, sounds=True), partial(SetKind, voices=True)

_both = partial(SetKind, sounds=True, voices=True)

SETS: dict[str, SetKind] = {
    "audiocaps": _sound(rendered=_sounds, counts=("audiocaps",)),
    "seed-tts": _speech(rendered=_seed_tts, counts=("seed-tts-en", "seed-tts-zh")),
    "gender-tts": _speech(rendered=_gender_tts, counts=("gender-tts-en", "gender-tts-zh")),
    "t2as": _both(rendered=_t2as, counts=("t2as",)),
    "audio-editing": _sound(rendered=_audio_edits, counts=("audio-editing",)),
    "speech-editing": _both(rendered=_speech_edits, counts=("speech-editing",)),
    "timed": _sound(rendered=_timed, counts=("timed",)),
}
"""The test sets, in the order of the paper's tables."""


def find_set(name: str) -> SetKind:
    """Look a kind of test set up.

    Raises:
        InputError: There is none of that name.
    """
    if name not in SETS:
        raise InputError(f"There is no test set {name!r}; use one of {', '.join(SETS)}.")
    return SETS[name]

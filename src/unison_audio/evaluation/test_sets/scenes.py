"""Assigns recordings to the items of a test set and builds each item's scene."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from unison_audio.data.records import Clip, ClipRecord
from unison_audio.errors import InputError
from unison_audio.evaluation.test_sets.manifest import Role, TestItem, derived_seed
from unison_audio.evaluation.test_sets.recordings import Recordings, Sound, Utterance
from unison_audio.tasks.clips import ClipKind, ClipLimits
from unison_audio.tasks.draw import BuilderConfig
from unison_audio.tasks.table import TASKS, TaskBatch
from unison_audio.variants import Variant

FLOOR_DBFS = -70.0
"""RMS of the noise floor of every source and target; real recordings have one too. In digital
silence, inaudible differences would dominate a log-spectral distance."""


def with_floor(batch: TaskBatch, seed: int) -> TaskBatch:
    """Adds white noise of `FLOOR_DBFS` to a batch, the same to an item's source and target.

    Args:
        batch: The built batch.
        seed: Seed of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    # One noise for both: with two, every edit would also have to remove noise and add another.
    floor = 10 ** (FLOOR_DBFS / 20) * torch.randn(batch.target.shape, generator=generator)
    source = batch.source + floor if batch.source is not None else None
    return dataclasses.replace(batch, target=batch.target + floor, source=source)


T = TypeVar("T")

ONSET_SECONDS = BuilderConfig().onset_seconds[1]
"""The latest moment at which plain speech begins."""

MARGIN_SECONDS = 0.01
"""Resampled recordings may be a little longer than their headers say."""


@dataclass(frozen=True, kw_only=True)
class TestSetSpec:
    """Sample rate and lengths of a test set's recordings."""

    __test__ = False  # pytest collects classes of this name otherwise

    sample_rate: int
    """Sample rate in Hz."""
    hop: int = 1024
    """Samples of a latent frame."""
    seconds: float = 10.0
    """Length of clips."""
    timed_seconds: float = 10.0
    """Length of timelines."""
    zero_shot_seconds: float = 10.0
    """Length of the new speech after a reference."""
    longest: float = 22.0
    """Longest clip, reference and new speech together included."""
    wording: str = "paper"
    """Whose templates the instructions use."""

    @classmethod
    def of(cls, variant: Variant) -> "TestSetSpec":
        """The spec of a variant; its timelines have 10 s, or less if that is its maximum."""
        return cls(
            sample_rate=variant.sample_rate,
            hop=variant.hop,
            seconds=variant.default_seconds,
            timed_seconds=min(10.0, variant.max_seconds),
            zero_shot_seconds=variant.zero_shot_seconds,
            longest=variant.max_seconds,
            wording=variant.wording,
        )

    @property
    def stored(self) -> dict[str, Any]:
        """The spec as a manifest stores it; older sets name no wording and have the paper's."""
        return {k: v for k, v in vars(self).items() if (k, v) != ("wording", "paper")}


class Shuffler(Generic[T]):
    """Draws things in random order, each once before any is repeated.

    Args:
        things: The things to draw.
        generator: Draws the order of each round.
    """

    def __init__(self, things: Sequence[T], generator: torch.Generator) -> None:
        self._things, self._generator = list(things), generator
        self._waiting: list[T] = []

    def next(self, fits: Callable[[T], bool]) -> T | None:
        """The next thing that fits; None if none does."""
        # Things that did not fit stay at the front, so none is skipped for good.
        first = self._take(fits)
        if first is not None:
            return first
        order = torch.randperm(len(self._things), generator=self._generator).tolist()
        self._waiting += [self._things[k] for k in order]
        return self._take(fits)

    def _take(self, fits: Callable[[T], bool]) -> T | None:
        for place, thing in enumerate(self._waiting):
            if fits(thing):
                return self._waiting.pop(place)
        return None


class ItemPools:
    """The builders' `Pools` of one item: sounds from a shuffler, and the voice given.

    Args:
        sounds: Sounds to draw from, for tasks with sounds.
        voice: The utterance, for tasks with speech.
        gender: Gender of the voice in the instruction.
    """

    def __init__(
        self, sounds: Shuffler[Sound] | None, voice: Utterance | None = None, gender: str = ""
    ) -> None:
        self._shuffler, self._voice, self._gender = sounds, voice, gender
        self.used: list[Sound] = []
        """The sounds used, in the order of the draws."""

    def draw(
        self, kind: ClipKind, count: int, where: ClipLimits, generator: torch.Generator
    ) -> list[Clip]:
        """Draws the voice, or its prompt and itself, or the next sound with another label.

        Raises:
            InputError: There is no such sound.
            ValueError: No test set has clips of this kind.
        """
        assert count == 1
        if kind == "sound":
            return [self._sound(where.excluded(0))]
        if kind == "noise" or self._voice is None:
            raise ValueError(f"This item of a test set has no {kind}.")
        if kind != "speaker_pair":
            return [self._clip(self._voice)]
        assert self._voice.prompt is not None
        return [self._clip(self._voice.prompt), self._clip(self._voice)]

    def _sound(self, excluded: AbstractSet[str]) -> Clip:
        assert self._shuffler is not None
        sound = self._shuffler.next(lambda one: one.label not in excluded)
        if sound is None:
            raise InputError(
                f"No sound is called other than {', '.join(sorted(excluded))}, and another is "
                "needed; add sounds without speech."
            )
        self.used.append(sound)
        record = dataclasses.replace(_SOUND, label=sound.label, caption=sound.captions[0])
        return Clip(record=record, waveform=sound.read())

    def _clip(self, voice: Utterance) -> Clip:
        record = dataclasses.replace(
            _SPEECH, text=voice.text, gender=self._gender, speaker=voice.speaker
        )
        return Clip(record=record, waveform=voice.read())


_SPEECH, _SOUND = (
    ClipRecord(key="", kind=kind, split="", seconds=0.0, licence="", source="")
    for kind in ("speech", "sound")
)
"""Records of test recordings. Builders read texts and labels only, so the origin stays empty."""


@dataclass(frozen=True, kw_only=True)
class BuildContext:
    """Inputs and settings of a test set's build."""

    name: str
    recordings: Recordings
    spec: TestSetSpec
    counts: Mapping[str, int]
    """Items by count's name."""
    seed: int

    def generator(self, *what: str) -> torch.Generator:
        """A generator for one part of this set."""
        # Each purpose has its own seed, so that one more draw in one item changes no other item.
        return torch.Generator().manual_seed(derived_seed(self.seed, self.name, *what))

    def draw(self, key: str, things: Sequence[T], what: str) -> list[T]:
        """Draw as many things as a count says; they keep their order.

        Raises:
            InputError: There are fewer.
        """
        count = self.counts[key]
        if count > len(things):
            raise InputError(
                f"{count} items are asked for {key}, and there are {len(things)} {what}; ask for "
                f"{len(things)}, or add the others."
            )
        order = torch.randperm(len(things), generator=self.generator(key)).tolist()
        return [things[k] for k in sorted(order[:count])]

    def sound_shuffler(self) -> Shuffler[Sound]:
        """A shuffler of the sounds without speech.

        Raises:
            InputError: There are too few for a scene of three.
        """
        usable = [sound for sound in self.recordings.sounds if sound.speechless]
        labels = {sound.label for sound in usable}
        if len(labels) < 3:
            raise InputError(
                f"The test set {self.name} needs sounds of at least 3 different captions without "
                f"speech, and there are {len(labels)}; add sounds."
            )
        return Shuffler(usable, self.generator("sounds"))

    def utterance_shuffler(self) -> Shuffler[Utterance]:
        """A shuffler of the utterances."""
        return Shuffler(self.recordings.voices, self.generator("voices"))

    def scene(
        self, name: str, task: str, pools: ItemPools, seconds: float
    ) -> tuple[TestItem, dict[Role, Tensor], int]:
        """Build one item.

        Args:
            name: The item's id.
            task: Key of `TASKS`.
            pools: Its clips.
            seconds: Length.

        Returns:
            Its row, its sounds, and the sample where zero-shot's new words begin.
        """
        batch = TASKS[task].build(
            pools,
            1,
            seconds,
            self.spec.sample_rate,
            self.generator(name),
            config=BuilderConfig(
                speech_snr_db=(10.0, 10.0),
                t2as_snr_db=(0.0, 0.0),
                event_snr_db=(-3.0, 3.0),
                first_template_probability=1.0,
                wording=self.spec.wording,
                peak=0.99 if self.recordings.published else 0.98,  # room for the noise floor
                hop=self.spec.hop,
            ),
        )
        if not self.recordings.published:
            batch = with_floor(batch, derived_seed(self.seed, self.name, name, "floor"))
        item, sounds = batch_item(batch, 0, name, self.name, self.spec.sample_rate)
        details = {**item.details, "sounds": [sound.id for sound in pools.used]}
        item = dataclasses.replace(item, seconds=seconds, details=details)
        edge = int(batch.reference_samples[0]) if batch.reference_samples is not None else 0
        return item, sounds, edge


def batch_item(
    batch: TaskBatch, row: int, name: str, test_set: str, sample_rate: int
) -> tuple[TestItem, dict[Role, Tensor]]:
    """A row of a built batch as an item of a test set, with its sounds.

    Args:
        batch: Result of a task's builder.
        row: Row of the batch.
        name: The item's id.
        test_set: The set's name.
        sample_rate: Sample rate of the batch in Hz.
    """
    sounds: dict[Role, Tensor] = {"target": batch.target[row]}
    if batch.source is not None:
        sounds["source"] = batch.source[row]
    detail = batch.details[row]
    item = TestItem(
        id=name,
        set=test_set,
        task=batch.task,
        instruction=batch.instructions[row],
        text=detail.get("text", ""),
        gender=detail.get("gender", ""),
        seconds=len(batch.target[row]) / sample_rate,
        details=dict(detail),
    )
    return item, sounds


def next_utterance(shuffler: Shuffler[Utterance], room: float, *, pair: bool = False) -> Utterance:
    """The next utterance for which there is room.

    Args:
        shuffler: Of utterances.
        room: Seconds.
        pair: Whether there must be room for its prompt as well.

    Raises:
        InputError: There is none.
    """
    most = room - MARGIN_SECONDS

    def fits(voice: Utterance) -> bool:
        if not pair:
            return voice.seconds <= most
        return voice.prompt is not None and max(voice.seconds, voice.prompt.seconds) <= most

    voice = shuffler.next(fits)
    if voice is None:
        what = "with a prompt as short" if pair else "of that length"
        raise InputError(f"There is no utterance of at most {room:.2f} s {what}; add shorter ones.")
    return voice

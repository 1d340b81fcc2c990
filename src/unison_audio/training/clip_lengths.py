"""How long the items of each task are, so that a user's utterances fit, and what fits in none.

Builders leave room around speech: an onset before it, or a second utterance in a cloned voice.
"""

import bisect
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from unison_audio.data.pools import MemoryPools
from unison_audio.data.records import Clip
from unison_audio.errors import InputError
from unison_audio.tasks.clips import ClipKind, ClipLimits
from unison_audio.tasks.draw import BuilderConfig
from unison_audio.tasks.table import TASKS

GRID = 100
"""Lengths between the shortest and the longest are tried in steps of 1 / GRID seconds."""


@dataclass(frozen=True, kw_only=True)
class ItemLengths:
    """Lengths that the items of a batch can have."""

    least: float
    """Usual length in seconds."""
    most: float
    """Longest length in seconds."""
    sample_rate: int
    """Samples per second."""
    hop: int
    """Samples of a latent frame."""


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """What a run trains on, and in which lengths."""

    shares: dict[str, float]
    """Task -> share of the batches."""
    seconds: dict[str, tuple[float, ...]]
    """Lengths of the items, as in `Phase.seconds`."""


def plan_tasks(
    shares: Mapping[str, float],
    own: Sequence[Clip],
    others: Sequence[Clip],
    lengths: ItemLengths,
    name: object,
    given: Collection[str] = (),
) -> TaskPlan:
    """Chooses the length of each task's items, and leaves out tasks whose speech fits in none.

    Items have the usual length, or the shortest in which all own utterances fit that fit in the
    longest. Warnings name the tasks that are left out.

    Args:
        shares: Task -> share of the batches; the clips allow each task by their kinds.
        own: The user's clips.
        others: Clips that are mixed in.
        lengths: The usual and the longest length.
        name: Name of the clips in messages.
        given: Tasks whose items are given whole, which no length limits.

    Raises:
        InputError: If no task is left.
    """
    seconds: dict[str, tuple[float, ...]] = {"": (lengths.least,)}
    missing: defaultdict[tuple[bool, float], list[str]] = defaultdict(list)
    spoken = [task for task in shares if TASKS[task].utterances and task not in given]
    if not spoken:
        return TaskPlan(shares=dict(shares), seconds=seconds)
    everything = [*own, *others]
    pools = _AskedPools(MemoryPools(everything, lengths.sample_rate))
    for task in spoken:
        room = _Room(task, pools, lengths)
        # Lengths are made for the own clips; those of a corpus are drawn as far as they fit.
        wanted = room.fitting(own, lengths.most)
        if wanted:
            chosen = room.shortest(max(len(clip.waveform) for clip in wanted))
        elif room.fitting(everything, lengths.least):
            chosen = lengths.least
        elif room.fitting(everything, lengths.most):
            chosen = lengths.most
        else:
            kind, limit = room.at(lengths.most)
            missing[kind == "speaker_pair", limit].append(task)
            continue
        if chosen > lengths.least:
            seconds[task] = (chosen,)
    if not missing:
        return TaskPlan(shares=dict(shares), seconds=seconds)
    left_out = {task for tasks in missing.values() for task in tasks}
    kept = {task: share for task, share in shares.items() if task not in left_out and share > 0}
    notes = [_note(*reason, tasks, name) for reason, tasks in missing.items()]
    if not kept:
        raise InputError(f"No task is left to train. {' '.join(notes)}")
    for note in notes:
        warnings.warn(note, stacklevel=2)
    total = math.fsum(kept.values())
    return TaskPlan(shares={task: share / total for task, share in kept.items()}, seconds=seconds)


class _Room:
    """The room for speech in the items of a task, as its builder asks for it."""

    def __init__(self, task: str, pools: "_AskedPools", lengths: ItemLengths) -> None:
        self.task, self.pools, self.lengths = task, pools, lengths

    def at(self, seconds: float) -> tuple[ClipKind, float]:
        """Kind and longest utterance of items of a length."""
        try:
            TASKS[self.task].build(
                self.pools,
                1,
                seconds,
                self.lengths.sample_rate,
                torch.Generator().manual_seed(0),
                config=BuilderConfig(hop=self.lengths.hop),
            )
        except _AskedError as asked:
            return asked.kind, asked.limit
        return "speech_any", math.inf  # a builder of another package that draws no speech

    def fitting(self, clips: Sequence[Clip], seconds: float) -> list[Clip]:
        """The clips that can be drawn for items of a length, as `MemoryPools` draws them."""
        kind, limit = self.at(seconds)
        speech = [
            clip
            for clip in clips
            if clip.record.kind == "speech"
            and (clip.record.text or kind == "speech_any")
            and len(clip.waveform) <= limit * self.lengths.sample_rate
        ]
        if kind != "speaker_pair":
            return speech
        counts = Counter(clip.record.speaker for clip in speech if clip.record.speaker)
        return [clip for clip in speech if counts[clip.record.speaker] >= 2]

    def shortest(self, samples: int) -> float:
        """Shortest length of an item with room for an utterance of so many samples."""
        least, most, rate = self.lengths.least, self.lengths.most, self.lengths.sample_rate
        tried = [least, *(n / GRID for n in range(int(least * GRID) + 1, math.ceil(most * GRID)))]
        place = bisect.bisect_left(
            tried, True, key=lambda seconds: int(self.at(seconds)[1] * rate) >= samples
        )
        return tried[place] if place < len(tried) else most


class _AskedError(Exception):
    """Ends a build at its first draw of speech."""

    def __init__(self, kind: ClipKind, limit: float) -> None:
        super().__init__(kind, limit)
        self.kind, self.limit = kind, limit


class _AskedPools:
    """Pools that tell which speech a builder asks for."""

    def __init__(self, pools: MemoryPools) -> None:
        self.pools = pools

    def draw(
        self, kind: ClipKind, count: int, where: ClipLimits, generator: torch.Generator
    ) -> list[Clip]:
        """Draws sounds and noise as the other pools do, and ends the build at speech."""
        if kind in ("sound", "noise"):
            return self.pools.draw(kind, count, where, generator)
        raise _AskedError(kind, where.max_seconds)


def _note(pairs: bool, limit: float, tasks: Sequence[str], name: object) -> str:
    """Says which tasks are left out, why, and what to do."""
    needing = f"{', '.join(tasks)} {'needs' if len(tasks) == 1 else 'need'}"
    if pairs:
        return (
            f"No speaker in {name} has two utterances of at most {limit:.2f} s, as {needing}, and "
            "so that is left out of the training; add two shorter ones of one speaker, or leave "
            'out "speaker".'
        )
    return (
        f"No utterance in {name} is at most {limit:.2f} s long, as {needing}, and so that is left "
        "out of the training; add a shorter one, or cut the silence around one."
    )

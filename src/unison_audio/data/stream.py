"""An endless, resumable stream of decoded clips from the shards of large corpora.

Each worker of each process reads its own share of every corpus (`shards.CorpusReader`), and draws
the corpus of each clip in proportion to the corpora's sizes.

With the same numbers of processes and workers, a resumed stream gives exactly the clips that it
would have given. With other numbers, the rest of the epoch is partitioned anew: every clip still
comes once an epoch, except that the clips of the current blocks come again.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from unison_audio.data.recording import decode
from unison_audio.data.records import (
    BROKEN_RECORD,
    BrokenClipError,
    Clip,
    ClipRecord,
    CorpusIndex,
    in_split,
    read_index,
    read_record,
)
from unison_audio.data.shards import (
    CORPUS,
    CROP,
    CorpusReader,
    Leftover,
    Place,
    Sample,
    epoch_units,
    generator_of,
)
from unison_audio.errors import InputError

TOO_LONG = "longer than wanted"

PREFETCH = 8
"""Decoded clips that each worker process keeps ready."""

_CHOICES = 1024
"""Corpora drawn at once: a generator per clip would cost more than decoding the clip."""

WorkerState = dict[str, Any]
"""The place of one worker in plain values, under the keys of existing checkpoints: `draws`, clips
drawn, usable or not; `passes`, a `Place` in each corpus; `skipped`, unusable clips by reason."""

StreamPosition = tuple[int, tuple[WorkerState, ...]]
"""Number of the worker that gives the next clip, and the place of each worker of this process."""

Decoded = tuple[ClipRecord, np.ndarray, WorkerState]
"""Record and waveform of a clip, and the worker's place after it. The waveform leaves a worker
process as an array: tensors go through shared memory, of which containers have little."""


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """What a stream gives, and which share of it this process reads."""

    sample_rate: int
    """Sample rate of the waveforms in Hz."""
    kind: str | None = None
    """`speech` or `sound`; None for both."""
    split: str | None = "train"
    """Split of the clips, as in `in_split`; None for all."""
    max_seconds: float = math.inf
    """Longest clip. Longer speech is left out and counted; of a longer sound, a random stretch of
    this length is decoded."""
    rank: int = 0
    """Number of this process."""
    world: int = 1
    """Number of processes."""
    workers: int = 0
    """Worker processes that decode ahead for this process; 0 decodes on demand."""
    seed: int = 0
    """Seed of all draws."""


@dataclass(frozen=True, kw_only=True)
class _Shares(IterableDataset[Decoded | InputError]):
    """The clips that the workers of this process read, each worker its own share."""

    config: StreamConfig
    indexes: tuple[CorpusIndex, ...]
    leftovers: tuple[Leftover, ...]
    start: StreamPosition

    def __iter__(self) -> Iterator[Decoded | InputError]:
        (turn, workers), info = self.start, get_worker_info()
        # A loader asks its workers in a fixed cycle from 0 on, so after a resume its worker 0 must
        # be the one whose turn it is.
        worker = (turn + (0 if info is None else info.id)) % len(workers)
        try:
            yield from self._read(worker, workers[worker])
        except InputError as error:
            # An exception would leave the worker process wrapped in a traceback.
            yield error

    def _read(self, worker: int, start: WorkerState) -> Iterator[Decoded]:
        config, size = self.config, len(self.start[1])
        overall = config.rank * size + worker
        draws, skipped = start["draws"], Counter[str](start["skipped"])
        places = [Place(*place) for place in start["passes"]]
        readers = [
            CorpusReader(
                index=index,
                number=number,
                seed=config.seed,
                worker=overall,
                num_workers=config.world * size,
                leftover=leftover,
                skipped=skipped,
            )
            for number, (index, leftover) in enumerate(
                zip(self.indexes, self.leftovers, strict=True)
            )
        ]
        samples = [reader.read(place) for reader, place in zip(readers, places, strict=True)]
        sizes = np.array([float(index.clips.sum()) for index in self.indexes])
        choices = np.empty(0, np.int64)
        while True:
            if draws % _CHOICES == 0 or not len(choices):
                generator = generator_of(config.seed, CORPUS, overall, draws // _CHOICES)
                choices = generator.choice(len(readers), _CHOICES, p=sizes / sizes.sum())
            number = int(choices[draws % _CHOICES])
            draws += 1
            shard, sample, places[number] = next(samples[number])
            reader, found = readers[number], None
            try:
                found = _decode(sample, config, (number, places[number].epoch, shard))
            except BrokenClipError as error:
                skipped[error.reason] += 1
                if error.reason != TOO_LONG:
                    reader.warn(shard, f"clip {sample.ordinal}: {error.reason} ({error})")
            if found is None:
                reader.count("clips", shard)
                continue
            reader.in_a_row["clips"] = 0
            # Copied with each clip, since it crosses a process boundary.
            passes = [list(place) for place in places]
            yield *found, {"draws": draws, "passes": passes, "skipped": dict(skipped)}


def _decode(
    sample: Sample, config: StreamConfig, where: tuple[int, int, int]
) -> tuple[ClipRecord, np.ndarray] | None:
    """Decodes a sample; None if the stream leaves out its kind or split.

    Corpus, epoch and shard (`where`) and the sample's number seed the crop, so that a clip is
    cropped alike whoever decodes it.
    """
    record = read_record(sample.files.get("json", b""))
    if config.kind not in (None, record.kind) or not in_split(record.split, config.split):
        return None
    too_long = record.seconds > config.max_seconds
    # A sound may be cropped anywhere. Cropped speech would no longer match its text.
    if too_long and record.kind != "sound":
        raise BrokenClipError(TOO_LONG, f"{record.seconds} s")
    if not sample.suffix:
        raise BrokenClipError(BROKEN_RECORD, "it has no sound")
    waveform = decode(
        sample.files[sample.suffix],
        sample.suffix,
        config.sample_rate,
        crop_seconds=config.max_seconds if too_long else None,
        draw=lambda: generator_of(config.seed, CROP, *where, sample.ordinal).random(),
    )
    return record, waveform.numpy()


class ClipStream:
    """Gives decoded, resampled clips endlessly; `next` gives the next one.

    Args:
        corpora: Folders or URLs of corpora with an `index.json` (see `shards.open_url`).
            Corpora without clips of the kind and split are left out.
        config: What to give.

    Raises:
        InputError: If an index cannot be read, or no corpus has such clips. While reading, if a
            corpus gives only clips that cannot be used.
    """

    def __init__(self, corpora: Sequence[str | Path], config: StreamConfig) -> None:
        found = [read_index(path, kind=config.kind, split=config.split) for path in corpora]
        self.config = config
        self.indexes = tuple(index for index in found if index.clips.sum())
        if not self.indexes:
            raise InputError(
                f"There is no {config.kind or 'clip'} of the split {config.split!r} in "
                f"{', '.join(map(str, corpora)) or 'no corpus'}; add a corpus that has some"
            )
        self.clips = int(sum(index.clips.sum() for index in self.indexes))
        self.exact = True
        """Whether the stream continues exactly where its state was saved."""
        self.position = self._start([0] * len(self.indexes), {})
        """The place before the next clip."""
        self._leftovers: tuple[Leftover, ...] = ({},) * len(self.indexes)
        self._source: Iterator[Decoded | InputError] | None = None

    def __iter__(self) -> Iterator[Clip]:
        """The stream itself."""
        return self

    def __next__(self) -> Clip:
        """Gives the next clip."""
        if self._source is None:
            self._source = self._open()
        found = next(self._source)
        if isinstance(found, InputError):
            self.close()
            raise found
        # Workers run ahead of what was given, so the place travels with each clip.
        record, waveform, after = found
        turn, workers = self.position
        workers = (*workers[:turn], after, *workers[turn + 1 :])
        self.position = ((turn + 1) % len(workers), workers)
        return Clip(record=record, waveform=torch.from_numpy(waveform))

    @property
    def skipped(self) -> Counter[str]:
        """Clips that this process could not use, by reason."""
        return _total(self.position[1])

    def state_dict(self, position: StreamPosition | None = None) -> dict[str, Any]:
        """The stream's place, or an earlier one, in plain values for a checkpoint."""
        turn, workers = position or self.position
        # The keys are those of existing checkpoints.
        return {
            "corpora": self._corpora(),
            "seed": self.config.seed,
            "rank": self.config.rank,
            "world": self.config.world,
            "turn": turn,
            "parts": list(workers),
            "rests": [
                {epoch: units.tolist() for epoch, units in leftover.items()}
                for leftover in self._leftovers
            ],
        }

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Resumes from a state.

        Args:
            states: The `state_dict` of this process, or where the number of processes or workers
                has changed, that of every process.

        Raises:
            InputError: If the states are of other corpora or of another seed, or one is missing.
        """
        self.close()
        for state in states:
            for name, now in (("corpora", self._corpora()), ("seed", self.config.seed)):
                if state[name] != now:
                    raise InputError(
                        f"The stream's state is of {name} {state[name]} and not {now}; give the "
                        "same, or start without the state"
                    )
        first = states[0]
        self._leftovers = tuple(
            {int(epoch): np.array(units, np.int64).reshape(-1, 4) for epoch, units in rest.items()}
            for rest in first["rests"]
        )
        own = [state for state in states if state["rank"] == self.config.rank]
        same = (first["world"], len(first["parts"])) == (self.config.world, self._size)
        self.exact = same and bool(own)
        if self.exact:
            self.position = (own[0]["turn"], tuple(own[0]["parts"]))
        else:
            self._repartition(sorted(states, key=lambda state: state["rank"]))

    def close(self) -> None:
        """Ends the worker processes; the next clip starts new ones."""
        self._source = None

    @property
    def _size(self) -> int:
        """Number of workers; this process is its own worker if it has no others."""
        return max(1, self.config.workers)

    def _corpora(self) -> list[list[Any]]:
        return [[index.name, len(index.names)] for index in self.indexes]

    def _start(self, epochs: Sequence[int], skipped: Mapping[str, int]) -> StreamPosition:
        """The place where all workers begin the same epochs; one of them has the counts."""
        passes = [list(Place(epoch)) for epoch in epochs]
        start: WorkerState = {"draws": 0, "passes": passes, "skipped": {}}
        first = start | {"skipped": dict(skipped)}
        return 0, (first, *(start,) * (self._size - 1))

    def _repartition(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Partitions what another number of workers left of the epochs that they had begun."""
        ranks = [state["rank"] for state in states]
        if ranks != list(range(states[0]["world"])):
            raise InputError(
                f"The stream's state is of {ranks} out of {states[0]['world']} ranks; give the "
                f"states of all, since there are {self.config.world} now"
            )
        old = [worker for state in states for worker in state["parts"]]
        self._leftovers = tuple(
            self._leftover(number, [Place(*worker["passes"][number]) for worker in old])
            for number in range(len(self.indexes))
        )
        # Draws start at 0 again: the sequence of corpora belongs to a worker's number.
        # One process inherits all counts, so that their total over the processes stays right.
        epochs = [min(leftover) for leftover in self._leftovers]
        self.position = self._start(epochs, _total(old) if self.config.rank == 0 else {})

    def _leftover(self, number: int, places: Sequence[Place]) -> Leftover:
        """What workers at these places left of a corpus, to be partitioned anew.

        Clips of the current blocks count as unread. To lose them would bias the epoch; to repeat
        them costs at most one block per worker.
        """
        index, seed, before = self.indexes[number], self.config.seed, self._leftovers[number]
        # Workers are in different epochs, since each reads at its own pace. The slowest decides.
        epochs = [place.epoch for place in places]
        left = {}
        for epoch in range(min(epochs), max(epochs) + 1):
            units = epoch_units(index, number, seed, epoch, len(places), before)
            found = []
            for worker, place in enumerate(places):
                own = units[worker :: len(places)].copy()
                if place.epoch == epoch:
                    own = own[place.unit :]
                    # The first unit was begun; it goes on at the block's first sample.
                    own[:1, 3] = np.maximum(own[:1, 3], place.ordinal)
                if place.epoch <= epoch:
                    found.append(own)
            left[epoch] = np.concatenate(found)
        return left

    def _open(self) -> Iterator[Decoded | InputError]:
        shares = _Shares(
            config=self.config,
            indexes=self.indexes,
            leftovers=self._leftovers,
            start=self.position,
        )
        loader = DataLoader(
            shares,
            batch_size=None,
            num_workers=self.config.workers,
            prefetch_factor=PREFETCH if self.config.workers else None,
            collate_fn=_unchanged,
            generator=torch.Generator(),  # DataLoader would draw from the global one
        )
        return iter(loader)


def _total(workers: Sequence[WorkerState]) -> Counter[str]:
    return sum((Counter(worker["skipped"]) for worker in workers), Counter())


def _unchanged(item: Any) -> Any:
    return item

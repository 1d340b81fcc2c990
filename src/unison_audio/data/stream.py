"""An endless, resumable stream of decoded clips from the shards of large corpora.

Every worker of every rank reads its own share of each corpus (`data.epochs`) and draws the corpus
of each clip by weight. The state is a few numbers a worker; memory holds at most two blocks of
encoded clips a corpus and worker, whatever the corpora's size.

Guarantees. With the same numbers of ranks and workers, a resumed stream gives exactly the clips
that it would have given. With other numbers, what is left of an epoch is partitioned anew: every
clip is still given once an epoch, except those of the current blocks, which are given again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from unison_audio.data.corpus_index import CorpusIndex, read_index
from unison_audio.data.decode import decode
from unison_audio.data.epochs import (
    EpochPosition,
    EpochReader,
    Leftover,
    Purpose,
    ReaderConfig,
    generator_of,
    leftover_of,
)
from unison_audio.data.records import (
    BROKEN_RECORD,
    BrokenClipError,
    Clip,
    ClipRecord,
    in_split,
    read_record,
)
from unison_audio.data.shards import Sample
from unison_audio.errors import InputError

TOO_LONG = "longer than wanted"

PREFETCH = 8
"""Clips that each worker process has ready."""

_CHOICES = 1024
"""Corpora drawn at once: a generator for each clip would cost more than its decoding."""


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """What a stream gives, and which share of it this process reads."""

    sample_rate: int
    """Of the waveforms, in Hz."""
    kind: str | None = None
    """Only ``speech`` or only ``sound``; both if None."""
    split: str | None = "train"
    """Only clips of this split, as `in_split` takes it; all if None."""
    max_seconds: float | None = None
    """Longest clip; None for any."""
    crop: bool = False
    """Whether a longer clip gives a stretch of that length, drawn at random, of which alone is
    decoded; otherwise it is left out, and counted."""
    weights: tuple[float, ...] | None = None
    """How often each corpus is drawn, relatively; by their numbers of clips if None."""
    rank: int = 0
    """Number of this process."""
    world: int = 1
    """Processes in all."""
    workers: int = 0
    """Processes that decode ahead for this one; 0 decodes in between. It must be 0 in a worker
    process of a ``DataLoader``, where each worker reads its own share."""
    seed: int = 0
    """Of all that is drawn."""
    block_clips: int = 1000
    """How many clips of a corpus are shuffled together."""
    block_bytes: int = 64 << 20
    """Or fewer, of so many encoded bytes; bounds the memory of a corpus and worker."""


class WorkerPosition(NamedTuple):
    """Where a worker is in the stream."""

    draws: int
    """Clips drawn, usable or not."""
    epochs: tuple[EpochPosition, ...]
    """Its place in each corpus."""
    skipped: dict[str, int]
    """Clips that it could not use, by reason."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "draws": self.draws,
            # The key is that of existing checkpoints.
            "passes": [list(place) for place in self.epochs],
            "skipped": dict(self.skipped),
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "WorkerPosition":
        """Reads what `to_json` gave."""
        epochs = tuple(EpochPosition(*place) for place in plain["passes"])
        return cls(plain["draws"], epochs, dict(plain["skipped"]))


class StreamPosition(NamedTuple):
    """A place in this rank's stream."""

    turn: int
    """Which worker gives the next clip."""
    workers: tuple[WorkerPosition, ...]
    """Of this rank."""


Decoded = tuple[ClipRecord, np.ndarray, WorkerPosition]
"""A clip with the worker's position after it, as it leaves a worker process: as an array, since
tensors would go through shared memory, of which containers have little."""


@dataclass(frozen=True, kw_only=True)
class _Shares(IterableDataset[Decoded | InputError]):
    """What the workers of a rank read, each its own share."""

    config: StreamConfig
    indexes: tuple[CorpusIndex, ...]
    weights: tuple[float, ...]
    leftovers: tuple[Leftover, ...]
    num_workers: int
    starts: tuple[tuple[int, WorkerPosition], ...]
    """Number of each worker among those of all ranks, and where it starts."""

    def __iter__(self) -> Iterator[Decoded | InputError]:
        info = get_worker_info()
        assert info is not None
        return self.read(info.id)

    def read(self, place: int) -> Iterator[Decoded | InputError]:
        """Reads the share of one of the workers for ever."""
        try:
            yield from self._read(*self.starts[place])
        except InputError as error:
            yield error  # raised, it would leave a worker process wrapped in a traceback

    def _read(self, worker: int, position: WorkerPosition) -> Iterator[Decoded]:
        config, draws = self.config, position.draws
        how = ReaderConfig(
            seed=config.seed,
            worker=worker,
            num_workers=self.num_workers,
            block_clips=config.block_clips,
            block_bytes=config.block_bytes,
        )
        readers = [
            EpochReader(index, number, how, self.leftovers[number])
            for number, index in enumerate(self.indexes)
        ]
        places = list(position.epochs)
        samples = [reader.read(place) for reader, place in zip(readers, places, strict=True)]
        skipped = Counter(position.skipped)
        choices = np.empty(0, np.int64)
        while True:
            if draws % _CHOICES == 0 or not len(choices):
                generator = generator_of(config.seed, Purpose.CORPUS, worker, draws // _CHOICES)
                choices = generator.choice(len(readers), _CHOICES, p=self.weights)
            number = int(choices[draws % _CHOICES])
            draws += 1
            epoch, shard, sample, places[number], lost = next(samples[number])
            skipped += lost
            found = None
            try:
                found = self._decode(sample, (number, epoch, shard, sample.ordinal))
            except BrokenClipError as error:
                skipped[error.reason] += 1
                if error.reason != TOO_LONG:
                    message = f"clip {sample.ordinal}: {error.reason} ({error})"
                    readers[number].warn(shard, message)
            readers[number].note(usable=found is not None)
            if found is not None:
                yield *found, WorkerPosition(draws, tuple(places), dict(skipped))

    def _decode(
        self, sample: Sample, where: tuple[int, ...]
    ) -> tuple[ClipRecord, np.ndarray] | None:
        """Decodes a sample; None if it is not of the wanted kind or split."""
        config, record = self.config, read_record(sample.files.get("json", b""))
        if config.kind not in (None, record.kind) or not in_split(record.split, config.split):
            return None
        crop = None
        if config.max_seconds is not None and record.seconds > config.max_seconds:
            if not config.crop:
                raise BrokenClipError(TOO_LONG, f"{record.seconds} s")
            crop = config.max_seconds
        if not sample.suffix:
            raise BrokenClipError(BROKEN_RECORD, "it has no sound")
        waveform = decode(
            sample.files[sample.suffix],
            sample.suffix,
            config.sample_rate,
            crop_seconds=crop,
            draw=lambda: generator_of(config.seed, Purpose.CROP, *where).random(),
        )
        return record, waveform.numpy()


class ClipStream:
    """Gives decoded, resampled clips for ever; ``next`` gives the next one.

    Args:
        corpora: Folders or URLs of corpora with an ``index.json`` (see `corpus_index.open_url`);
            those without clips of the kind are left out.
        config: What to give.

    Raises:
        InputError: If an index cannot be read, or no corpus has clips of the kind. While reading,
            if a corpus gives only clips that cannot be used.
    """

    def __init__(self, corpora: Sequence[str | Path], config: StreamConfig) -> None:
        found = [read_index(path, kind=config.kind, split=config.split) for path in corpora]
        counts = [float(index.clips.sum()) for index in found]
        weights = counts if config.weights is None else list(config.weights)
        if len(weights) != len(found) or any(not weight >= 0 for weight in weights):
            raise InputError(
                f"The weights are {weights} for {len(found)} corpora; give one of at least 0 each"
            )
        kept = [i for i in range(len(found)) if counts[i] and weights[i]]
        if not kept:
            raise InputError(
                f"There is no {config.kind or 'clip'} of the split {config.split!r} in "
                f"{', '.join(map(str, corpora)) or 'no corpus'}; add a corpus that has some"
            )
        total = sum(weights[i] for i in kept)
        self.config, self.sample_rate = config, config.sample_rate
        self.indexes = tuple(found[i] for i in kept)
        self.weights = tuple(weights[i] / total for i in kept)
        self.rank, self.world = config.rank, config.world
        self.clips = int(sum(counts[i] for i in kept))
        self._exact = True
        self._states: list[Mapping[str, Any]] = []
        self._position: StreamPosition | None = None
        self._process: int | None = None
        self._leftovers: tuple[Leftover, ...] = ()
        self._source: Iterator[Decoded | InputError] | None = None

    def __iter__(self) -> Iterator[Clip]:
        """Itself."""
        return self

    def __next__(self) -> Clip:
        """Gives the next clip."""
        turn, workers = self.position()
        if self._source is None:
            self._source = self._open(turn, workers)
        found = next(self._source)
        if isinstance(found, InputError):
            self.close()
            raise found
        record, waveform, after = found
        workers = (*workers[:turn], after, *workers[turn + 1 :])
        self._position = StreamPosition((turn + 1) % len(workers), workers)
        return Clip(record=record, waveform=torch.from_numpy(waveform))

    @property
    def exact(self) -> bool:
        """Whether the stream continues exactly where its state was saved."""
        self.position()
        return self._exact

    @property
    def skipped(self) -> Counter[str]:
        """How many clips this rank could not use, by reason."""
        return sum((Counter(one.skipped) for one in self.position().workers), Counter())

    def position(self) -> StreamPosition:
        """The place before the next clip."""
        outer = get_worker_info()
        process = None if outer is None else outer.id
        if self._position is None or process != self._process:
            # Not started, or started before this worker process was forked.
            self._source, self._process = None, process
            self._position = self._start()
        return self._position

    def state_dict(self, position: StreamPosition | None = None) -> dict[str, Any]:
        """The stream's place, or an earlier one, in plain values for a checkpoint."""
        position = position or self.position()
        return {
            "corpora": self._corpora(),
            "seed": self.config.seed,
            "rank": self.rank,
            "world": self.world,
            "turn": position.turn,
            "parts": [worker.to_json() for worker in position.workers],
            "rests": [
                {epoch: units.tolist() for epoch, units in leftover.items()}
                for leftover in self._leftovers
            ],
        }

    def load_state_dict(self, states: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Resumes from a state.

        Args:
            states: What `state_dict` gave, of this rank; or a list of every rank's, which is
                needed if the number of ranks or workers has changed.

        Raises:
            InputError: If the states are of other corpora or of another seed, or one is missing.
        """
        self.close()
        self._states = [states] if isinstance(states, Mapping) else list(states)
        self._position = None
        for state in self._states:
            for name, now in (("corpora", self._corpora()), ("seed", self.config.seed)):
                if state[name] != now:
                    raise InputError(
                        f"The stream's state is of {name} {state[name]} and not {now}; give the "
                        "same, or start without the state"
                    )

    def close(self) -> None:
        """Ends the worker processes; the next clip starts others."""
        self._source = None

    def _corpora(self) -> list[list[Any]]:
        return [[index.name, len(index.names)] for index in self.indexes]

    def _start(self) -> StreamPosition:
        """Finds out which share is this process', and where each of its workers starts."""
        outer = get_worker_info()
        if outer is not None:
            self.rank = self.config.rank * outer.num_workers + outer.id
            self.world = self.config.world * outer.num_workers
        size = max(1, self.config.workers)
        self._leftovers, self._exact = ({},) * len(self.indexes), True
        if not self._states:
            fresh = WorkerPosition(0, (EpochPosition(),) * len(self.indexes), {})
            return StreamPosition(0, (fresh,) * size)
        first = self._states[0]
        leftovers = tuple(
            {int(epoch): np.array(units, np.int64).reshape(-1, 4) for epoch, units in rest.items()}
            for rest in first["rests"]
        )
        same = (first["world"], len(first["parts"])) == (self.world, size)
        own = [state for state in self._states if state["rank"] == self.rank]
        if same and own:
            self._leftovers = leftovers
            workers = tuple(map(WorkerPosition.from_json, own[0]["parts"]))
            return StreamPosition(own[0]["turn"], workers)
        self._exact = False
        return self._repartition(first["world"], size, leftovers)

    def _repartition(
        self, world: int, size: int, leftovers: tuple[Leftover, ...]
    ) -> StreamPosition:
        """Partitions anew what another number of workers left of the epochs they had begun."""
        every = sorted(self._states, key=lambda state: state["rank"])
        ranks = [state["rank"] for state in every]
        if ranks != list(range(world)):
            raise InputError(
                f"The stream's state is of {ranks} out of {world} ranks; give the states of all, "
                f"since there are {self.world} now"
            )
        old = [WorkerPosition.from_json(part) for state in every for part in state["parts"]]
        self._leftovers = tuple(
            leftover_of(index, i, self.config.seed, [one.epochs[i] for one in old], leftovers[i])
            for i, index in enumerate(self.indexes)
        )
        start = tuple(EpochPosition(epoch=min(leftover)) for leftover in self._leftovers)
        # One worker inherits what all have counted, so that a total over the ranks stays right.
        skipped = sum((Counter(one.skipped) for one in old), Counter())
        heir = WorkerPosition(0, start, dict(skipped) if self.rank == 0 else {})
        return StreamPosition(0, (heir, *(WorkerPosition(0, start, {}),) * (size - 1)))

    def _open(
        self, turn: int, workers: tuple[WorkerPosition, ...]
    ) -> Iterator[Decoded | InputError]:
        size = len(workers)
        # A loader asks its workers in turn from the first one on: the one whose turn it is.
        order = [(turn + i) % size for i in range(size)]
        shares = _Shares(
            config=self.config,
            indexes=self.indexes,
            weights=self.weights,
            leftovers=self._leftovers,
            num_workers=self.world * size,
            starts=tuple((self.rank * size + i, workers[i]) for i in order),
        )
        if not self.config.workers:
            return shares.read(0)
        return iter(
            DataLoader(
                shares,
                batch_size=None,
                num_workers=self.config.workers,
                prefetch_factor=PREFETCH,
                collate_fn=_unchanged,
                generator=torch.Generator(),  # leaves the global one alone
            )
        )


def _unchanged(item: Any) -> Any:
    return item

"""One worker's endless reading of one corpus: which shards, in which order, shuffled in blocks.

An epoch of a corpus is a permutation of its shards, drawn from (seed, epoch) and partitioned among
the workers of all ranks. If there are more workers than shards, the workers of a shard share it by
sample number. Each worker shuffles what it reads in blocks: a block is read in order, ends at its
size or with the epoch, and is handed out in an order of its own while the next one is read.

A full shuffle of a corpus needs random access to its shards, which object stores do not give, or
a state as long as the corpus. With blocks a position is five numbers whatever the corpus' size;
resuming there reads at most one block again and continues with the same clips.
"""

import enum
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

import numpy as np

from unison_audio.data.corpus_index import CorpusIndex
from unison_audio.data.shards import LostClipsError, Sample, read_samples
from unison_audio.errors import InputError

MAX_LOST_SHARDS, MAX_UNUSABLE_CLIPS = 32, 10_000
"""So many shards in a row without a clip, or clips in a row that cannot be used, end a run."""

Units = np.ndarray
"""(U, 4) int64, the pieces of an epoch: shard, share i of n, first sample."""

Leftover = Mapping[int, Units]
"""Epoch -> the units that another number of workers left of it."""


class Purpose(enum.IntEnum):
    """What random numbers are drawn for; each purpose has a sequence of its own."""

    EPOCH = 0
    BLOCK = 1
    CORPUS = 2
    CROP = 3


def generator_of(seed: int, purpose: Purpose, *where: int) -> np.random.Generator:
    """Makes the generator of one place in a stream.

    Seeding by place, instead of keeping one generator, leaves no generator state to save.
    """
    return np.random.default_rng((seed, purpose, *where))


class SkippedClipsWarning(UserWarning):
    """Clips that cannot be used; warned of once a shard."""


class EpochPosition(NamedTuple):
    """Where a block begins and how many of its clips were handed out."""

    epoch: int = 0
    number: int = 0
    """Of the worker's units in the epoch."""
    ordinal: int = 0
    """Of the next sample in that unit's shard."""
    block: int = 0
    """How many blocks came before."""
    delivered: int = 0
    """Clips of the block that were handed out."""


@dataclass(frozen=True, kw_only=True)
class ReaderConfig:
    """How one worker reads a corpus."""

    seed: int
    """Of all orders."""
    worker: int
    """Number of this worker among those of all ranks."""
    num_workers: int
    """How many there are."""
    block_clips: int
    """Most clips in a block."""
    block_bytes: int
    """A block is full when its clips have so many bytes."""


@dataclass
class _Block:
    """Samples read in order, each with its (epoch, shard)."""

    start: EpochPosition
    samples: list[tuple[int, int, Sample] | None] = field(default_factory=list)
    bytes: int = 0
    full: bool = False
    lost: Counter[str] = field(default_factory=Counter)


def epoch_units(
    index: CorpusIndex, number: int, seed: int, epoch: int, num_workers: int, leftover: Leftover
) -> Units:
    """Lists the units of an epoch; worker w takes w, w + num_workers, ...

    Args:
        index: The corpus.
        number: Of the corpus in the stream.
        seed: Of the stream.
        epoch: Which.
        num_workers: How many share it.
        leftover: Epochs begun by another number of workers.
    """
    if epoch in leftover:
        return leftover[epoch]
    shares = -(-num_workers // len(index.names))
    generator = generator_of(seed, Purpose.EPOCH, number, epoch)
    order = generator.permutation(len(index.names) * shares)
    share, zero = order % shares, np.zeros_like(order)
    return np.stack([order // shares, share, np.full_like(order, shares), zero], axis=1)


def leftover_of(
    index: CorpusIndex,
    number: int,
    seed: int,
    positions: Sequence[EpochPosition],
    leftover: Leftover,
) -> Leftover:
    """Collects what workers leave of the epochs they have begun, to be partitioned anew.

    Clips of the current blocks count as unread: losing them would bias an epoch, while repeating
    them costs at most a block a worker.

    Args:
        index: The corpus.
        number: Of the corpus in the stream.
        seed: Of the stream.
        positions: Of all workers, in order.
        leftover: What those workers had been given.
    """
    epochs = [position.epoch for position in positions]
    left = {}
    for epoch in range(min(epochs), max(epochs) + 1):
        units = epoch_units(index, number, seed, epoch, len(positions), leftover)
        found = []
        for worker, position in enumerate(positions):
            own = units[worker :: len(positions)].copy()
            if position.epoch == epoch:
                own = own[position.number :]
                own[:1, 3] = np.maximum(own[:1, 3], position.ordinal)
            if position.epoch <= epoch:
                found.append(own)
        left[epoch] = np.concatenate(found)
    return left


class EpochReader:
    """Yields a worker's samples of one corpus for ever.

    Args:
        index: The corpus.
        number: Of the corpus in the stream.
        config: How to read it.
        leftover: Epochs begun by another number of workers.
    """

    def __init__(
        self, index: CorpusIndex, number: int, config: ReaderConfig, leftover: Leftover
    ) -> None:
        self.index, self.number, self.config, self.leftover = index, number, config, leftover
        self._place = (0, 0, 0)  # epoch, unit and sample that are read next
        self._shard = 0
        self._lost: Counter[str] = Counter()
        self._lost_shards: set[int] = set()
        self._warned: set[int] = set()
        self._lost_in_a_row = self._unusable_in_a_row = 0

    def read(
        self, start: EpochPosition
    ) -> Iterator[tuple[int, int, Sample, EpochPosition, Counter[str]]]:
        """Yields (epoch, shard, sample, position after it, clips lost before it by reason).

        Raises:
            InputError: If many shards in a row gave no clip.
        """
        samples = self._read_in_order(start)
        block, delivered = _Block(start._replace(delivered=0)), start.delivered
        while not block.full:
            self._fill(block, samples)
        # Resuming within a block: what was lost on the way to it was counted before.
        lost = Counter() if delivered else block.lost
        while True:
            where = (self.number, self.config.worker, block.start.block)
            generator = generator_of(self.config.seed, Purpose.BLOCK, *where)
            order = generator.permutation(len(block.samples)).tolist()
            for place in order[:delivered]:
                block.samples[place] = None
            following = _Block(EpochPosition(*self._place, block.start.block + 1))
            for count, place in enumerate(order[delivered:], delivered + 1):
                # One sample is read for each one handed out, so that no step waits for a block,
                # and each one handed out is let go, so that memory holds at most two blocks.
                self._fill(following, samples)
                entry, block.samples[place] = block.samples[place], None
                assert entry is not None
                yield *entry, block.start._replace(delivered=count), lost
                lost = Counter()
            while not following.full:
                self._fill(following, samples)
            block, delivered = following, 0
            lost += block.lost

    def note(self, *, usable: bool) -> None:
        """Notes whether the last sample could be used.

        Raises:
            InputError: If it is one bad clip too many.
        """
        self._unusable_in_a_row = 0 if usable else self._unusable_in_a_row + 1
        if self._unusable_in_a_row >= MAX_UNUSABLE_CLIPS:
            self._give_up(f"{MAX_UNUSABLE_CLIPS} clips")

    def warn(self, shard: int, message: str) -> None:
        """Warns of a shard's first fault; a damaged corpus must not flood the log."""
        if shard not in self._warned:
            self._warned.add(shard)
            text = f"{self.index.url(shard)}: {message}; further skips there are only counted"
            warnings.warn(text, SkippedClipsWarning, stacklevel=2)

    def _fill(self, block: _Block, samples: Iterator[Sample | None]) -> None:
        """Reads one sample into a block, or marks the block as full."""
        config = self.config
        if len(block.samples) >= config.block_clips or block.bytes >= config.block_bytes:
            block.full = True
        if block.full:
            return
        sample = next(samples)
        block.lost += self._lost
        self._lost.clear()
        if sample is None:
            block.full = True
            return
        block.samples.append((self._place[0], self._shard, sample))
        block.bytes += sum(map(len, sample.files.values()))

    def _read_in_order(self, start: EpochPosition) -> Iterator[Sample | None]:
        """Yields samples from a position on, None at the end of each epoch."""
        config = self.config
        epoch, first_unit, ordinal = start[:3]
        while True:
            every = epoch_units(
                self.index, self.number, config.seed, epoch, config.num_workers, self.leftover
            )
            units = every[config.worker :: config.num_workers].copy()  # lets the others go
            del every
            for unit in range(first_unit, len(units)):
                shard, share, shares, first = units[unit].tolist()
                self._shard = shard
                clips = int(self.index.clips[shard])
                samples = read_samples(
                    self.index.url(shard),
                    clips,
                    first=max(first, ordinal),
                    share=(share, shares),
                    patient=shard not in self._lost_shards,
                )
                try:
                    for sample in samples:
                        self._place, self._lost_in_a_row = (epoch, unit, sample.ordinal + 1), 0
                        yield sample
                except LostClipsError as error:
                    missing = sum(i % shares == share for i in range(error.first, clips))
                    self._lost[error.reason] += missing
                    self._lose(shard, f"{error.reason} ({error})")
                ordinal = 0
            epoch, first_unit, ordinal = epoch + 1, 0, 0
            self._place = (epoch, 0, 0)
            yield None

    def _lose(self, shard: int, message: str) -> None:
        self._lost_shards.add(shard)
        self.warn(shard, message)
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= MAX_LOST_SHARDS:
            self._give_up(f"{MAX_LOST_SHARDS} shards")

    def _give_up(self, what: str) -> NoReturn:
        raise InputError(
            f"{what} of the corpus {self.index.name} in a row, the last in "
            f"{self.index.url(self._shard)}, could not be used; see the warnings for the reasons, "
            "and repair the corpus or leave it out"
        )

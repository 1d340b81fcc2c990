"""One worker's endless reading of one corpus: which shards, in which order, shuffled in blocks.

An epoch of a corpus is a permutation of its shards, drawn from (seed, epoch) and partitioned among
the workers of all processes. If there are more workers than shards, several workers share a shard
by sample number. Each worker shuffles its samples in blocks. A block is read in order and ends at
its size or with the epoch. Its samples come in random order, while the next block is read.

A full shuffle of a corpus needs random access to its shards, which object stores do not give, or
a state as long as the corpus. With blocks a position is five numbers, whatever the corpus's size.
A resume reads at most one block again and continues with the same clips.
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

BLOCK_CLIPS, BLOCK_BYTES = 1000, 64 << 20
"""Most clips and encoded bytes of a block; they bound the memory per corpus and worker."""

MAX_LOST_SHARDS, MAX_UNUSABLE_CLIPS = 32, 10_000
"""This many shards in a row without a clip, or unusable clips in a row, end a run."""

Units = np.ndarray
"""(U, 4) int64, the pieces of an epoch: shard, share i of n, first sample."""

Leftover = Mapping[int, Units]
"""Epoch -> the units that another number of workers left of it."""


class Purpose(enum.IntEnum):
    """Purpose of random numbers; each has a sequence of its own."""

    EPOCH = 0
    BLOCK = 1
    CORPUS = 2
    CROP = 3


def generator_of(seed: int, purpose: Purpose, *where: int) -> np.random.Generator:
    """Makes the generator of one place in a stream.

    A generator seeded by its place has no state that a checkpoint would need to store.
    """
    return np.random.default_rng((seed, purpose, *where))


class SkippedClipsWarning(UserWarning):
    """A shard with clips that cannot be used; one warning per shard."""


class EpochPosition(NamedTuple):
    """Where a block begins, and how many of its clips were given."""

    epoch: int = 0
    unit: int = 0
    """Number of the unit among the worker's units of the epoch."""
    ordinal: int = 0
    """Number of the next sample in the unit's shard."""
    block: int = 0
    """Number of blocks before this one."""
    delivered: int = 0
    """Clips of the block that were given."""


class _Read(NamedTuple):
    """A sample in the order of the shards."""

    place: tuple[int, int, int]
    """Epoch, unit and ordinal of what follows."""
    shard: int
    sample: Sample | None
    """None at the end of an epoch."""
    lost: Counter[str]
    """Clips lost since the sample before, by reason."""


@dataclass
class _Block:
    """Samples that are shuffled together, each with its shard."""

    start: EpochPosition
    end: tuple[int, int, int] = (0, 0, 0)
    samples: list[tuple[int, Sample] | None] = field(default_factory=list)
    bytes: int = 0
    full: bool = False
    lost: Counter[str] = field(default_factory=Counter)

    def add(self, reads: Iterator[_Read]) -> None:
        """Adds the next sample, unless the block is full."""
        if self.full:
            return
        self.end, shard, sample, lost = next(reads)
        self.lost += lost
        if sample is not None:
            self.samples.append((shard, sample))
            self.bytes += sum(map(len, sample.files.values()))
        too_large = len(self.samples) >= BLOCK_CLIPS or self.bytes >= BLOCK_BYTES
        self.full = sample is None or too_large


def epoch_units(
    index: CorpusIndex, number: int, seed: int, epoch: int, num_workers: int, leftover: Leftover
) -> Units:
    """Lists the units of an epoch; worker w reads units w, w + num_workers, ...

    Args:
        index: The corpus.
        number: The corpus's number in the stream.
        seed: The stream's seed.
        epoch: The epoch.
        num_workers: Workers of all processes.
        leftover: Epochs begun by another number of workers.
    """
    if epoch in leftover:
        return leftover[epoch]
    # At least one unit per worker, also where a small corpus has fewer shards than workers.
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
    """Collects the rest of the epochs that workers have begun, to be partitioned anew.

    Clips of the current blocks count as unread. To lose them would bias the epoch; to repeat them
    costs at most one block per worker.

    Args:
        index: The corpus.
        number: The corpus's number in the stream.
        seed: The stream's seed.
        positions: Positions of all workers, in order.
        leftover: The leftover that those workers were given.
    """
    # Workers are in different epochs, since each reads at its own pace. The slowest decides.
    epochs = [position.epoch for position in positions]
    left = {}
    for epoch in range(min(epochs), max(epochs) + 1):
        units = epoch_units(index, number, seed, epoch, len(positions), leftover)
        found = []
        for worker, position in enumerate(positions):
            own = units[worker :: len(positions)].copy()
            if position.epoch == epoch:
                own = own[position.unit :]
                # The first unit was begun; it goes on at the block's first sample.
                own[:1, 3] = np.maximum(own[:1, 3], position.ordinal)
            if position.epoch <= epoch:
                found.append(own)
        left[epoch] = np.concatenate(found)
    return left


class EpochReader:
    """Yields a worker's samples of one corpus endlessly.

    Args:
        index: The corpus.
        number: The corpus's number in the stream.
        seed: The stream's seed.
        worker: (i, n) for worker i of the n workers of all processes.
        leftover: Epochs begun by another number of workers.
    """

    def __init__(
        self,
        index: CorpusIndex,
        number: int,
        seed: int,
        worker: tuple[int, int],
        leftover: Leftover,
    ) -> None:
        self.index, self.number, self.seed, self.leftover = index, number, seed, leftover
        self.worker, self.num_workers = worker
        self._lost_shards: set[int] = set()
        self._warned: set[int] = set()
        self._lost_in_a_row = self._unusable_in_a_row = 0

    def read(
        self, start: EpochPosition
    ) -> Iterator[tuple[int, Sample, EpochPosition, Counter[str]]]:
        """Yields (shard, sample, position after it, clips lost before it by reason).

        Raises:
            InputError: If many shards in a row gave no clip.
        """
        reads = self._read_in_order(start)
        block, delivered = _Block(start._replace(delivered=0)), start.delivered
        while not block.full:
            block.add(reads)
        # If clips of this block were given before the resume, its losses were counted then.
        lost = Counter() if delivered else block.lost
        while True:
            where = (self.number, self.worker, block.start.block)
            generator = generator_of(self.seed, Purpose.BLOCK, *where)
            order = generator.permutation(len(block.samples)).tolist()
            for place in order[:delivered]:
                block.samples[place] = None
            following = _Block(EpochPosition(*block.end, block.start.block + 1))
            for count, place in enumerate(order[delivered:], delivered + 1):
                # Each sample that goes out lets one in. So no step waits for a whole block to be
                # read, and memory holds two blocks at most.
                following.add(reads)
                entry, block.samples[place] = block.samples[place], None
                assert entry is not None
                yield *entry, block.start._replace(delivered=count), lost
                lost = Counter()
            while not following.full:
                following.add(reads)
            block, delivered = following, 0
            lost += block.lost

    def note(self, shard: int, *, usable: bool) -> None:
        """Notes whether the last sample could be used.

        Raises:
            InputError: If too many samples in a row could not be used.
        """
        self._unusable_in_a_row = 0 if usable else self._unusable_in_a_row + 1
        if self._unusable_in_a_row >= MAX_UNUSABLE_CLIPS:
            self._give_up(shard, f"{MAX_UNUSABLE_CLIPS} clips")

    def warn(self, shard: int, message: str) -> None:
        """Warns of a shard's first fault; a damaged corpus must not flood the log."""
        if shard not in self._warned:
            self._warned.add(shard)
            text = f"{self.index.url(shard)}: {message}; further skips there are only counted"
            warnings.warn(text, SkippedClipsWarning, stacklevel=2)

    def _read_in_order(self, start: EpochPosition) -> Iterator[_Read]:
        """Reads the worker's units from a position on."""
        epoch, first_unit, ordinal = start[:3]
        shard, lost = 0, Counter[str]()
        while True:
            every = epoch_units(
                self.index, self.number, self.seed, epoch, self.num_workers, self.leftover
            )
            # A view would keep the units of all workers in memory for the whole epoch.
            units = every[self.worker :: self.num_workers].copy()
            del every
            for unit in range(first_unit, len(units)):
                shard, share, shares, first = units[unit].tolist()
                clips = int(self.index.clips[shard])
                samples = read_samples(
                    self.index.url(shard),
                    clips,
                    first=max(first, ordinal),
                    share=(share, shares),
                    # A shard that failed in an earlier epoch costs no more waits.
                    patient=shard not in self._lost_shards,
                )
                try:
                    for sample in samples:
                        self._lost_in_a_row = 0
                        yield _Read((epoch, unit, sample.ordinal + 1), shard, sample, lost)
                        lost = Counter()
                except LostClipsError as error:
                    missing = sum(i % shares == share for i in range(error.first, clips))
                    lost[error.reason] += missing
                    self._lose(shard, f"{error.reason} ({error})")
                ordinal = 0
            epoch, first_unit, ordinal = epoch + 1, 0, 0
            yield _Read((epoch, 0, 0), shard, None, lost)
            lost = Counter()

    def _lose(self, shard: int, message: str) -> None:
        self._lost_shards.add(shard)
        self.warn(shard, message)
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= MAX_LOST_SHARDS:
            self._give_up(shard, f"{MAX_LOST_SHARDS} shards")

    def _give_up(self, shard: int, what: str) -> NoReturn:
        raise InputError(
            f"{what} of the corpus {self.index.name} in a row, the last in "
            f"{self.index.url(shard)}, could not be used; see the warnings for the reasons, "
            "and repair the corpus or leave it out"
        )

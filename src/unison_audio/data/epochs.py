"""One part's endless pass over one corpus: which shards, in which order, shuffled in blocks.

An epoch of a corpus is a permutation of its shards drawn from (seed, epoch) and dealt out to the
parts, a part being a worker of a rank. Where there are more parts than shards each shard is shared
by sample number. What a part reads is shuffled in blocks: a block is read in order, ends at its
size or with the epoch, and is handed out in an order of its own while the next one is read. So a
position is five numbers whatever the corpus' size, and whoever starts there reads one block again
and goes on exactly.
"""

import enum
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

import numpy as np

from unison_audio.data.records import CorpusIndex
from unison_audio.data.shards import LostClipsError, Sample, read_samples
from unison_audio.errors import InputError

BARREN_SHARDS, BARREN_CLIPS = 32, 10_000
"""So many shards in a row that give nothing, or clips in a row that cannot be used, end a run."""

Units = np.ndarray
"""(U, 4) int64, the pieces of an epoch: shard, share i of n, first sample."""

Rest = Mapping[int, Units]
"""Epochs that another number of parts has begun: what they left."""


class Purpose(enum.IntEnum):
    """What random numbers are drawn for; each has its own."""

    EPOCH = 0
    BLOCK = 1
    CORPUS = 2
    CROP = 3


def generator_of(seed: int, purpose: Purpose, *where: int) -> np.random.Generator:
    """Makes the generator of one place in a stream."""
    return np.random.default_rng((seed, purpose, *where))


class SkippedClipsWarning(UserWarning):
    """Clips that cannot be used; told once a shard."""


class PassPosition(NamedTuple):
    """Where a block begins and how much of it was handed out."""

    epoch: int = 0
    number: int = 0
    """Of the part's units in the epoch."""
    ordinal: int = 0
    """Of the next sample in that unit's shard."""
    block: int = 0
    """How many blocks came before."""
    delivered: int = 0
    """Clips of the block that were handed out."""


@dataclass(frozen=True, kw_only=True)
class PassConfig:
    """How a corpus is passed over."""

    seed: int
    """Of all orders."""
    part: int
    """Number of this part."""
    parts: int
    """How many there are."""
    block_clips: int
    """Most clips in a block."""
    block_bytes: int
    """A block is full when its clips have so many bytes."""


@dataclass(frozen=True)
class RawClip:
    """A sample with its address."""

    epoch: int
    shard: int
    sample: Sample


@dataclass
class _Block:
    """Samples read in order."""

    start: PassPosition
    clips: list[RawClip | None] = field(default_factory=list)
    bytes: int = 0
    full: bool = False
    skipped: Counter[str] = field(default_factory=Counter)
    order: np.ndarray | None = None


def epoch_units(
    index: CorpusIndex, number: int, seed: int, epoch: int, parts: int, rest: Rest
) -> Units:
    """Lists the units of an epoch; part p takes p, p + parts, ...

    Args:
        index: The corpus.
        number: Of the corpus in the stream.
        seed: Of the stream.
        epoch: Which.
        parts: How many share it.
        rest: Epochs begun by another number of parts.
    """
    if epoch in rest:
        return rest[epoch]
    shares = -(-parts // len(index.names))
    generator = generator_of(seed, Purpose.EPOCH, number, epoch)
    order = generator.permutation(len(index.names) * shares)
    share, zero = order % shares, np.zeros_like(order)
    return np.stack([order // shares, share, np.full_like(order, shares), zero], axis=1)


def rest_of(
    index: CorpusIndex, number: int, seed: int, positions: Sequence[PassPosition], rest: Rest
) -> Rest:
    """Collects what parts leave of the epochs they have begun, to be dealt out anew.

    Blocks in hand count as unread, so that nothing is lost: at most they are heard twice.

    Args:
        index: The corpus.
        number: Of the corpus in the stream.
        seed: Of the stream.
        positions: Of all parts, in order.
        rest: What those had been given.
    """
    epochs = [position.epoch for position in positions]
    left = {}
    for epoch in range(min(epochs), max(epochs) + 1):
        units = epoch_units(index, number, seed, epoch, len(positions), rest)
        found = []
        for part, position in enumerate(positions):
            own = units[part :: len(positions)].copy()
            if position.epoch == epoch:
                own = own[position.number :]
                own[:1, 3] = np.maximum(own[:1, 3], position.ordinal)
            if position.epoch <= epoch:
                found.append(own)
        left[epoch] = np.concatenate(found)
    return left


class CorpusPass:
    """Hands out a part's samples of one corpus for ever.

    Args:
        index: The corpus.
        number: Of the corpus in the stream.
        config: How to pass over it.
        position: Where to begin.
        rest: Epochs begun by another number of parts.
    """

    def __init__(
        self,
        index: CorpusIndex,
        number: int,
        config: PassConfig,
        position: PassPosition | None = None,
        rest: Rest | None = None,
    ) -> None:
        self.index, self.number, self.config = index, number, config
        self.rest = rest or {}
        position = position or PassPosition()
        self.epoch, self.unit, self.ordinal = position[:3]
        self.samples: Iterator[Sample] | None = None
        self.units: Units | None = None
        self.shard = 0
        self.lost: set[int] = set()
        self.told: set[int] = set()
        self.barren_shards = self.barren_clips = 0
        self.block = _Block(start=position._replace(delivered=0))
        self.delivered = position.delivered
        while not self.block.full:
            self._fill(self.block)
        self._shuffle(self.block)
        # Whoever goes on within a block has counted what was lost on the way.
        self.skipped = Counter() if self.delivered else self.block.skipped
        self.next = self._following()

    @property
    def position(self) -> PassPosition:
        """Where to begin to go on behind the last clip handed out."""
        return self.block.start._replace(delivered=self.delivered)

    def take(self) -> tuple[RawClip, Counter[str]]:
        """Hands out a clip, and how many were lost since the one before, by reason.

        Raises:
            InputError: If there was no clip that could be used in many shards.
        """
        while self.delivered >= len(self.block.clips):
            while not self.next.full:
                self._fill(self.next)
            self.block, self.delivered = self.next, 0
            self._shuffle(self.block)
            self.skipped += self.block.skipped
            self.next = self._following()
        if not self.next.full:
            self._fill(self.next)
        assert self.block.order is not None
        place = self.block.order[self.delivered]
        clip, self.block.clips[place] = self.block.clips[place], None
        assert clip is not None
        self.delivered += 1
        skipped, self.skipped = self.skipped, Counter()
        return clip, skipped

    def note(self, *, good: bool) -> None:
        """Notes whether the clip handed out could be used.

        Raises:
            InputError: If it is one bad clip too many.
        """
        self.barren_clips = 0 if good else self.barren_clips + 1
        if self.barren_clips >= BARREN_CLIPS:
            self._give_up(f"{BARREN_CLIPS} clips")

    def tell(self, shard: int, message: str) -> None:
        """Warns of a shard's first trouble."""
        if shard not in self.told:
            self.told.add(shard)
            text = f"{self.index.url(shard)}: {message}; further skips there are only counted"
            warnings.warn(text, SkippedClipsWarning, stacklevel=2)

    def _following(self) -> _Block:
        """An empty block at the reader's place."""
        return _Block(
            start=PassPosition(self.epoch, self.unit, self.ordinal, self.block.start.block + 1)
        )

    def _shuffle(self, block: _Block) -> None:
        config = self.config
        where = (self.number, config.part, block.start.block)
        generator = generator_of(config.seed, Purpose.BLOCK, *where)
        block.order = generator.permutation(len(block.clips))
        for place in block.order[: self.delivered]:
            block.clips[place] = None

    def _fill(self, block: _Block) -> None:
        """Reads one sample into a block, or finds that it is full."""
        config = self.config
        if len(block.clips) >= config.block_clips or block.bytes >= config.block_bytes:
            block.full = True
            return
        sample = self._read(block)
        if sample is None:
            block.full = True
            return
        block.clips.append(RawClip(self.epoch, self.shard, sample))
        block.bytes += sum(map(len, sample.files.values()))

    def _read(self, block: _Block) -> Sample | None:
        """Reads the next sample; None at the end of an epoch."""
        while True:
            if self.samples is None:
                self.samples = self._open()
                if self.samples is None:
                    self.epoch, self.unit, self.ordinal, self.units = self.epoch + 1, 0, 0, None
                    return None
            try:
                sample = next(self.samples, None)
            except LostClipsError as error:
                self._lose(error, block)
                sample = None
            if sample is not None:
                self.ordinal, self.barren_shards = sample.ordinal + 1, 0
                return sample
            self.unit, self.ordinal, self.samples = self.unit + 1, 0, None

    def _open(self) -> Iterator[Sample] | None:
        """Opens the part's next unit of the epoch, if there is one."""
        config = self.config
        if self.units is None:
            every = epoch_units(
                self.index, self.number, config.seed, self.epoch, config.parts, self.rest
            )
            self.units = every[config.part :: config.parts].copy()
        if self.unit >= len(self.units):
            return None
        self.shard, share, shares, first = self.units[self.unit].tolist()
        return read_samples(
            self.index.url(self.shard),
            int(self.index.clips[self.shard]),
            first=max(first, self.ordinal),
            share=(share, shares),
            patient=self.shard not in self.lost,
        )

    def _lose(self, error: LostClipsError, block: _Block) -> None:
        assert self.units is not None
        _, share, shares, _ = self.units[self.unit].tolist()
        missing = range(error.first, int(self.index.clips[self.shard]))
        block.skipped[error.reason] += sum(i % shares == share for i in missing)
        self.lost.add(self.shard)
        self.tell(self.shard, f"{error.reason} ({error})")
        self.barren_shards += 1
        if self.barren_shards >= BARREN_SHARDS:
            self._give_up(f"{BARREN_SHARDS} shards")

    def _give_up(self, what: str) -> NoReturn:
        raise InputError(
            f"{what} of the corpus {self.index.name} in a row, the last in "
            f"{self.index.url(self.shard)}, could not be used; see the warnings for the reasons, "
            "and mend the corpus or leave it out"
        )

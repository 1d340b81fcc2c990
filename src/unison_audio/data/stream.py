"""An endless, resumable stream of decoded clips from the shards of large corpora.

An epoch of a corpus is a permutation of its shards, partitioned among the workers of all processes;
if there are more workers than shards, several share one by sample number. Each worker draws the
corpus of each clip in proportion to the corpora's sizes, and shuffles each corpus in blocks: a
block is read in order and ends at its size or with the epoch. A full shuffle needs random access to
the shards, which object stores do not give, or a state as long as the corpus. With blocks a place
is five numbers for each corpus and worker, and a resume reads one block again.

With the same numbers of processes and workers, a resumed stream gives exactly the clips that it
would have given. With other numbers, the rest of the epoch is partitioned anew: every clip still
comes once an epoch, except that the clips of the current blocks come again.
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from unison_audio.data.records import BrokenClipError, Clip, ClipRecord, in_split
from unison_audio.data.shards import CorpusIndex, LostClipsError, Sample, find_corpora, read_samples
from unison_audio.errors import InputError

TOO_LONG = "longer than wanted"

PREFETCH = 8
"""Decoded clips that each worker process keeps ready."""

BLOCK_CLIPS, BLOCK_BYTES = 1000, 64 << 20
"""Most clips and encoded bytes of a block; they bound the memory per corpus and worker."""

MOST_IN_A_ROW = {"shards": 32, "clips": 10_000}
"""So many shards without a clip, or unusable clips, one after the other, end a run."""

EPOCH, BLOCK, CORPUS, CROP = range(4)
"""What random numbers are drawn for; each has a sequence of its own."""

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


class SkippedClipsWarning(UserWarning):
    """A shard with clips that cannot be used; one warning per shard."""


class Place(NamedTuple):
    """Where a block of a corpus begins, and how many of its clips were given."""

    epoch: int = 0
    unit: int = 0
    """Number of the unit among the worker's units of the epoch."""
    ordinal: int = 0
    """Number of the next sample in the unit's shard."""
    block: int = 0
    """Number of blocks before this one."""
    delivered: int = 0
    """Clips of the block that were given."""


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


@dataclass(kw_only=True)
class StreamedCorpus:
    """The epochs of one corpus of a stream."""

    index: CorpusIndex
    number: int
    seed: int
    leftover: dict[int, np.ndarray] = field(default_factory=dict)
    """Epoch -> the units that another number of workers left of it."""

    def units(self, epoch: int, num_workers: int) -> np.ndarray:
        """Lists the units of an epoch; worker w reads units w, w + num_workers, ...

        Returns:
            (units, 4) int64: shard, share i of n, first sample.
        """
        if epoch in self.leftover:
            return self.leftover[epoch]
        # At least one unit per worker, also where a small corpus has fewer shards than workers.
        shares = -(-num_workers // len(self.index.names))
        generator = generator_of(self.seed, EPOCH, self.number, epoch)
        order = generator.permutation(len(self.index.names) * shares)
        share, zero = order % shares, np.zeros_like(order)
        return np.stack([order // shares, share, np.full_like(order, shares), zero], axis=1)

    def left_by(self, places: Sequence[Place]) -> dict[int, np.ndarray]:
        """What workers at these places left, to be partitioned anew.

        Clips of the current blocks count as unread. To lose them would bias the epoch; to repeat
        them costs at most one block per worker.
        """
        # Workers are in different epochs, since each reads at its own pace. The slowest decides.
        epochs = [place.epoch for place in places]
        left = {}
        for epoch in range(min(epochs), max(epochs) + 1):
            units, found = self.units(epoch, len(places)), []
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


def generator_of(seed: int, purpose: int, *where: int) -> np.random.Generator:
    """Makes the generator of one place: it has no state that a checkpoint would have to store."""
    return np.random.default_rng((seed, purpose, *where))


class _Worker(IterableDataset[Decoded | InputError]):
    """The endless reading of one worker: its share of every corpus."""

    def __init__(
        self, config: StreamConfig, corpora: Sequence[StreamedCorpus], start: StreamPosition
    ) -> None:
        self.config, self.corpora, self.start = config, corpora, start
        self.num_workers = config.world * len(start[1])
        self.skipped: Counter[str] = Counter()
        self.warned: set[str] = set()
        self.in_a_row: Counter[tuple[str, int]] = Counter()

    def __iter__(self) -> Iterator[Decoded | InputError]:
        (turn, workers), info = self.start, get_worker_info()
        # A loader asks its workers in a fixed cycle from 0 on, so after a resume its worker 0 must
        # be the one whose turn it is.
        own = (turn + (0 if info is None else info.id)) % len(workers)
        self.worker = self.config.rank * len(workers) + own
        try:
            yield from self._decoded(workers[own])
        except InputError as error:
            # An exception would leave the worker process wrapped in a traceback.
            yield error

    def _decoded(self, start: WorkerState) -> Iterator[Decoded]:
        """Yields the clips of all corpora, each with the place after it."""
        draws, self.skipped = start["draws"], Counter(start["skipped"])
        places = [Place(*place) for place in start["passes"]]
        samples = [self._shuffled(*pair) for pair in zip(self.corpora, places, strict=True)]
        sizes = np.array([float(corpus.index.clips.sum()) for corpus in self.corpora])
        choices = np.empty(0, np.int64)
        while True:
            if draws % _CHOICES == 0 or not len(choices):
                generator = generator_of(self.config.seed, CORPUS, self.worker, draws // _CHOICES)
                choices = generator.choice(len(sizes), _CHOICES, p=sizes / sizes.sum())
            number = int(choices[draws % _CHOICES])
            draws += 1
            shard, sample, places[number] = next(samples[number])
            found, fault = None, ""
            try:
                found = self._decode(sample, number, places[number].epoch, shard)
            except BrokenClipError as error:
                self.skipped[error.reason] += 1
                if error.reason != TOO_LONG:
                    fault = f"clip {sample.ordinal}: {error.reason} ({error})"
            if found is None:
                self._count("clips", self.corpora[number], shard, fault)
                continue
            self.in_a_row["clips", number] = 0
            # Copied with each clip, since it crosses a process boundary.
            passes = [list(place) for place in places]
            yield *found, {"draws": draws, "passes": passes, "skipped": dict(self.skipped)}

    def _decode(self, sample: Sample, *where: int) -> tuple[ClipRecord, np.ndarray] | None:
        """Decodes a sample; None if the stream leaves out its kind or split."""
        config, record = self.config, sample.record()
        if config.kind not in (None, record.kind) or not in_split(record.split, config.split):
            return None
        too_long = record.seconds > config.max_seconds
        # A sound may be cropped anywhere. Cropped speech would no longer match its text.
        if too_long and record.kind != "sound":
            raise BrokenClipError(TOO_LONG, f"{record.seconds} s")
        waveform = sample.decode(
            config.sample_rate,
            crop_seconds=config.max_seconds if too_long else None,
            # Seeded by the clip and the epoch, so that a crop is the same whoever decodes it.
            draw=lambda: generator_of(config.seed, CROP, *where, sample.ordinal).random(),
        )
        return record, waveform.numpy()

    def _shuffled(
        self, corpus: StreamedCorpus, start: Place
    ) -> Iterator[tuple[int, Sample, Place]]:
        """Yields the shard, a sample, and the place after it, shuffled in blocks."""
        lost: Counter[str] = Counter()
        reads = self._in_order(corpus, start, lost)
        begin, given = start._replace(delivered=0), start.delivered
        while True:
            block: list[tuple[int, Sample]] = []
            size = 0
            while len(block) < BLOCK_CLIPS and size < BLOCK_BYTES:
                end, shard, sample = next(reads)
                if sample is None:
                    break
                block.append((shard, sample))
                size += sum(map(len, sample.files.values()))
            if not given:  # else they were counted before the resume
                self.skipped.update(lost)
            lost.clear()
            generator = generator_of(corpus.seed, BLOCK, corpus.number, self.worker, begin.block)
            for count, chosen in enumerate(generator.permutation(len(block)).tolist(), 1):
                if count > given:
                    yield *block[chosen], begin._replace(delivered=count)
            begin, given = end._replace(block=begin.block + 1), 0

    def _in_order(
        self, corpus: StreamedCorpus, start: Place, lost: Counter[str]
    ) -> Iterator[tuple[Place, int, Sample | None]]:
        """Yields where the next sample is, the shard, and a sample; None at an epoch's end."""
        epoch, first_unit, ordinal = start[:3]
        failed: set[int] = set()
        while True:
            # A view would keep the units of all workers in memory for the whole epoch.
            units = corpus.units(epoch, self.num_workers)[self.worker :: self.num_workers].copy()
            for unit in range(first_unit, len(units)):
                shard, share, shares, first = units[unit].tolist()
                clips = int(corpus.index.clips[shard])
                try:
                    for sample in read_samples(
                        corpus.index.url(shard),
                        clips,
                        first=max(first, ordinal),
                        share=(share, shares),
                        # A shard that failed in an earlier epoch costs no more waits.
                        patient=shard not in failed,
                    ):
                        self.in_a_row["shards", corpus.number] = 0
                        yield Place(epoch, unit, sample.ordinal + 1), shard, sample
                except LostClipsError as error:
                    missing = range(error.first, clips)
                    lost[error.reason] += sum(i % shares == share for i in missing)
                    failed.add(shard)
                    self._count("shards", corpus, shard, f"{error.reason} ({error})")
                ordinal = 0
            epoch, first_unit = epoch + 1, 0
            yield Place(epoch), 0, None

    def _count(self, what: str, corpus: StreamedCorpus, shard: int, fault: str) -> None:
        """Counts a shard or a clip that was of no use, and ends the run after many in a row."""
        url, most = corpus.index.url(shard), MOST_IN_A_ROW[what]
        # One warning a shard: a damaged corpus must not flood the log.
        if fault and url not in self.warned:
            self.warned.add(url)
            text = f"{url}: {fault}; further skips there are only counted"
            warnings.warn(text, SkippedClipsWarning, stacklevel=2)
        self.in_a_row[what, corpus.number] += 1
        if self.in_a_row[what, corpus.number] >= most:
            raise InputError(
                f"{most} {what} of the corpus {corpus.index.name} in a row, the last in {url}, "
                "could not be used; see the warnings for the reasons, and repair the corpus or "
                "leave it out"
            )


class ClipStream(Iterator[Clip]):
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
        self.config = config
        found = find_corpora(corpora, kind=config.kind, split=config.split)
        self.corpora = [
            StreamedCorpus(index=index, number=number, seed=config.seed)
            for number, index in enumerate(found)
        ]
        self.clips = int(sum(index.clips.sum() for index in found))
        self.exact = True
        """Whether the stream continues exactly where its state was saved."""
        self.position = self._start([0] * len(found), {})
        """The place before the next clip."""
        self._source: Iterator[Decoded | InputError] | None = None

    def _start(self, epochs: Sequence[int], skipped: Mapping[str, int]) -> StreamPosition:
        """The place where all workers begin the same epochs; one of them has the counts."""
        passes = [list(Place(epoch)) for epoch in epochs]
        start: WorkerState = {"draws": 0, "passes": passes, "skipped": {}}
        # Without worker processes, this process is its own worker.
        others = (start,) * (self.config.workers - 1)
        return 0, (start | {"skipped": dict(skipped)}, *others)

    def __next__(self) -> Clip:
        """Gives the next clip."""
        if self._source is None:
            loader = DataLoader(
                _Worker(self.config, self.corpora, self.position),
                batch_size=None,
                num_workers=self.config.workers,
                prefetch_factor=PREFETCH if self.config.workers else None,
                collate_fn=_unchanged,
                generator=torch.Generator(),  # DataLoader would draw from the global one
            )
            self._source = iter(loader)
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

    def close(self) -> None:
        """Ends the worker processes; the next clip starts new ones."""
        self._source = None

    @property
    def skipped(self) -> Counter[str]:
        """Clips that this process could not use, by reason."""
        return _total(self.position[1])

    def state_dict(self, position: StreamPosition | None = None) -> dict[str, Any]:
        """The stream's place, or an earlier one, in plain values for a checkpoint."""
        turn, workers = position or self.position
        # The keys are those of existing checkpoints.
        return {
            **self._identity(),
            "rank": self.config.rank,
            "world": self.config.world,
            "turn": turn,
            "parts": list(workers),
            "rests": [
                {epoch: units.tolist() for epoch, units in corpus.leftover.items()}
                for corpus in self.corpora
            ],
        }

    def _identity(self) -> dict[str, Any]:
        """What must be the same where a state is resumed."""
        corpora = [[corpus.index.name, len(corpus.index.names)] for corpus in self.corpora]
        return {"corpora": corpora, "seed": self.config.seed}

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Resumes from the `state_dict` of this process.

        Where the number of processes or workers has changed, `states` are those of all processes,
        and what they left of the epochs that they had begun is partitioned anew.

        Raises:
            InputError: If the states are of other corpora or of another seed, or one is missing.
        """
        self.close()
        for state in states:
            for name, now in self._identity().items():
                if state[name] != now:
                    raise InputError(
                        f"The stream's state is of {name} {state[name]} and not {now}; give the "
                        "same, or start without the state"
                    )
        states = sorted(states, key=lambda state: state["rank"])
        world, size = states[0]["world"], len(states[0]["parts"])
        for corpus, rest in zip(self.corpora, states[0]["rests"], strict=True):
            corpus.leftover = {
                int(epoch): np.array(units, np.int64).reshape(-1, 4)
                for epoch, units in rest.items()
            }
        own = [state for state in states if state["rank"] == self.config.rank]
        same = (world, size) == (self.config.world, len(self.position[1]))
        self.exact = same and bool(own)
        if self.exact:
            self.position = (own[0]["turn"], tuple(own[0]["parts"]))
            return
        ranks = [state["rank"] for state in states]
        if ranks != list(range(world)):
            raise InputError(
                f"The stream's state is of {ranks} out of {world} ranks; give the states of all, "
                f"since there are {self.config.world} now"
            )
        workers = [worker for state in states for worker in state["parts"]]
        for number, corpus in enumerate(self.corpora):
            corpus.leftover = corpus.left_by([Place(*one["passes"][number]) for one in workers])
        # Draws start at 0 again: the sequence of corpora belongs to a worker's number.
        # One process inherits all counts, so that their total over the processes stays right.
        epochs = [min(corpus.leftover) for corpus in self.corpora]
        self.position = self._start(epochs, _total(workers) if self.config.rank == 0 else {})


def _total(workers: Sequence[WorkerState]) -> Counter[str]:
    return sum((Counter(worker["skipped"]) for worker in workers), Counter())


def _unchanged(item: Any) -> Any:
    return item

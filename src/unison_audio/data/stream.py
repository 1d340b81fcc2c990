"""An endless stream of decoded clips from the shards of large corpora, which can be taken up again.

Every part, a worker of a rank, passes over its own share of each corpus (`data.corpus_pass`) and
draws the corpus of each clip by weight. What is remembered is a few numbers a part; memory holds
two blocks of encoded clips a corpus and part, whatever the corpora's size.

Guarantees. With as many ranks and workers as before, a stream that goes on from a state gives
exactly the clips that it would have given. With another number the shards that an epoch still has
are dealt out anew: every clip is still given once an epoch, but for those in the blocks in hand,
which are given again.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from unison_audio.data.decode import BrokenClipError, decode
from unison_audio.data.epochs import (
    CorpusPass,
    PassConfig,
    PassPosition,
    Purpose,
    RawClip,
    Rest,
    generator_of,
    rest_of,
)
from unison_audio.data.records import Clip, ClipRecord, CorpusIndex, in_split, read_index
from unison_audio.errors import InputError

BROKEN_RECORD = "broken record"

TOO_LONG = "longer than wanted"

MAX_RECORD_BYTES = 1 << 20

_CHOICES = 1024

_TYPES = {field.name: (str,) for field in dataclasses.fields(ClipRecord)} | {
    "seconds": (float, int),
    "sample_rate": (int,),
    "channels": (int,),
}


class Position(NamedTuple):
    """Where a part is."""

    draws: int
    """Clips drawn, good or bad."""
    passes: tuple[PassPosition, ...]
    """Its place in each corpus."""
    skipped: dict[str, int]
    """Clips that it could not use, by reason."""

    def plain(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "draws": self.draws,
            "passes": [list(place) for place in self.passes],
            "skipped": dict(self.skipped),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Position":
        """Reads what `plain` gave."""
        passes = tuple(PassPosition(*place) for place in plain["passes"])
        return cls(plain["draws"], passes, dict(plain["skipped"]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What all parts of a stream have in common; see `streaming.ClipStream`."""

    indexes: tuple[CorpusIndex, ...]
    """The corpora."""
    weights: tuple[float, ...]
    """How often each is drawn; they sum to 1."""
    sample_rate: int
    """Of the waveforms, in Hz."""
    kind: str | None
    """Wanted kind."""
    split: str | None
    """Wanted split."""
    max_seconds: float | None
    """Longest clip."""
    crop: bool
    """Whether a longer one is cropped or left out."""
    seed: int
    """Of all that is drawn."""
    block_clips: int
    """Most clips in a block."""
    block_bytes: int
    """A block is full with so many bytes."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A clip as it comes from a worker: as an array, since tensors would need shared memory."""

    record: ClipRecord
    """Its record."""
    waveform: np.ndarray
    """(samples,) float32, mono."""


@dataclasses.dataclass(frozen=True)
class Delivery:
    """A clip, or the message that ends the stream, and the part's place behind it."""

    clip: Decoded | str
    """Either."""
    position: Position
    """Where to go on."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a stream, not yet begun."""

    plan: Plan
    part: int
    """Its number."""
    parts: int
    """How many there are."""
    position: Position
    """Where it begins."""
    rests: tuple[Rest, ...]
    """Per corpus, what another number of parts left of the epochs it had begun."""

    def __iter__(self) -> Iterator[Delivery]:
        """Reads the part for ever."""
        try:
            yield from self._read()
        except InputError as error:  # so that it comes out of a worker as it is
            yield Delivery(str(error), self.position)

    def _read(self) -> Iterator[Delivery]:
        plan, draws = self.plan, self.position.draws
        config = PassConfig(
            seed=plan.seed,
            part=self.part,
            parts=self.parts,
            block_clips=plan.block_clips,
            block_bytes=plan.block_bytes,
        )
        passes: list[CorpusPass | None] = [None] * len(plan.indexes)
        places = list(self.position.passes)
        skipped = Counter(self.position.skipped)
        choices = np.empty(0, np.int64)
        while True:
            if draws % _CHOICES == 0 or not len(choices):
                where = (self.part, draws // _CHOICES)
                generator = generator_of(plan.seed, Purpose.CORPUS, *where)
                choices = generator.choice(len(passes), _CHOICES, p=plan.weights)
            number = int(choices[draws % _CHOICES])
            draws += 1
            one = passes[number]
            if one is None:
                one = passes[number] = CorpusPass(
                    plan.indexes[number], number, config, places[number], self.rests[number]
                )
            raw, lost = one.take()
            skipped += lost
            places[number] = one.position
            clip = None
            try:
                clip = _use(plan, number, raw)
            except BrokenClipError as error:
                skipped[error.reason] += 1
                if error.reason != TOO_LONG:
                    one.tell(raw.shard, f"clip {raw.sample.ordinal}: {error.reason} ({error})")
            one.note(good=clip is not None)
            if clip is not None:
                yield Delivery(clip, Position(draws, tuple(places), dict(skipped)))


def _use(plan: Plan, number: int, raw: RawClip) -> Decoded | None:
    """Decodes a sample; None if it is not of the wanted kind or split."""
    files = raw.sample.files
    record = read_record(files.get("json", b""))
    if plan.kind not in (None, record.kind) or not in_split(record.split, plan.split):
        return None
    crop = None
    if plan.max_seconds is not None and record.seconds > plan.max_seconds:
        if not plan.crop:
            raise BrokenClipError(TOO_LONG, f"{record.seconds} s")
        crop = plan.max_seconds
    suffix = next((name for name in files if name != "json"), None)
    if suffix is None:
        raise BrokenClipError(BROKEN_RECORD, "it has no sound")
    where = (number, raw.epoch, raw.shard, raw.sample.ordinal)
    waveform = decode(
        files[suffix],
        suffix,
        plan.sample_rate,
        crop_seconds=crop,
        draw=lambda: generator_of(plan.seed, Purpose.CROP, *where).random(),
    )
    return Decoded(record, waveform.numpy())


def read_record(content: bytes) -> ClipRecord:
    """Reads the record of a clip; what is not a field of one is passed over.

    Raises:
        BrokenClipError: If it is none, or says nothing of what is heard in a sound.
    """
    if len(content) > MAX_RECORD_BYTES:
        raise BrokenClipError(BROKEN_RECORD, f"it has {len(content)} bytes")
    try:
        fields = json.loads(content)
        record = ClipRecord(**{name: fields[name] for name in _TYPES if name in fields})
    except (ValueError, TypeError, RecursionError) as error:
        raise BrokenClipError(BROKEN_RECORD, str(error)) from error
    for name, types in _TYPES.items():
        if not isinstance(getattr(record, name), types):
            raise BrokenClipError(BROKEN_RECORD, f"{name} is {getattr(record, name)!r:.80}")
    if record.kind == "sound" and not (record.label or record.caption):
        raise BrokenClipError(BROKEN_RECORD, "it has neither label nor caption")
    return record


PREFETCH = 8
"""Clips that each worker process has ready."""


class Mark(NamedTuple):
    """A place in a stream."""

    turn: int
    """Which worker gives the next clip."""
    positions: tuple[Position, ...]
    """Of this rank's parts."""


class ClipStream:
    """Gives decoded, resampled clips for ever; ``next`` gives the next one.

    Args:
        corpora: Folders or URLs of corpora with an ``index.json`` (see `corpus_index.open_url`);
            those without clips of the kind are left out.
        sample_rate: Of the waveforms, in Hz.
        kind: Only ``speech`` or only ``sound``; both if None.
        split: Only clips of this split, as `in_split` takes it; all if None.
        max_seconds: Longest clip; None for any.
        crop: Whether longer clips give a stretch of that length, drawn at random, of which alone
            is decoded; otherwise they are left out, and counted.
        weights: How often each corpus is drawn, relatively; by their numbers of clips if None.
        rank: Number of this process.
        world: Processes in all.
        workers: Processes that decode ahead for this one; 0 decodes in between. In a worker process
            of a ``DataLoader`` it must be 0; each worker then reads a part of its own.
        seed: Of all that is drawn.
        block_clips: How many clips of a corpus are shuffled together.
        block_bytes: Or fewer, of so many encoded bytes. Memory holds up to two blocks a corpus
            and part.

    Raises:
        InputError: If an index cannot be read, or nothing of the kind is in any. While reading, if
            a corpus gives nothing but what cannot be used.
    """

    def __init__(
        self,
        corpora: Sequence[str | Path],
        *,
        sample_rate: int,
        kind: str | None = None,
        split: str | None = "train",
        max_seconds: float | None = None,
        crop: bool = False,
        weights: Sequence[float] | None = None,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        seed: int = 0,
        block_clips: int = 1000,
        block_bytes: int = 64 << 20,
    ) -> None:
        found = [read_index(corpus, kind=kind, split=split) for corpus in corpora]
        shares = [float(i.clips.sum()) for i in found] if weights is None else list(weights)
        if len(shares) != len(found) or any(not share >= 0 for share in shares):
            raise InputError(
                f"The weights are {shares} for {len(found)} corpora; give one of at least 0 each"
            )
        kept = [i for i, index in enumerate(found) if index.clips.sum() and shares[i]]
        if not kept:
            raise InputError(
                f"There is no {kind or 'clip'} of the split {split!r} in "
                f"{', '.join(map(str, corpora)) or 'no corpus'}; add a corpus that has some"
            )
        total = sum(shares[i] for i in kept)
        self.plan = Plan(
            indexes=tuple(found[i] for i in kept),
            weights=tuple(shares[i] / total for i in kept),
            sample_rate=sample_rate,
            kind=kind,
            split=split,
            max_seconds=max_seconds,
            crop=crop,
            seed=seed,
            block_clips=block_clips,
            block_bytes=block_bytes,
        )
        self.sample_rate, self.workers = sample_rate, workers
        self._given = self.rank, self.world = rank, world
        self.clips = int(sum(index.clips.sum() for index in self.plan.indexes))
        self._exact = True
        self._states: list[Mapping[str, Any]] = []
        self._mark: Mark | None = None
        self._where: int | None = None
        self._rests: tuple[Rest, ...] = ()
        self._source: Iterator[Delivery] | None = None

    def __iter__(self) -> Iterator[Clip]:
        """Itself."""
        return self

    def __next__(self) -> Clip:
        """Gives the next clip."""
        mark = self.mark()
        if self._source is None:
            self._source = self._open(mark)
        delivery = next(self._source)
        if isinstance(delivery.clip, str):
            self.close()
            raise InputError(delivery.clip)
        positions = list(mark.positions)
        positions[mark.turn] = delivery.position
        self._mark = Mark((mark.turn + 1) % len(positions), tuple(positions))
        return Clip(record=delivery.clip.record, waveform=torch.from_numpy(delivery.clip.waveform))

    @property
    def exact(self) -> bool:
        """Whether the stream goes on exactly where its state was saved."""
        self.mark()
        return self._exact

    @property
    def skipped(self) -> Counter[str]:
        """How many clips this rank could not use, by reason."""
        total: Counter[str] = Counter()
        for position in self.mark().positions:
            total.update(position.skipped)
        return total

    def mark(self) -> Mark:
        """The place before the next clip."""
        outer = get_worker_info()
        where = None if outer is None else outer.id
        if self._mark is None or where != self._where:
            # Not begun, or begun before this worker process was forked.
            self._source, self._where = None, where
            self._mark = self._begin()
        return self._mark

    def state_dict(self, mark: Mark | None = None) -> dict[str, Any]:
        """The stream's place, or an earlier one, in plain values for a checkpoint."""
        mark = mark or self.mark()
        return {
            "corpora": [[index.name, len(index.names)] for index in self.plan.indexes],
            "seed": self.plan.seed,
            "rank": self.rank,
            "world": self.world,
            "turn": mark.turn,
            "parts": [position.plain() for position in mark.positions],
            "rests": [
                {epoch: units.tolist() for epoch, units in rest.items()} for rest in self._rests
            ],
        }

    def load_state_dict(self, states: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Goes on from a state.

        Args:
            states: What `state_dict` gave, of this rank; or a list of every rank's, which is
                needed where the number of ranks or workers is another one now.

        Raises:
            InputError: If the states are of other corpora or of another seed, or one is missing.
        """
        self.close()
        self._states = [states] if isinstance(states, Mapping) else list(states)
        self._mark = None
        for state in self._states:
            for name, now in (
                ("corpora", [[index.name, len(index.names)] for index in self.plan.indexes]),
                ("seed", self.plan.seed),
            ):
                if state[name] != now:
                    raise InputError(
                        f"The stream's state is of {name} {state[name]} and not {now}; give the "
                        "same, or start without the state"
                    )

    def close(self) -> None:
        """Ends the worker processes; the next clip starts others."""
        self._source = None

    def _begin(self) -> Mark:
        """Finds out which parts are this process', and where each begins."""
        outer = get_worker_info()
        if outer is not None:
            self.rank = self._given[0] * outer.num_workers + outer.id
            self.world = self._given[1] * outer.num_workers
        corpora, size = len(self.plan.indexes), max(1, self.workers)
        fresh = Position(0, (PassPosition(),) * corpora, {})
        self._rests, self._exact = ({},) * corpora, True
        if not self._states:
            return Mark(0, (fresh,) * size)
        first = self._states[0]
        rests = tuple(
            {int(epoch): np.array(units, np.int64).reshape(-1, 4) for epoch, units in rest.items()}
            for rest in first["rests"]
        )
        same = (first["world"], len(first["parts"])) == (self.world, size)
        own = [state for state in self._states if state["rank"] == self.rank]
        if same and own:
            self._rests = rests
            return Mark(own[0]["turn"], tuple(map(Position.of, own[0]["parts"])))
        every = sorted(self._states, key=lambda state: state["rank"])
        if [state["rank"] for state in every] != list(range(first["world"])):
            raise InputError(
                f"The stream's state is of {[state['rank'] for state in every]} out of "
                f"{first['world']} ranks; give the states of all, since there are {self.world} now"
            )
        positions = [Position.of(part) for state in every for part in state["parts"]]
        self._rests, self._exact = (
            tuple(
                rest_of(index, i, self.plan.seed, [p.passes[i] for p in positions], rests[i])
                for i, index in enumerate(self.plan.indexes)
            ),
            False,
        )
        begin = tuple(PassPosition(epoch=min(rest)) for rest in self._rests)
        skipped: Counter[str] = Counter()
        for position in positions:
            skipped.update(position.skipped)
        heir = Position(0, begin, dict(skipped) if self.rank == 0 else {})
        return Mark(0, (heir, *(Position(0, begin, {}),) * (size - 1)))

    def _open(self, mark: Mark) -> Iterator[Delivery]:
        size = len(mark.positions)
        order = [(mark.turn + i) % size for i in range(size)]
        parts = [
            Part(
                self.plan,
                self.rank * size + i,
                self.world * size,
                mark.positions[i],
                self._rests,
            )
            for i in order
        ]
        if not self.workers:
            return iter(parts[0])
        return iter(
            DataLoader(
                _Parts(parts),
                batch_size=None,
                num_workers=self.workers,
                prefetch_factor=PREFETCH,
                collate_fn=_as_it_is,
                generator=torch.Generator(),  # leaves the global one alone
            )
        )


class _Parts(IterableDataset[Delivery]):
    """One part for each worker of a loader."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[Delivery]:
        """Yields the clips of this worker's part."""
        info = get_worker_info()
        assert info is not None
        return iter(self.parts[info.id])


def _as_it_is(item: Any) -> Any:
    return item

"""An endless stream of decoded clips from the shards of large corpora, which can be taken up again.

Every part, a worker of a rank, passes over its own share of each corpus (`data.corpus_pass`) and
draws the corpus of each clip by weight. What is remembered is a few numbers a part; memory holds
two blocks of encoded clips a corpus and part, whatever the corpora's size.

Guarantees. With as many ranks and workers as before, a stream that goes on from a state gives
exactly the clips that it would have given. With another number the shards that an epoch still has
are dealt out anew: every clip is still given once an epoch, but for those in the blocks in hand,
which are given again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from unison_audio.data.corpus_index import read_index
from unison_audio.data.corpus_pass import PassPosition, Rest, rest_of
from unison_audio.data.shards import Clip
from unison_audio.data.stream_parts import Delivery, Part, Plan, Position
from unison_audio.errors import InputError

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

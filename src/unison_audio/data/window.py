"""The latest clips of a stream, kept decoded within a limit, from which batches are drawn.

Each clip is drawn once. For every clip drawn the stream moves on by one, and the oldest clips go
while there are too many. Since the window is a stretch of the stream, its state is the position
where it begins and one number a clip; loading the state reads that stretch again. Saving the
waveforms instead would add hundreds of megabytes to every checkpoint.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unison_audio.data.records import Clip
from unison_audio.data.stream import ClipStream, StreamPosition
from unison_audio.errors import InputError

FREE, DRAWN, GONE = range(3)

STEP = 4
"""Clips read at once while no clip in the window can be used."""

MAX_FAILED = 5000
"""So many clips in a row of which none can be used end a search."""


@dataclass
class WindowEntry:
    """A place in the window."""

    clip: Clip
    """Its clip; without samples once it is gone."""
    position: StreamPosition
    """The stream's position before it."""
    state: int = FREE
    """Free, drawn, or gone: the same clip came again since."""


class Window:
    """The latest clips of a stream.

    A corpus that fits into the window as a whole is kept once: a clip that comes again replaces
    itself and may be drawn again.

    Args:
        stream: Where the clips come from.
        held_seconds: Sound kept at most.
    """

    def __init__(self, stream: ClipStream, held_seconds: float) -> None:
        self.stream, self.held_seconds = stream, held_seconds
        self.seconds = 0.0
        """Sound kept."""
        self._entries: deque[WindowEntry] = deque()
        self._by_key: dict[tuple[str, str], WindowEntry] = {}
        self._states: list[Mapping[str, Any]] = []
        self._filled = False

    def __iter__(self) -> Iterator[WindowEntry]:
        """Yields what is in the window, the oldest first."""
        if not self._filled:
            self._fill()
        return (entry for entry in self._entries if entry.state != GONE)

    def advance(self, count: int) -> None:
        """Reads so many clips more."""
        for _ in range(count):
            self._read()
            self._shrink()

    def rounds(
        self,
        count: int,
        candidates: Callable[[], Sequence[WindowEntry]],
        generator: torch.Generator,
        missing: str,
    ) -> Iterator[list[WindowEntry]]:
        """Draws clips, each with equal chance, as many at a time as there are candidates.

        The stream moves on between the rounds: use what one gives before asking for the next.

        Args:
            count: How many.
            candidates: Lists those that can be drawn now.
            generator: Draws.
            missing: Begins the message if there is none.

        Raises:
            InputError: If no clip could be used among very many.
        """
        failed = 0
        while count:
            found = candidates()
            order = torch.randperm(len(found), generator=generator)[:count].tolist()
            drawn = [found[index] for index in order]
            for entry in drawn:
                entry.state = DRAWN
            if drawn:
                yield drawn
            count -= len(drawn)
            failed = 0 if drawn else failed + STEP
            self.check_search(failed, missing)
            self.advance(len(drawn) or STEP)

    def check_search(self, failed: int, missing: str) -> None:
        """Ends a search that has read so many clips of which none could be used.

        Raises:
            InputError: If they are too many, or the whole of a small corpus several times.
        """
        # Four times the whole of a small corpus: each clip has had its chance, and a corpus without
        # usable clips ends the run instead of reading for ever.
        most = max(64, min(MAX_FAILED, 4 * self.stream.clips))
        if failed > most:
            raise InputError(
                f"{missing} among {most} clips that were read; give corpora that have some"
            )

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        if not self._filled and self._states:
            self._fill()
        first = self._entries[0].position if self._entries else None
        return {
            "stream": self.stream.state_dict(first),
            "held": [entry.state for entry in self._entries],
        }

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Resumes from the state of this rank, or of all, as `ClipStream.load_state_dict`."""
        self._states = list(states)
        self.stream.load_state_dict([state["stream"] for state in states])
        self._entries.clear()
        self._by_key.clear()
        self.seconds, self._filled = 0.0, False

    def _fill(self) -> None:
        """Reads the window again after a state was loaded, or for the first time."""
        self._filled = True
        exact = self.stream.exact
        ranks = [state["stream"]["rank"] for state in self._states]
        # With other numbers of ranks or workers the stream gives other clips, so the marks of the
        # old window would fall on the wrong ones.
        if exact and self.stream.rank in ranks:
            for state in self._states[ranks.index(self.stream.rank)]["held"]:
                self._read(state)
        if not self._entries:
            for _ in range(-(-self.stream.clips // self.stream.world)):  # an epoch, about
                if self.seconds >= self.held_seconds:
                    break
                self._read()
            self._shrink()

    def _read(self, state: int = FREE) -> None:
        position, clip = self.stream.position(), next(self.stream)
        entry = WindowEntry(clip, position, state)
        self._entries.append(entry)
        if state == GONE:
            self._empty(entry)
            return
        earlier = self._by_key.pop(_key(clip), None)
        if earlier is not None:
            self.seconds -= self._seconds(earlier.clip)
            self._empty(earlier)
        self._by_key[_key(clip)] = entry
        self.seconds += self._seconds(clip)
        self._drop_gone()

    def _empty(self, entry: WindowEntry) -> None:
        """Lets the samples go; the place stays, since the state counts places in the stream."""
        entry.state = GONE
        entry.clip = Clip(record=entry.clip.record, waveform=torch.empty(0))

    def _shrink(self) -> None:
        """Drops the oldest clips while there are too many."""
        while self.seconds > self.held_seconds and len(self._by_key) > 1:
            oldest = self._entries.popleft()
            del self._by_key[_key(oldest.clip)]
            self.seconds -= self._seconds(oldest.clip)
            self._drop_gone()

    def _drop_gone(self) -> None:
        while self._entries[0].state == GONE:
            self._entries.popleft()

    def _seconds(self, clip: Clip) -> float:
        return len(clip.waveform) / self.stream.sample_rate


def _key(clip: Clip) -> tuple[str, str]:
    return clip.record.source, clip.record.key

"""The latest clips of a stream, held decoded within a limit, from which batches are drawn.

Each clip is drawn once; for every clip drawn the stream moves on by one, and what is too old or too
much goes. Since the window is a stretch of the stream, its state is the place where it begins and
a mark a clip: it is read again when the state is loaded.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unison_audio.data.records import Clip
from unison_audio.data.stream import ClipStream, Mark
from unison_audio.errors import InputError

FREE, DRAWN, GONE = range(3)

STEP = 4
"""Clips read at once while nothing in the window will do."""

MOST_IN_VAIN = 5000
"""So many clips in a row of which none will do are the end."""


@dataclass
class Held:
    """A clip in the window."""

    clip: Clip
    """The clip."""
    mark: Mark
    """The stream's place before it."""
    state: int = FREE
    """Whether it was drawn, or came again since and is not held here any more."""


class Window:
    """The latest clips of a stream.

    A corpus that fits into the window as a whole is held once: a clip that comes again replaces
    itself and may be drawn again.

    Args:
        stream: Where the clips come from.
        held_seconds: Sound held at most.
    """

    def __init__(self, stream: ClipStream, held_seconds: float) -> None:
        self.stream, self.held_seconds = stream, held_seconds
        self.seconds = 0.0
        """Sound held."""
        self._all: deque[Held] = deque()
        self._by_key: dict[tuple[str, str], Held] = {}
        self._states: list[Mapping[str, Any]] = []
        self._filled = False

    def __iter__(self) -> Iterator[Held]:
        """Yields what is held, the oldest first."""
        if not self._filled:
            self._fill()
        return (held for held in self._all if held.state != GONE)

    def free(self, fits: Callable[[Clip], bool]) -> list[Held]:
        """Lists the clips that were not drawn yet and will do."""
        return [held for held in self if held.state == FREE and fits(held.clip)]

    def advance(self, count: int) -> None:
        """Reads on by some clips."""
        for _ in range(count):
            self._read()
            self._shrink()

    def draw(
        self,
        count: int,
        fits: Callable[[Clip], bool],
        generator: torch.Generator,
        missing: str,
    ) -> list[Clip]:
        """Draws clips, each with equal chance among those that were not drawn yet.

        Args:
            count: How many.
            fits: Whether a clip will do.
            generator: Draws.
            missing: Begins the message where there is none.

        Raises:
            InputError: If very many clips go by of which none will do.
        """
        rounds = self.rounds(count, lambda: self.free(fits), generator, missing)
        return [held.clip for drawn in rounds for held in drawn]

    def rounds(
        self,
        count: int,
        candidates: Callable[[], Sequence[Held]],
        generator: torch.Generator,
        missing: str,
    ) -> Iterator[list[Held]]:
        """Draws as `draw` does, as many at a time as there are candidates.

        The stream moves on between the rounds, so what one gives is to be used before the next.
        """
        in_vain = 0
        while count:
            found = candidates()
            order = torch.randperm(len(found), generator=generator)[:count].tolist()
            drawn = [found[index] for index in order]
            for held in drawn:
                held.state = DRAWN
            if drawn:
                yield drawn
            count -= len(drawn)
            in_vain = 0 if drawn else in_vain + STEP
            self.search(in_vain, missing)
            self.advance(len(drawn) or STEP)

    def search(self, in_vain: int, missing: str) -> None:
        """Gives up a search that has read so many clips in vain.

        Raises:
            InputError: If they are too many, or the whole of a small corpus several times.
        """
        most = max(64, min(MOST_IN_VAIN, 4 * self.stream.clips))
        if in_vain > most:
            raise InputError(
                f"{missing} among {most} clips that were read; give corpora that have some"
            )

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        if not self._filled and self._states:
            self._fill()
        first = self._all[0].mark if self._all else None
        return {
            "stream": self.stream.state_dict(first),
            "held": [held.state for held in self._all],
        }

    def load_state_dict(self, states: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Goes on from a state, or from those of all ranks, as `ClipStream.load_state_dict`."""
        self._states = [states] if isinstance(states, Mapping) else list(states)
        self.stream.load_state_dict([state["stream"] for state in self._states])
        self._all.clear()
        self._by_key.clear()
        self.seconds, self._filled = 0.0, False

    def _fill(self) -> None:
        """Reads the window anew after a state was loaded, or for the first time."""
        self._filled = True
        exact = self.stream.exact
        ranks = [state["stream"]["rank"] for state in self._states]
        if exact and self.stream.rank in ranks:
            own = self._states[ranks.index(self.stream.rank)]
            for state in own["held"]:
                mark, clip = self.stream.mark(), next(self.stream)
                if state == GONE:
                    self._all.append(Held(_without_sound(clip), mark, state))
                else:
                    self._add(Held(clip, mark, state))
        if not self._all:
            for _ in range(-(-self.stream.clips // self.stream.world)):  # an epoch, about
                if self.seconds >= self.held_seconds:
                    break
                self._read()
            self._shrink()

    def _read(self) -> None:
        mark, clip = self.stream.mark(), next(self.stream)
        self._add(Held(clip, mark))

    def _add(self, held: Held) -> None:
        key = _key(held.clip)
        earlier = self._by_key.pop(key, None)
        if earlier is not None:
            earlier.state = GONE
            self.seconds -= self._seconds(earlier.clip)
            earlier.clip = _without_sound(earlier.clip)
        self._by_key[key] = held
        self._all.append(held)
        self.seconds += self._seconds(held.clip)
        self._drop_gone()

    def _shrink(self) -> None:
        """Lets the oldest go while there is too much."""
        while self.seconds > self.held_seconds and len(self._by_key) > 1:
            oldest = self._all.popleft()
            del self._by_key[_key(oldest.clip)]
            self.seconds -= self._seconds(oldest.clip)
            self._drop_gone()

    def _drop_gone(self) -> None:
        while self._all[0].state == GONE:
            self._all.popleft()

    def _seconds(self, clip: Clip) -> float:
        return len(clip.waveform) / self.stream.sample_rate


def _key(clip: Clip) -> tuple[str, str]:
    return clip.record.source, clip.record.key


def _without_sound(clip: Clip) -> Clip:
    return Clip(record=clip.record, waveform=torch.empty(0))

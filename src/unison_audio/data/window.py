"""The latest clips of a stream, decoded, from which batches are drawn.

A clip is drawn once per reading. For every clip drawn, the stream moves on by one clip, and the
oldest clips are dropped while the window is too large. The window is a stretch of the stream, so
its state is the position of its first clip and one number per clip; a resume reads that stretch
again. To save the waveforms instead would add hundreds of megabytes to every checkpoint.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unison_audio.data.records import Clip
from unison_audio.data.stream import ClipStream, StreamPosition
from unison_audio.errors import InputError

FREE, DRAWN, GONE = range(3)
"""States of a place in the stream: its clip can be drawn, was drawn, or came again since. The
numbers are those of existing checkpoints."""

STEP = 4
"""Clips read at a time while no clip in the window can be used."""

MAX_FAILED = 5000
"""This many unusable clips in a row end a search."""


@dataclass
class WindowEntry:
    """A clip in the window."""

    clip: Clip
    position: StreamPosition
    """The stream's position before the clip."""
    number: int
    """The clip's number since the window was filled."""
    state: int
    """`FREE` or `DRAWN`."""


class Window:
    """The latest clips of a stream.

    If a corpus fits into the window, each clip is kept once: a clip that comes again replaces
    itself and may be drawn again.

    Args:
        stream: The stream.
        held_seconds: Most seconds of sound in the window.
    """

    def __init__(self, stream: ClipStream, held_seconds: float) -> None:
        self.stream, self.limit = stream, round(held_seconds * stream.sample_rate)
        # Counted in whole samples. A sum of seconds would depend on what was added and taken away
        # before, and a resumed window might then drop another number of clips.
        self.samples = 0
        # Dictionaries keep the order of insertion, so the first entry is the oldest clip.
        self._entries: dict[tuple[str, str], WindowEntry] = {}
        self._count = 0
        self._saved: Sequence[int] = ()
        self._filled = False

    def __iter__(self) -> Iterator[WindowEntry]:
        """Yields the entries, the oldest first."""
        if not self._filled:
            self._fill()
        return iter(self._entries.values())

    def advance(self, count: int) -> None:
        """Reads more clips."""
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
        """Draws clips with equal probability, as many at a time as there are candidates.

        The stream moves on between the rounds, so use the result of one before the next.

        Args:
            count: Number of clips.
            candidates: Lists the entries that can be drawn now.
            generator: Random generator.
            missing: Start of the message if there is no candidate.

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
        """Ends a search that has read many clips and could use none.

        Raises:
            InputError: If they are too many, or a small corpus several times over.
        """
        # Four times a small corpus: each clip has had its chance. Without this limit, a corpus
        # without usable clips would be read forever.
        most = max(64, min(MAX_FAILED, 4 * self.stream.clips))
        if failed > most:
            raise InputError(
                f"{missing} among {most} clips that were read; give corpora that have some"
            )

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        if self._saved:
            self._fill()
        entries = list(self._entries.values())
        if not entries:
            return {"stream": self.stream.state_dict(), "held": []}
        # Every place from the oldest clip on has a state, since a resume reads all of them.
        held = [GONE] * (self._count - entries[0].number)
        for entry in entries:
            held[entry.number - entries[0].number] = entry.state
        return {"stream": self.stream.state_dict(entries[0].position), "held": held}

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Resumes from the state of this process, or of all, as `ClipStream.load_state_dict`."""
        self.stream.load_state_dict([state["stream"] for state in states])
        self._entries.clear()
        self.samples, self._filled, self._saved = 0, False, ()
        # With other numbers of processes or workers the stream gives other clips, and the states
        # would fall on the wrong ones.
        if self.stream.exact:
            rank = self.stream.config.rank
            self._saved = next(s["held"] for s in states if s["stream"]["rank"] == rank)

    def _fill(self) -> None:
        """Reads the window's clips for the first time, or again after a state was loaded."""
        self._filled = True
        for state in self._saved:
            self._read(state)
        self._saved = ()
        if not self._entries:
            for _ in range(-(-self.stream.clips // self.stream.config.world)):  # about an epoch
                if self.samples >= self.limit:
                    break
                self._read()
            self._shrink()

    def _read(self, state: int = FREE) -> None:
        position, clip = self.stream.position, next(self.stream)
        self._count += 1
        if state == GONE:
            return
        # Taken out first: a key that is assigned again would keep its old place in the order.
        earlier = self._entries.pop(_key(clip), None)
        if earlier is not None:
            self.samples -= len(earlier.clip.waveform)
        self._entries[_key(clip)] = WindowEntry(clip, position, self._count - 1, state)
        self.samples += len(clip.waveform)

    def _shrink(self) -> None:
        """Drops the oldest clips while the window is too large."""
        while self.samples > self.limit and len(self._entries) > 1:
            oldest = self._entries.pop(next(iter(self._entries)))
            self.samples -= len(oldest.clip.waveform)


def _key(clip: Clip) -> tuple[str, str]:
    return clip.record.source, clip.record.key

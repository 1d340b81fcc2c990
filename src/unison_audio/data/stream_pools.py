"""Pools of clips streamed from large corpora, from which the tasks' builders draw.

Each stream has a window, its latest clips. For every clip drawn, the stream moves on by one clip,
and the oldest clips are dropped while the window is too large. The window is a stretch of the
stream, so its state is the position of its first clip and one number per clip; a resume reads that
stretch again. To save the waveforms would add hundreds of megabytes to every checkpoint.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unison_audio.data.pools import NOISY_LABELS, choose, described, draw_noise
from unison_audio.data.records import ZERO_SHOT_SECONDS, Clip, label_of, read_index
from unison_audio.data.stream import ClipStream, StreamConfig, StreamPosition
from unison_audio.errors import InputError
from unison_audio.tasks.clips import ClipKind, ClipLimits

HELD_SECONDS = 3600.0
"""Seconds of sound in each window: 230 MB at 16 kHz, 635 MB at 44.1 kHz."""

_AUDIOSET_NOISES = (
    "wind, wind noise (microphone), rain, raindrop, rain on surface, stream, waterfall, ocean, "
    "waves, surf, fire, crackle, thunderstorm, thunder, rustling leaves, cricket, hiss, steam, "
    "white noise, pink noise, static, hum, mains hum, noise, environmental noise, throbbing, "
    "mechanical fan, air conditioning, vacuum cleaner, engine, idling, traffic noise, "
    "roadway noise, aircraft, jet engine"
)

NOISES = frozenset(NOISY_LABELS) | frozenset(_AUDIOSET_NOISES.split(", "))
"""Labels whose sounds serve as noise: nano's and AudioSet's, in lower case."""

FREE, DRAWN, GONE = range(3)
"""States of a place in the stream: its clip can be drawn, was drawn, or came again since. The
numbers are those of existing checkpoints."""

STEP = 4
"""Clips read at a time while no clip in the window can be used."""

MAX_FAILED = 5000
"""This many unusable clips in a row end a search."""


@dataclasses.dataclass
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
        self.stream, self.limit = stream, round(held_seconds * stream.config.sample_rate)
        # Counted in whole samples. A sum of seconds would depend on what was added and taken away
        # before, and a resumed window might then drop another number of clips.
        self.samples = 0
        # Dictionaries keep the order of insertion, so the first entry is the oldest clip.
        self._entries: dict[tuple[str, str], WindowEntry] = {}
        self._count = 0

    def __iter__(self) -> Iterator[WindowEntry]:
        """Yields the entries, the oldest first."""
        if not self._entries:
            for _ in range(-(-self.stream.clips // self.stream.config.world)):  # about an epoch
                if self.samples >= self.limit:
                    break
                self._read(FREE)
            self._shrink()
        return iter(self._entries.values())

    def advance(self, count: int) -> None:
        """Reads more clips, and drops the oldest ones while the window is too large."""
        for _ in range(count):
            self._read(FREE)
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
            failed = 0 if drawn else self.search_on(failed, missing)
            self.advance(len(drawn))

    def search_on(self, failed: int, missing: str) -> int:
        """Reads on after `failed` clips of no use, and returns how many they are then.

        Raises:
            InputError: If they are too many, or a small corpus several times over.
        """
        # Four times a small corpus: each clip has had its chance. Without this limit, a corpus
        # without usable clips would be read forever.
        most = max(64, min(MAX_FAILED, 4 * self.stream.clips))
        if failed + STEP > most:
            raise InputError(
                f"{missing} among {most} clips that were read; give corpora that have some"
            )
        self.advance(STEP)
        return failed + STEP

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
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
        self.samples = 0
        # With other numbers of processes or workers the stream gives other clips, and the states
        # would fall on the wrong ones.
        if self.stream.exact:
            rank = self.stream.config.rank
            for held in next(s["held"] for s in states if s["stream"]["rank"] == rank):
                self._read(held)

    def _read(self, state: int) -> None:
        position, clip = self.stream.position, next(self.stream)
        self._count += 1
        if state == GONE:
            return
        # Taken out first: a key that is assigned again would keep its old place in the order.
        key = (clip.record.source, clip.record.key)
        earlier = self._entries.pop(key, None)
        if earlier is not None:
            self.samples -= len(earlier.clip.waveform)
        self._entries[key] = WindowEntry(clip, position, self._count - 1, state)
        self.samples += len(clip.waveform)

    def _shrink(self) -> None:
        while self.samples > self.limit and len(self._entries) > 1:
            oldest = self._entries.pop(next(iter(self._entries)))
            self.samples -= len(oldest.clip.waveform)


class StreamPools:
    """Draws from streams of clips; implements the builders' `Pools`.

    Each clip is a target once per epoch. The reference of a pair is any other clip of the speaker
    in the window. A sound is drawn by label first, among the labels that still have undrawn
    sounds, so that rare events are drawn as often as the window allows. `open_pools` makes it from
    the streams of `speech` and of `sound`, of which one may be missing.
    """

    def __init__(
        self, streams: Mapping[str, ClipStream], held_seconds: float, pair_seconds: float
    ) -> None:
        (self.sample_rate,) = {stream.config.sample_rate for stream in streams.values()}
        self.pair_seconds = pair_seconds
        self.max_words: int | None = None
        self.windows = {name: Window(stream, held_seconds) for name, stream in streams.items()}

    def pools(self, max_words: int | None) -> "StreamPools":
        """These pools, which from now on give only texts of at most `max_words` words."""
        self.max_words = max_words
        return self

    def draw(
        self, kind: ClipKind, count: int, where: ClipLimits, generator: torch.Generator
    ) -> list[Clip]:
        """Draws clips as `Pools.draw` does, and moves the streams on."""
        if kind == "noise":
            return self._draw_noise(count, where.max_seconds, generator)
        if kind == "sound":
            return self._draw_sounds(count, where, generator)
        if kind == "speaker_pair":
            return self._draw_pairs(count, where.max_seconds, generator)
        with_text = kind == "speech"
        window, longest = self._window("speech"), int(where.max_seconds * self.sample_rate)

        def candidates() -> list[WindowEntry]:
            return [
                entry
                for entry in window
                if entry.state == FREE
                and len(entry.clip.waveform) <= longest
                and (self._is_spoken(entry.clip) or not with_text)
            ]

        missing = (
            f"There is no utterance{' with its words' if with_text else ''} of at most "
            f"{where.max_seconds:.2f} s"
        )
        rounds = window.rounds(count, candidates, generator, missing)
        return [entry.clip for drawn in rounds for entry in drawn]

    def _draw_pairs(self, count: int, max_seconds: float, generator: torch.Generator) -> list[Clip]:
        window = self._window("speech")
        shortest, longest = (
            int(seconds * self.sample_rate) for seconds in (self.pair_seconds, max_seconds)
        )
        if longest < shortest:
            raise InputError(
                f"Pairs of utterances of at least {self.pair_seconds:.2f} s cannot be of at most "
                f"{max_seconds:.2f} s; make longer clips, or lower pair_seconds"
            )
        groups: defaultdict[str, list[WindowEntry]] = defaultdict(list)

        def candidates() -> list[WindowEntry]:
            groups.clear()
            for entry in window:
                clip = entry.clip
                known = clip.record.speaker and self._is_spoken(clip)
                if known and shortest <= len(clip.waveform) <= longest:
                    groups[clip.record.speaker].append(entry)
            several = (group for group in groups.values() if len(group) > 1)
            return [entry for group in several for entry in group if entry.state == FREE]

        missing = (
            "There are no two utterances of one speaker, with their words, of "
            f"{self.pair_seconds:.2f} to {max_seconds:.2f} s each"
        )
        pairs = []
        for targets in window.rounds(count, candidates, generator, missing):
            for target in targets:
                # The reference may be a clip that was drawn before: few speakers have several
                # undrawn utterances in a window at once.
                same = groups[target.clip.record.speaker]
                reference = choose([one for one in same if one is not target], generator)
                pairs += [reference.clip, target.clip]
        return pairs

    def _draw_sounds(self, count: int, where: ClipLimits, generator: torch.Generator) -> list[Clip]:
        window = self._window("sound")
        groups = _by_label(window, drawn=False)
        drawn = []
        for item in range(count):
            excluded, failed = where.excluded(item), 0
            while not (labels := [label for label in groups if label not in excluded]):
                missing = f"There is no sound other than {sorted(excluded)}"
                failed = window.search_on(failed, missing)
                groups = _by_label(window, drawn=False)
            label = choose(labels, generator)
            entry = choose(groups[label], generator)
            drawn.append(described(entry.clip, generator))
            # The groups are kept in step instead of made anew: a window has thousands of clips.
            entry.state = DRAWN
            groups[label].remove(entry)
            if not groups[label]:
                del groups[label]
        window.advance(count)
        return drawn

    def _draw_noise(self, count: int, seconds: float, generator: torch.Generator) -> list[Clip]:
        # Noise may come again, and does not use up a sound: it is background, whatever it was drawn
        # for before.
        groups = _by_label(self.windows["sound"], drawn=True) if "sound" in self.windows else {}
        recorded = {
            label: [entry.clip for entry in group]
            for label, group in groups.items()
            if NOISES.issuperset(label.lower().split(", "))
        }
        return draw_noise(count, seconds, self.sample_rate, recorded, generator)

    @property
    def skipped(self) -> Counter[str]:
        """Clips that this process could not use, by reason."""
        return sum((window.stream.skipped for window in self.windows.values()), Counter())

    def state_dict(self) -> dict[str, Any]:
        """Positions in the streams and the drawn clips, in plain values for a checkpoint."""
        return {name: window.state_dict() for name, window in self.windows.items()}

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Resumes from the states of all processes, as `ClipStream.load_state_dict`.

        With other numbers of them the windows are filled anew from the rest of the epoch.

        Raises:
            InputError: If a state is of other corpora.
        """
        for name, window in self.windows.items():
            if any(name not in state for state in states):
                raise InputError(
                    f"The state has none of the stream of {name}; give the corpora it was saved "
                    "with, or start without the state"
                )
            window.load_state_dict([state[name] for state in states])

    def close(self) -> None:
        """Ends the worker processes."""
        for window in self.windows.values():
            window.stream.close()

    def _window(self, name: str) -> Window:
        if name not in self.windows:
            raise InputError(
                f"The corpora hold no {name}, which the task needs; add a corpus that does, or "
                "leave the task out"
            )
        return self.windows[name]

    def _is_spoken(self, clip: Clip) -> bool:
        """Whether the words of a clip are known and not too many."""
        words = clip.record.text
        return bool(words) and (self.max_words is None or len(words.split()) <= self.max_words)


def open_pools(
    corpora: Sequence[str | Path],
    config: StreamConfig,
    *,
    held_seconds: float = HELD_SECONDS,
    pair_seconds: float = ZERO_SHOT_SECONDS,
) -> StreamPools:
    """Opens pools over corpora of speech and of sounds, each clip with equal probability.

    Args:
        corpora: Folders or URLs, as in `ClipStream`.
        config: Config of both streams. Speech and sounds share its workers; speech gets the odd
            one. A stream without workers decodes on demand.
        held_seconds: Most seconds of sound in each window.
        pair_seconds: Shortest utterance of a pair (paper, appendix C).

    Raises:
        InputError: If an index cannot be read, or there is neither speech nor sound.
    """
    # Asked before the streams are opened, since a kind without clips gets no workers.
    kinds = [
        kind
        for kind in ("speech", "sound")
        if any(read_index(path, kind=kind, split=config.split).clips.sum() for path in corpora)
    ]
    if not kinds:
        raise InputError(
            f"There is neither speech nor sound of the split {config.split!r} in "
            f"{', '.join(map(str, corpora)) or 'no corpus'}; add a corpus that has some"
        )
    streams = {}
    for number, kind in enumerate(kinds):
        workers = len(range(number, config.workers, len(kinds)))
        own = dataclasses.replace(config, kind=kind, workers=workers)
        streams[kind] = ClipStream(corpora, own)
    return StreamPools(streams, held_seconds, pair_seconds)


def _by_label(window: Window, *, drawn: bool) -> dict[str, list[WindowEntry]]:
    """Groups the window's entries by label, with the drawn ones or without."""
    groups: defaultdict[str, list[WindowEntry]] = defaultdict(list)
    for entry in window:
        if drawn or entry.state == FREE:
            groups[label_of(entry.clip.record)].append(entry)
    return dict(groups)

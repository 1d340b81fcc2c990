"""Pools of clips streamed from large corpora, from which the tasks' builders draw.

Each stream has a window, its latest clips. For every clip drawn, the stream moves on by one clip,
and the oldest clips are dropped while the window is too large.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unison_audio.data.pools import NOISY_LABELS, choose, described, draw_noise, grouped, has_words
from unison_audio.data.records import ZERO_SHOT_SECONDS, Clip, label_of
from unison_audio.data.shards import find_corpora, read_index
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
"""Labels whose sounds serve as noise in streams: nano's and AudioSet's, in lower case."""

FREE, DRAWN, GONE = range(3)
"""States of a place in the stream: its clip can be drawn, was drawn, or came again since. The
numbers are those of existing checkpoints."""

STEP, MAX_FAILED = 4, 5000
"""Clips read at a time while none in the window can be used, and how many end the search."""


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
    """The latest clips of a stream, at most so many seconds; the oldest ones are dropped.

    The window is a stretch of the stream, so its state is the position of its first clip and one
    number per clip; a resume reads that stretch again. To save the waveforms would add hundreds of
    megabytes to every checkpoint. If a corpus fits into the window, each clip is kept once: a clip
    that comes again replaces itself and may be drawn again.
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

    def search(self, missing: str) -> Iterator[None]:
        """Yields at once, and again whenever a few more clips were read.

        Raises:
            InputError: Begins with `missing`, after many clips, or a small corpus several times.
        """
        # Four times a small corpus: each clip has had its chance. Without this limit, a corpus
        # without usable clips would be read forever.
        most = max(64, min(MAX_FAILED, 4 * self.stream.clips))
        yield
        for _ in range(most // STEP):
            self.advance(STEP)
            yield
        raise InputError(
            f"{missing} among {most} clips that were read; give corpora that have some"
        )

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
    """Draws from windows on streams of speech and of sounds; implements the builders' `Pools`.

    Each clip is a target once per epoch. The reference of a pair is any other clip of the speaker
    in the window. A sound is drawn by label first, among the labels that still have undrawn
    sounds, so that rare events are drawn as often as the window allows.

    Args:
        corpora: Folders or URLs, as in `ClipStream`.
        config: Config of both streams. Speech and sounds share its workers; speech gets the odd
            one. A stream without workers decodes on demand.
        held_seconds: Most seconds of sound in each window.
        pair_seconds: Shortest utterance of a pair (paper, appendix C).

    Raises:
        InputError: If an index cannot be read, or there is neither speech nor sound.
    """

    def __init__(
        self,
        corpora: Sequence[str | Path],
        config: StreamConfig,
        *,
        held_seconds: float = HELD_SECONDS,
        pair_seconds: float = ZERO_SHOT_SECONDS,
    ) -> None:
        self.sample_rate, self.pair_seconds = config.sample_rate, pair_seconds
        self.max_words: int | None = None
        # Asked before the streams are opened, since a kind without clips gets no workers.
        kinds = [
            kind
            for kind in ("speech", "sound")
            if any(read_index(path, kind=kind, split=config.split).clips.sum() for path in corpora)
        ]
        if not kinds:
            find_corpora(corpora, split=config.split)  # says so, unless there are other kinds
        self.windows = {}
        for number, kind in enumerate(kinds):
            workers = len(range(number, config.workers, len(kinds)))
            own = dataclasses.replace(config, kind=kind, workers=workers)
            self.windows[kind] = Window(ClipStream(corpora, own), held_seconds)

    def pools(self, max_words: int | None) -> "StreamPools":
        """These pools, which from now on give only texts of at most `max_words` words."""
        self.max_words = max_words
        return self

    def draw(
        self, kind: ClipKind, count: int, where: ClipLimits, generator: torch.Generator
    ) -> list[Clip]:
        """Draws clips as `Pools.draw` does; the streams move on by as many clips."""
        if kind == "noise":
            # Noise may come again, and does not use up a sound: it is background, whatever it was
            # drawn for before.
            clips = [entry.clip for entry in self.windows.get("sound", ())]
            recorded = {
                label: group
                for label, group in grouped(clips, lambda clip: label_of(clip.record)).items()
                if NOISES.issuperset(label.lower().split(", "))
            }
            return draw_noise(count, where.max_seconds, self.sample_rate, recorded, generator)
        name = "sound" if kind == "sound" else "speech"
        if name not in self.windows:
            raise InputError(
                f"The corpora hold no {name}, which the task needs; add a corpus that does, or "
                "leave the task out"
            )
        if kind == "sound":
            return self._draw_sounds(count, where, generator)
        return self._draw_speech(kind, count, where.max_seconds, generator)

    def _draw_speech(
        self, kind: ClipKind, count: int, most: float, generator: torch.Generator
    ) -> list[Clip]:
        window, pair = self.windows["speech"], kind == "speaker_pair"
        least = self.pair_seconds if pair else 0.0
        shortest, longest = int(least * self.sample_rate), int(most * self.sample_rate)
        if pair and longest < shortest:
            raise InputError(
                f"Pairs of utterances of at least {least:.2f} s cannot be of at most {most:.2f} s; "
                "make longer clips, or lower pair_seconds"
            )
        missing = {
            "speech": f"There is no utterance with its words of at most {most:.2f} s",
            "speech_any": f"There is no utterance of at most {most:.2f} s",
            "speaker_pair": "There are no two utterances of one speaker, with their words, of "
            f"{least:.2f} to {most:.2f} s each",
        }[kind]
        drawn: list[Clip] = []
        groups: dict[str, list[WindowEntry]] = {}
        while count:
            # As many at a time as there are, since the window moves on between the rounds.
            for _ in window.search(missing):
                free = [
                    entry
                    for entry in window
                    if (pair or entry.state == FREE)
                    and shortest <= len(entry.clip.waveform) <= longest
                    and (kind == "speech_any" or has_words(entry.clip, self.max_words))
                ]
                if pair:
                    groups = grouped(free, lambda entry: entry.clip.record.speaker)
                    groups.pop("", None)  # two clips of unknown speakers are no pair
                    several = [group for group in groups.values() if len(group) > 1]
                    free = [entry for group in several for entry in group if entry.state == FREE]
                if free:
                    break
            order = torch.randperm(len(free), generator=generator)[:count].tolist()
            for target in map(free.__getitem__, order):
                target.state = DRAWN
                if pair:
                    # The reference may be a clip that was drawn before: few speakers have several
                    # undrawn utterances in a window at once.
                    same = groups[target.clip.record.speaker]
                    others = [entry for entry in same if entry is not target]
                    drawn.append(choose(others, generator).clip)
                drawn.append(target.clip)
            count -= len(order)
            window.advance(len(order))
        return drawn

    def _draw_sounds(self, count: int, where: ClipLimits, generator: torch.Generator) -> list[Clip]:
        window = self.windows["sound"]

        def by_label() -> dict[str, list[WindowEntry]]:
            free = (entry for entry in window if entry.state == FREE)
            return grouped(free, lambda entry: label_of(entry.clip.record))

        groups, drawn = by_label(), []
        for item in range(count):
            excluded = where.excluded(item)
            search = window.search(f"There is no sound other than {sorted(excluded)}")
            while not (labels := [label for label in groups if label not in excluded]):
                next(search)
                groups = by_label()
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

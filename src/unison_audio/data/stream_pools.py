"""Pools of clips streamed from large corpora, from which the tasks' builders draw."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import torch

from unison_audio.data.corpus_index import read_index
from unison_audio.data.pools import NOISY_LABELS, choose, described, draw_noise
from unison_audio.data.records import ZERO_SHOT_SECONDS, Clip, label_of
from unison_audio.data.stream import ClipStream, StreamConfig
from unison_audio.data.window import DRAWN, FREE, STEP, Window, WindowEntry
from unison_audio.errors import InputError
from unison_audio.tasks.clips import ClipKind, ClipLimits

HELD_SECONDS = 3600.0
"""Sound kept by each window: at 16 kHz 230 MB, at 44.1 kHz 635 MB."""

_AUDIOSET_NOISES = (
    "wind, wind noise (microphone), rain, raindrop, rain on surface, stream, waterfall, ocean, "
    "waves, surf, fire, crackle, thunderstorm, thunder, rustling leaves, cricket, hiss, steam, "
    "white noise, pink noise, static, hum, mains hum, noise, environmental noise, throbbing, "
    "mechanical fan, air conditioning, vacuum cleaner, engine, idling, traffic noise, "
    "roadway noise, aircraft, jet engine"
)

NOISES = frozenset(NOISY_LABELS) | frozenset(_AUDIOSET_NOISES.split(", "))
"""Labels that serve as noise: nano's and AudioSet's, in lower case."""


class StreamPools:
    """Draws from streams of clips; implements the builders' ``Pools``.

    Every clip is drawn once as a target. A pair's reference is any other clip of the speaker in
    the window. Sounds are drawn by label first, among the labels of the sounds not drawn yet, so
    that rare events are drawn as often as the window allows.

    Args:
        speech: Utterances; None if there are none.
        sounds: Sounds; None if there are none.
        held_seconds: Sound that each of the two windows keeps.
        pair_seconds: Utterances of a pair are at least so long (paper, appendix C).

    Raises:
        InputError: If there is neither, or they have different sample rates.
    """

    def __init__(
        self,
        speech: ClipStream | None,
        sounds: ClipStream | None,
        *,
        held_seconds: float = HELD_SECONDS,
        pair_seconds: float = ZERO_SHOT_SECONDS,
    ) -> None:
        rates = {stream.sample_rate for stream in (speech, sounds) if stream is not None}
        if len(rates) != 1:
            raise InputError(
                f"The streams have the sample rates {sorted(rates)}; give speech, sounds or both, "
                "of one rate"
            )
        self.sample_rate = rates.pop()
        self.pair_seconds = pair_seconds
        self.max_words: int | None = None
        self.windows = {
            name: Window(stream, held_seconds)
            for name, stream in (("speech", speech), ("sound", sounds))
            if stream is not None
        }

    def pools(self, max_words: int | None) -> "StreamPools":
        """These pools, giving only texts of at most so many words from now on."""
        self.max_words = max_words
        return self

    def draw(
        self, kind: ClipKind, count: int, where: ClipLimits, generator: torch.Generator
    ) -> list[Clip]:
        """Draws clips, as `Pools.draw`, and moves the streams on."""
        if kind == "noise":
            return self._draw_noise(count, where.max_seconds, generator)
        if kind == "sound":
            return self._draw_sounds(count, where, generator)
        if kind == "speaker_pair":
            return self._draw_pairs(count, where.max_seconds, generator)
        longest, with_text = int(where.max_seconds * self.sample_rate), kind == "speech"
        window = self._window("speech")

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
                # A reference may have been drawn before: few speakers have several free
                # utterances in a window at once.
                same = groups[target.clip.record.speaker]
                reference = choose([one for one in same if one is not target], generator)
                pairs += [reference.clip, target.clip]
        return pairs

    def _draw_sounds(self, count: int, where: ClipLimits, generator: torch.Generator) -> list[Clip]:
        window = self._window("sound")
        groups = _by_label(window, {FREE})
        drawn = []
        for item in range(count):
            excluded = where.excluded(item)
            failed = 0
            while not (labels := [label for label in groups if label not in excluded]):
                failed += STEP
                window.check_search(failed, f"There is no sound other than {sorted(excluded)}")
                window.advance(STEP)
                groups = _by_label(window, {FREE})
            label = choose(labels, generator)
            entry = choose(groups[label], generator)
            drawn.append(described(entry.clip, generator))
            entry.state = DRAWN
            groups[label].remove(entry)
            if not groups[label]:
                del groups[label]
        window.advance(count)
        return drawn

    def _draw_noise(self, count: int, seconds: float, generator: torch.Generator) -> list[Clip]:
        groups = _by_label(self.windows["sound"], {FREE, DRAWN}) if "sound" in self.windows else {}
        recorded = {
            label: [entry.clip for entry in group]
            for label, group in groups.items()
            if NOISES.issuperset(label.lower().split(", "))
        }
        return draw_noise(count, seconds, self.sample_rate, recorded, generator)

    @property
    def skipped(self) -> Counter[str]:
        """How many clips of this rank's streams could not be used, by reason."""
        return sum((window.stream.skipped for window in self.windows.values()), Counter())

    def state_dict(self) -> dict[str, Any]:
        """Positions in the streams and what was drawn, in plain values for a checkpoint."""
        return {name: window.state_dict() for name, window in self.windows.items()}

    def load_state_dict(self, states: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Resumes from a state: with the same numbers of ranks and workers, exactly.

        With other numbers the windows are filled anew from what is left of the epoch.

        Args:
            states: What `state_dict` gave, of this rank; or a list of every rank's.

        Raises:
            InputError: If a state is of other corpora.
        """
        every = [states] if isinstance(states, Mapping) else list(states)
        for name, window in self.windows.items():
            if any(name not in state for state in every):
                raise InputError(
                    f"The state has none of the stream of {name}; give the corpora it was saved "
                    "with, or start without the state"
                )
            window.load_state_dict([state[name] for state in every])

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
        """Whether the words are known and not too many."""
        words = clip.record.text
        return bool(words) and (self.max_words is None or len(words.split()) <= self.max_words)


def open_pools(
    corpora: Sequence[str | Path],
    config: StreamConfig,
    *,
    held_seconds: float = HELD_SECONDS,
    pair_seconds: float = ZERO_SHOT_SECONDS,
) -> StreamPools:
    """Opens pools over corpora of speech and of sounds, each clip as likely as any other.

    Args:
        corpora: Folders or URLs, as `ClipStream` takes them.
        config: Of both streams. Utterances longer than its ``max_seconds`` are left out, of longer
            sounds a stretch is taken. Its ``workers`` are shared by speech and sounds, speech
            getting the odd one; a stream without any decodes in between.
        held_seconds: As in `StreamPools`.
        pair_seconds: As in `StreamPools`.

    Raises:
        InputError: If an index cannot be read, or there is neither speech nor sound.
    """
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
        # A sound may be cropped anywhere; a cropped utterance would no longer match its text.
        own = dataclasses.replace(config, kind=kind, crop=kind == "sound", workers=workers)
        streams[kind] = ClipStream(corpora, own)
    return StreamPools(
        streams.get("speech"),
        streams.get("sound"),
        held_seconds=held_seconds,
        pair_seconds=pair_seconds,
    )


def _by_label(window: Window, states: AbstractSet[int]) -> dict[str, list[WindowEntry]]:
    """Groups the window's clips in one of some states by label."""
    groups: defaultdict[str, list[WindowEntry]] = defaultdict(list)
    for entry in window:
        if entry.state in states:
            groups[label_of(entry.clip.record)].append(entry)
    return dict(groups)

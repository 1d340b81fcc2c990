"""Pools of clips streamed from large corpora, from which the tasks' builders draw."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unison_audio.data.pools import (
    NOISY_LABELS,
    choose,
    draw_noise,
    label_of,
    sound_clip,
    speech_clip,
)
from unison_audio.data.records import ZERO_SHOT_SECONDS, Clip, read_index
from unison_audio.data.stream import ClipStream
from unison_audio.data.window import DRAWN, FREE, STEP, Held, Window
from unison_audio.errors import InputError
from unison_audio.tasks.clips import SoundClip, SpeechClip

HELD_SECONDS = 3600.0
"""Sound held by each window: at 16 kHz 230 MB, at 44.1 kHz 635 MB."""

_AUDIOSET_NOISES = (
    "wind, wind noise (microphone), rain, raindrop, rain on surface, stream, waterfall, ocean, "
    "waves, surf, fire, crackle, thunderstorm, thunder, rustling leaves, cricket, hiss, steam, "
    "white noise, pink noise, static, hum, mains hum, noise, environmental noise, throbbing, "
    "mechanical fan, air conditioning, vacuum cleaner, engine, idling, traffic noise, "
    "roadway noise, aircraft, jet engine"
)

NOISES = frozenset(NOISY_LABELS) | frozenset(_AUDIOSET_NOISES.split(", "))
"""What serves as noise: nano's labels and AudioSet's, in lower case."""


class StreamPools:
    """Draws from streams of clips; implements the builders' ``Pools``.

    Every clip is drawn once as a target. A pair's reference is any other clip of the speaker that
    is held. Sounds are drawn by label first, among the labels of the sounds not drawn yet, so that
    rare events are heard as often as the window allows.

    Args:
        speech: Utterances; None if there are none.
        sounds: Sounds; None if there are none.
        held_seconds: Sound that each of the two windows holds.
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

    def speech(
        self, count: int, generator: torch.Generator, *, max_seconds: float
    ) -> list[SpeechClip]:
        """Draws utterances with their words."""
        longest = int(max_seconds * self.sample_rate)
        drawn = self._window("speech").draw(
            count,
            lambda clip: len(clip.waveform) <= longest and self._is_spoken(clip),
            generator,
            f"There is no utterance with its words of at most {max_seconds:.2f} s",
        )
        return [speech_clip(clip) for clip in drawn]

    def speech_any(
        self, count: int, generator: torch.Generator, *, max_seconds: float
    ) -> list[SpeechClip]:
        """Draws utterances, also such whose words nobody wrote down."""
        longest = int(max_seconds * self.sample_rate)
        drawn = self._window("speech").draw(
            count,
            lambda clip: len(clip.waveform) <= longest,
            generator,
            f"There is no utterance of at most {max_seconds:.2f} s",
        )
        return [speech_clip(clip) for clip in drawn]

    def speaker_pairs(
        self, count: int, generator: torch.Generator, *, max_seconds_each: float
    ) -> list[tuple[SpeechClip, SpeechClip]]:
        """Draws two different utterances of one speaker, reference and target."""
        window = self._window("speech")
        shortest, longest = (
            int(seconds * self.sample_rate) for seconds in (self.pair_seconds, max_seconds_each)
        )
        if longest < shortest:
            raise InputError(
                f"Pairs of utterances of at least {self.pair_seconds:.2f} s cannot be of at most "
                f"{max_seconds_each:.2f} s; make longer clips, or lower pair_seconds"
            )

        def fits(clip: Clip) -> bool:
            known = clip.record.speaker and self._is_spoken(clip)
            return bool(known) and shortest <= len(clip.waveform) <= longest

        groups: defaultdict[str, list[Held]] = defaultdict(list)

        def candidates() -> list[Held]:
            groups.clear()
            for held in window:
                if fits(held.clip):
                    groups[held.clip.record.speaker].append(held)
            several = (group for group in groups.values() if len(group) > 1)
            return [held for group in several for held in group if held.state == FREE]

        missing = (
            "There are no two utterances of one speaker, with their words, of "
            f"{self.pair_seconds:.2f} to {max_seconds_each:.2f} s each"
        )
        pairs = []
        for targets in window.rounds(count, candidates, generator, missing):
            for target in targets:
                others = [held for held in groups[target.clip.record.speaker] if held is not target]
                reference = choose(others, generator)
                pairs.append((speech_clip(reference.clip), speech_clip(target.clip)))
        return pairs

    def sounds(
        self,
        count: int,
        generator: torch.Generator,
        *,
        exclude_labels: list[set[str]] | None = None,
        max_seconds: float,
    ) -> list[SoundClip]:
        """Draws sounds; longer ones than ``max_seconds`` are left to the builder to crop."""
        del max_seconds
        window = self._window("sound")
        drawn = []
        groups = _by_label(window, FREE)
        for i in range(count):
            excluded = exclude_labels[i] if exclude_labels else set()
            in_vain = 0
            while not (labels := [label for label in groups if label not in excluded]):
                in_vain += STEP
                window.search(in_vain, f"There is no sound other than {sorted(excluded)}")
                window.advance(STEP)
                groups = _by_label(window, FREE)
            label = choose(labels, generator)
            held = choose(groups[label], generator)
            drawn.append(sound_clip(held.clip, generator))
            held.state = DRAWN
            groups[label].remove(held)
            if not groups[label]:
                del groups[label]
        window.advance(count)
        return drawn

    def noise(self, count: int, generator: torch.Generator, seconds: float) -> list[Tensor]:
        """Draws noise: half of it coloured Gaussian, half recordings of wind, rain and the like."""
        by_label: Mapping[str, list[Held]] = {}
        if "sound" in self.windows:
            by_label = _by_label(self.windows["sound"], FREE, DRAWN)
        noisy = {
            label: [held.clip for held in group]
            for label, group in by_label.items()
            if NOISES.issuperset(label.lower().split(", "))
        }
        samples = round(seconds * self.sample_rate)
        return draw_noise(count, samples, generator, noisy, list(noisy))

    @property
    def skipped(self) -> Counter[str]:
        """How many clips of this rank's streams could not be used, by reason."""
        return sum((window.stream.skipped for window in self.windows.values()), Counter())

    def state_dict(self) -> dict[str, Any]:
        """Places in the streams and what was drawn, in plain values for a checkpoint."""
        return {name: window.state_dict() for name, window in self.windows.items()}

    def load_state_dict(self, states: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Goes on from a state: with as many ranks and workers as before, exactly.

        With other numbers the windows are filled anew from what the epoch still has.

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
    *,
    sample_rate: int,
    max_seconds: float,
    split: str = "train",
    held_seconds: float = HELD_SECONDS,
    pair_seconds: float = ZERO_SHOT_SECONDS,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    seed: int = 0,
) -> StreamPools:
    """Opens pools over corpora of speech and of sounds, each clip as likely as any other.

    Args:
        corpora: Folders or URLs, as `ClipStream` takes them.
        sample_rate: Of the codec, in Hz.
        max_seconds: Of the longest clip trained on. Longer utterances are left out, of longer
            sounds a stretch is taken.
        split: Which clips: ``train``, or ``heldout``, what no training hears.
        held_seconds: As in `StreamPools`.
        pair_seconds: As in `StreamPools`.
        rank: Number of this process.
        world: Processes in all.
        workers: Processes that decode for this one, shared by speech and sounds, speech getting the
            odd one; what is left without any is decoded in between.
        seed: Of all that is drawn.

    Raises:
        InputError: If an index cannot be read, or there is neither speech nor sound.
    """
    kinds = [
        kind
        for kind in ("speech", "sound")
        if any(read_index(corpus, kind=kind, split=split).clips.sum() for corpus in corpora)
    ]
    if not kinds:
        raise InputError(
            f"There is neither speech nor sound of the split {split!r} in "
            f"{', '.join(map(str, corpora)) or 'no corpus'}; add a corpus that has some"
        )
    streams = {
        kind: ClipStream(
            corpora,
            sample_rate=sample_rate,
            kind=kind,
            split=split,
            max_seconds=max_seconds,
            crop=kind == "sound",
            rank=rank,
            world=world,
            workers=len(range(number, workers, len(kinds))),
            seed=seed,
        )
        for number, kind in enumerate(kinds)
    }
    return StreamPools(
        streams.get("speech"),
        streams.get("sound"),
        held_seconds=held_seconds,
        pair_seconds=pair_seconds,
    )


def _by_label(window: Window, *states: int) -> dict[str, list[Held]]:
    """Groups what is held in one of some states by label."""
    groups: defaultdict[str, list[Held]] = defaultdict(list)
    for held in window:
        if held.state in states:
            groups[label_of(held.clip.record)].append(held)
    return dict(groups)

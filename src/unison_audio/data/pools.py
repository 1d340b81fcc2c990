"""Pools of clips in memory, from which the tasks' builders draw."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from unison_audio.audio import resample
from unison_audio.data.records import Clip, ClipRecord
from unison_audio.errors import InputError
from unison_audio.tasks.clips import Pools, SoundClip, SpeechClip

T = TypeVar("T")

NOISY_LABELS = (
    "wind blowing",
    "rain",
    "a flowing stream",
    "fire burning",
    "a machine running",
    "hissing",
    "thunder",
    "rustling leaves",
    "crickets chirping",
    "a jet plane",
)
"""Sounds that serve as noise beside the synthetic ones."""

LABEL_AS_CAPTION = 0.6
"""Probability that a sound is described by its label instead of its own caption."""


class SpeechPool:
    """Utterances sorted by length, so that any longest length can be drawn under.

    Args:
        clips: Speech clips.
        max_words: Longer texts are left out.
    """

    def __init__(self, clips: Iterable[Clip], max_words: int | None = None) -> None:
        kept = [
            clip
            for clip in clips
            if max_words is None or len(clip.record.text.split()) <= max_words
        ]
        self.clips = sorted(kept, key=lambda clip: (clip.waveform.shape[0], clip.record.key))
        self.lengths = np.array([clip.waveform.shape[0] for clip in self.clips])

    def within(self, samples: int) -> int:
        """Counts the utterances of at most so many samples; the first ones of ``clips``."""
        return int(np.searchsorted(self.lengths, samples, side="right"))


class MemoryPools:
    """Draws from a corpus held in memory; implements the builders' ``Pools``.

    Sounds are drawn by label first, so that rare events are heard as often as common ones.

    Args:
        clips: The clips of one or more splits.
        sample_rate: Of the clips, in Hz.
        max_words: Only utterances of so few words, or all.
        label_weights: How often each label is drawn, relatively; evenly if None.

    Raises:
        InputError: If there is neither speech nor sound among the clips.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        sample_rate: int,
        max_words: int | None = None,
        label_weights: Mapping[str, float] | None = None,
    ) -> None:
        self.sample_rate = sample_rate
        speech = [clip for clip in clips if clip.record.kind == "speech"]
        spoken = [clip for clip in speech if clip.record.text]
        self.spoken = SpeechPool(spoken, max_words)
        self.any_speech = SpeechPool(speech)
        by_speaker: defaultdict[str, list[Clip]] = defaultdict(list)
        for clip in self.spoken.clips:
            by_speaker[clip.record.speaker].append(clip)
        self.speakers = {name: SpeechPool(found) for name, found in by_speaker.items()}
        by_label: defaultdict[str, list[Clip]] = defaultdict(list)
        for clip in clips:
            if clip.record.kind == "sound":
                by_label[label_of(clip.record)].append(clip)
        self.labels = sorted(by_label)
        self.by_label = dict(by_label)
        self.noisy = [label for label in NOISY_LABELS if label in by_label]
        self.label_weights = label_weights
        if not self.any_speech.clips and not self.labels:
            raise InputError("There is neither speech nor sound among the clips; build them again")

    def speech(
        self, count: int, generator: torch.Generator, *, max_seconds: float
    ) -> list[SpeechClip]:
        """Draws utterances with their words."""
        return self._speech(self.spoken, count, generator, max_seconds)

    def speech_any(
        self, count: int, generator: torch.Generator, *, max_seconds: float
    ) -> list[SpeechClip]:
        """Draws utterances, also such whose words nobody wrote down."""
        return self._speech(self.any_speech, count, generator, max_seconds)

    def speaker_pairs(
        self, count: int, generator: torch.Generator, *, max_seconds_each: float
    ) -> list[tuple[SpeechClip, SpeechClip]]:
        """Draws two different utterances of one speaker."""
        samples = int(max_seconds_each * self.sample_rate)
        sizes = {name: pool.within(samples) for name, pool in self.speakers.items()}
        names = [name for name, size in sizes.items() if size >= 2]
        if not names:
            raise InputError(
                f"No speaker has two utterances of at most {max_seconds_each:.2f} s; "
                "take longer clips"
            )
        weights = torch.tensor([float(sizes[name]) for name in names]).sqrt()
        chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
        pairs = []
        for index in chosen.tolist():
            size, pool = sizes[names[index]], self.speakers[names[index]]
            first, second = torch.randperm(size, generator=generator)[:2].tolist()
            pairs.append((speech_clip(pool.clips[first]), speech_clip(pool.clips[second])))
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
        drawn = []
        for i in range(count):
            excluded = exclude_labels[i] if exclude_labels else set()
            drawn.append(self.sound(self._label(excluded, generator), generator))
        return drawn

    def _label(self, excluded: set[str], generator: torch.Generator) -> str:
        """Draws a label that is not excluded."""
        labels = [name for name in self.labels if name not in excluded]
        if not labels:
            raise InputError(
                f"The clips have sounds of {len(self.labels)} kinds, and another kind is needed; "
                "add some, or leave out tasks that need more than one"
            )
        if self.label_weights is None:
            return choose(labels, generator)
        weights = torch.tensor([self.label_weights.get(name, 0.0) for name in labels])
        return labels[int(torch.multinomial(weights, 1, generator=generator))]

    def sound(self, label: str, generator: torch.Generator) -> SoundClip:
        """Draws a sound of one label; its caption is often the label itself."""
        return sound_clip(choose(self.by_label[label], generator), generator)

    def noise(self, count: int, generator: torch.Generator, seconds: float) -> list[Tensor]:
        """Draws noise: half of it coloured Gaussian, half recordings of wind, rain and the like."""
        samples = round(seconds * self.sample_rate)
        return draw_noise(count, samples, generator, self.by_label, self.noisy)

    def _speech(
        self, pool: SpeechPool, count: int, generator: torch.Generator, max_seconds: float
    ) -> list[SpeechClip]:
        size = pool.within(int(max_seconds * self.sample_rate))
        if size == 0:
            raise InputError(
                f"The corpus has no utterance of at most {max_seconds:.2f} s; take longer clips"
            )
        chosen = torch.randint(size, (count,), generator=generator)
        return [speech_clip(pool.clips[index]) for index in chosen.tolist()]


def draw_noise(
    count: int,
    samples: int,
    generator: torch.Generator,
    by_label: Mapping[str, Sequence[Clip]],
    noisy: Sequence[str],
) -> list[Tensor]:
    """Draws noise: half of it coloured Gaussian, half recordings, where there are some.

    Args:
        count: How many.
        samples: Of the coloured ones.
        generator: Draws.
        by_label: Recordings of each label.
        noisy: The labels that serve as noise; each is drawn as often.
    """
    drawn = []
    for _ in range(count):
        recorded, slope = torch.rand(2, generator=generator).tolist()
        if recorded < 0.5 and noisy:
            label = choose(noisy, generator)
            drawn.append(choose(by_label[label], generator).waveform)
        else:
            drawn.append(coloured_noise(samples, 2.0 * slope, generator))
    return drawn


def plain_caption(caption: str) -> str:
    """Turns a sentence into a phrase: "A dog barks." -> "a dog barks"."""
    phrase = caption.strip().rstrip(".")
    return phrase[:1].lower() + phrase[1:]


def coloured_noise(samples: int, slope: float, generator: torch.Generator) -> Tensor:
    """Makes Gaussian noise whose power falls as 1 / f^slope: 0 white, 1 pink, 2 brown.

    Returns:
        (samples,) at RMS 0.1.
    """
    spectrum = torch.fft.rfft(torch.randn(samples, generator=generator))
    frequency = torch.arange(spectrum.shape[0]).clamp(min=8).float()
    noise = torch.fft.irfft(spectrum * frequency ** (-slope / 2), samples)
    return 0.1 * noise / noise.square().mean().sqrt()


def choose(items: Sequence[T], generator: torch.Generator) -> T:
    """Draws one of some things."""
    return items[int(torch.randint(len(items), (1,), generator=generator))]


def label_of(record: ClipRecord) -> str:
    """A sound's label; what its caption says where nobody gave it one."""
    return record.label or plain_caption(record.caption)


def sound_clip(clip: Clip, generator: torch.Generator) -> SoundClip:
    """A sound for the builders; its caption is often the label itself."""
    label = label_of(clip.record)
    by_label = bool(torch.rand((), generator=generator) < LABEL_AS_CAPTION)
    caption = label if by_label else plain_caption(clip.record.caption) or label
    return SoundClip(waveform=clip.waveform, label=label, caption=caption)


def speech_clip(clip: Clip) -> SpeechClip:
    """An utterance for the builders."""
    record = clip.record
    return SpeechClip(
        waveform=clip.waveform, text=record.text, gender=record.gender, speaker=record.speaker
    )


Played = TypeVar("Played", SoundClip, SpeechClip)

MARGIN_SECONDS = 0.001
"""Shorter by so much a slowed utterance is asked for, since resampling rounds lengths up."""


class VariedPools:
    """Plays what other pools give at a speed drawn anew, which moves pitch and formants with it.

    That makes another take of a sound, and another voice of a speaker. Two utterances of a pair
    stay one voice. Utterances drawn with their gender, whose instruction names it, stay as they
    are, and so does noise.

    Args:
        pools: Where the clips come from.
        sample_rate: Of the clips, in Hz.
        speed: Slowest and fastest speed; they are drawn evenly in octaves.

    Raises:
        InputError: If these are no speeds.
    """

    def __init__(self, pools: Pools, sample_rate: int, speed: tuple[float, float]) -> None:
        low, high = speed
        if not 0.5 <= low <= high <= 2:
            raise InputError(
                f"The speeds are {low!r} to {high!r}; give two numbers with "
                "0.5 <= slowest <= fastest <= 2"
            )
        self.pools, self.sample_rate, self.speed = pools, sample_rate, speed
        self.speech, self.noise = pools.speech, pools.noise

    def speech_any(
        self, count: int, generator: torch.Generator, *, max_seconds: float
    ) -> list[SpeechClip]:
        """As in `Pools`, each utterance at a speed of its own."""
        clips = self.pools.speech_any(count, generator, max_seconds=self._own(max_seconds))
        return [self._play(clip, self._draw(generator)) for clip in clips]

    def speaker_pairs(
        self, count: int, generator: torch.Generator, *, max_seconds_each: float
    ) -> list[tuple[SpeechClip, SpeechClip]]:
        """As in `Pools`, each pair at a speed of its own."""
        longest = self._own(max_seconds_each)
        pairs = self.pools.speaker_pairs(count, generator, max_seconds_each=longest)
        speeds = [self._draw(generator) for _ in pairs]
        return [
            (self._play(one, speed), self._play(other, speed))
            for (one, other), speed in zip(pairs, speeds, strict=True)
        ]

    def sounds(
        self,
        count: int,
        generator: torch.Generator,
        *,
        exclude_labels: list[set[str]] | None = None,
        max_seconds: float,
    ) -> list[SoundClip]:
        """As in `Pools`, each sound at a speed of its own."""
        clips = self.pools.sounds(
            count,
            generator,
            exclude_labels=exclude_labels,
            max_seconds=self._own(max_seconds),
        )
        return [self._play(clip, self._draw(generator)) for clip in clips]

    def _own(self, seconds: float) -> float:
        """How long a clip may be that is to fit when it is played at the slowest speed."""
        return (seconds - MARGIN_SECONDS) * min(1.0, self.speed[0])

    def _draw(self, generator: torch.Generator) -> float:
        low, high = (math.log(speed) for speed in self.speed)
        return math.exp(low + (high - low) * float(torch.rand((), generator=generator)))

    def _play(self, clip: Played, speed: float) -> Played:
        faster = round(speed * self.sample_rate)
        waveform = resample(clip.waveform, faster, self.sample_rate)
        return dataclasses.replace(clip, waveform=waveform)

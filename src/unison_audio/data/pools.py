"""Pools of clips in memory, from which the tasks' builders draw."""

import bisect
import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeVar

import torch
from torch import Tensor

from unison_audio.audio import resample
from unison_audio.data.captions import plain_caption
from unison_audio.data.records import Clip, ClipRecord, label_of
from unison_audio.errors import InputError
from unison_audio.tasks.clips import ClipKind, ClipLimits, Pools

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
"""Labels whose sounds serve as noise, beside synthetic noise."""

LABEL_AS_CAPTION = 0.6
"""Probability that a sound is described by its label instead of its own caption."""

MARGIN_SECONDS = 0.001
"""Subtracted from the longest length of a slowed utterance, since resampling rounds lengths up."""


class MemoryPools:
    """Draws from a corpus in memory; implements the builders' `Pools`.

    A sound is drawn by label first, so that rare events are drawn as often as common ones.

    Args:
        clips: Clips of one or more splits.
        sample_rate: Sample rate of the clips in Hz.
        max_words: Most words of an utterance; None for any number.
        label_weights: Relative frequency of each label; None for equal frequencies.

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
        # Sorted by length, so that the utterances within any length are the first ones.
        speech = sorted(
            (clip for clip in clips if clip.record.kind == "speech"),
            key=lambda clip: (len(clip.waveform), clip.record.key),
        )
        most = math.inf if max_words is None else max_words
        spoken = [c for c in speech if c.record.text and len(c.record.text.split()) <= most]
        self.speech = {"speech": spoken, "speech_any": speech}
        # Pairs need the words of both clips: one is the prompt, the other the target.
        self.speakers: defaultdict[str, list[Clip]] = defaultdict(list)
        for clip in spoken:
            if clip.record.speaker:  # two clips of unknown speakers are no pair
                self.speakers[clip.record.speaker].append(clip)
        self.by_label: defaultdict[str, list[Clip]] = defaultdict(list)
        for clip in clips:
            if clip.record.kind == "sound":
                self.by_label[label_of(clip.record)].append(clip)
        self.labels = sorted(self.by_label)
        self.label_weights = label_weights
        if not speech and not self.labels:
            raise InputError("There is neither speech nor sound among the clips; build them again.")

    def draw(
        self, kind: ClipKind, count: int, where: ClipLimits, generator: torch.Generator
    ) -> list[Clip]:
        """Draws clips as `Pools.draw` does, with replacement."""
        if kind == "noise":
            noisy = [label for label in NOISY_LABELS if label in self.by_label]
            recorded = {label: self.by_label[label] for label in noisy}
            return draw_noise(count, where.max_seconds, self.sample_rate, recorded, generator)
        if kind == "sound":
            sounds = []
            for item in range(count):
                label = self.draw_label(where.excluded(item), generator)
                sounds.append(described(choose(self.by_label[label], generator), generator))
            return sounds
        samples = int(where.max_seconds * self.sample_rate)
        if kind == "speaker_pair":
            return self._pairs(count, samples, generator)
        pool = self.speech[kind]
        size = _within(pool, samples)
        if size == 0:
            raise InputError(
                f"The clips have no utterance of at most {where.max_seconds:.2f} s; "
                "add shorter ones."
            )
        chosen = torch.randint(size, (count,), generator=generator)
        return [pool[index] for index in chosen.tolist()]

    def draw_label(self, excluded: AbstractSet[str], generator: torch.Generator) -> str:
        """Draws the label of a sound.

        Raises:
            InputError: If all labels are excluded.
        """
        labels = [name for name in self.labels if name not in excluded]
        if not labels:
            raise InputError(
                f"The clips have sounds of {len(self.labels)} kinds, and another kind is needed; "
                "add some, or leave out tasks that need more than one."
            )
        if self.label_weights is None:
            return choose(labels, generator)
        weights = torch.tensor([self.label_weights.get(name, 0.0) for name in labels])
        return labels[int(torch.multinomial(weights, 1, generator=generator))]

    def _pairs(self, count: int, samples: int, generator: torch.Generator) -> list[Clip]:
        sizes = {name: _within(pool, samples) for name, pool in self.speakers.items()}
        names = [name for name, size in sizes.items() if size >= 2]
        if not names:
            raise InputError(
                f"No speaker has two utterances of at most {samples / self.sample_rate:.2f} s; "
                "add two shorter ones of one speaker."
            )
        # The square root lies between drawing speakers evenly, which repeats the few utterances
        # of a rare one, and by their number of utterances, which hardly ever draws it.
        weights = torch.tensor([float(sizes[name]) for name in names]).sqrt()
        chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
        pairs = []
        for index in chosen.tolist():
            size, pool = sizes[names[index]], self.speakers[names[index]]
            two = torch.randperm(size, generator=generator)[:2].tolist()
            pairs += [pool[place] for place in two]
        return pairs


def _within(pool: Sequence[Clip], samples: int) -> int:
    """Number of utterances of at most `samples` samples, the first ones of a sorted pool."""
    return bisect.bisect_right(pool, samples, key=lambda clip: len(clip.waveform))


def draw_noise(
    count: int,
    seconds: float,
    sample_rate: int,
    recorded: Mapping[str, Sequence[Clip]],
    generator: torch.Generator,
) -> list[Clip]:
    """Draws noise: half of it colored Gaussian noise, half recordings if there are any.

    Args:
        count: Number of clips.
        seconds: Length of the Gaussian noise.
        sample_rate: Sample rate in Hz.
        recorded: Label -> recordings; each label has equal probability.
        generator: Random generator.
    """
    labels = list(recorded)
    record = ClipRecord(
        key="colored-noise", kind="noise", split="", seconds=seconds, licence="", source="synthetic"
    )
    drawn = []
    for _ in range(count):
        share, slope = torch.rand(2, generator=generator).tolist()
        if share < 0.5 and labels:
            drawn.append(choose(recorded[choose(labels, generator)], generator))
        else:
            waveform = colored_noise(round(seconds * sample_rate), 2.0 * slope, generator)
            drawn.append(Clip(record=record, waveform=waveform))
    return drawn


def colored_noise(samples: int, slope: float, generator: torch.Generator) -> Tensor:
    """Makes Gaussian noise whose power falls as 1 / f^slope: 0 white, 1 pink, 2 brown.

    Returns:
        (samples,) at RMS 0.1.
    """
    spectrum = torch.fft.rfft(torch.randn(samples, generator=generator))
    # Without the clamp, nearly all power of brown noise would lie below the range of hearing.
    frequency = torch.arange(spectrum.shape[0]).clamp(min=8).float()
    noise = torch.fft.irfft(spectrum * frequency ** (-slope / 2), samples)
    return 0.1 * noise / noise.square().mean().sqrt()


def choose(items: Sequence[T], generator: torch.Generator) -> T:
    """Draws one of several items."""
    return items[int(torch.randint(len(items), (1,), generator=generator))]


def described(clip: Clip, generator: torch.Generator) -> Clip:
    """A sound with its label; its caption is the label or its own caption, drawn at random."""
    label = label_of(clip.record)
    by_label = bool(torch.rand((), generator=generator) < LABEL_AS_CAPTION)
    caption = label if by_label else plain_caption(clip.record.caption) or label
    record = dataclasses.replace(clip.record, label=label, caption=caption)
    return Clip(record=record, waveform=clip.waveform)


class VariedPools:
    """Plays the clips of other pools at a random speed, which also moves pitch and formants.

    A sound becomes another take of itself, and a speaker another speaker. The two utterances of a
    pair share a speed, and so their speaker. `speech` is unchanged: its instruction names the
    gender, which a change of pitch would contradict. Noise is unchanged too.

    Args:
        pools: The other pools.
        sample_rate: Sample rate of the clips in Hz.
        speed: Slowest and fastest speed; the logarithm of the speed is uniform.

    Raises:
        InputError: If a speed is not from 0.5 to 2.
    """

    def __init__(self, pools: Pools, sample_rate: int, speed: tuple[float, float]) -> None:
        low, high = speed
        if not 0.5 <= low <= high <= 2:
            raise InputError(
                f"The speeds are {low!r} to {high!r}; give two numbers with "
                "0.5 <= slowest <= fastest <= 2"
            )
        self.pools, self.sample_rate, self.speed = pools, sample_rate, speed

    def draw(
        self, kind: ClipKind, count: int, where: ClipLimits, generator: torch.Generator
    ) -> list[Clip]:
        """Draws clips as `Pools.draw` does, and changes their speed."""
        if kind in ("speech", "noise"):
            return self.pools.draw(kind, count, where, generator)
        # A clip must still fit when it is played at the slowest speed.
        longest = (where.max_seconds - MARGIN_SECONDS) * min(1.0, self.speed[0])
        where = dataclasses.replace(where, max_seconds=longest)
        clips = self.pools.draw(kind, count, where, generator)
        each = 2 if kind == "speaker_pair" else 1
        speeds = [self._draw_speed(generator) for _ in clips[::each]]
        return [self._play(clip, speeds[place // each]) for place, clip in enumerate(clips)]

    def _draw_speed(self, generator: torch.Generator) -> float:
        low, high = (math.log(speed) for speed in self.speed)
        return math.exp(low + (high - low) * float(torch.rand((), generator=generator)))

    def _play(self, clip: Clip, speed: float) -> Clip:
        faster = round(speed * self.sample_rate)
        waveform = resample(clip.waveform, faster, self.sample_rate)
        return Clip(record=clip.record, waveform=waveform)

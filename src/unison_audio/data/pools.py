"""Pools of clips in memory, from which the tasks' builders draw, and what all pools share."""

import bisect
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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

_NANO_NOISES = (
    "wind blowing, rain, a flowing stream, fire burning, a machine running, hissing, thunder, "
    "rustling leaves, crickets chirping, a jet plane"
)

NOISY_LABELS = tuple(_NANO_NOISES.split(", "))
"""Nano's labels whose sounds serve as noise, beside synthetic noise."""

LABEL_AS_CAPTION = 0.6
"""Probability that a sound is described by its label instead of its own caption."""

MARGIN_SECONDS = 0.001
"""Subtracted from the longest length of a slowed utterance, since resampling rounds lengths up."""


class MemoryPools:
    """Draws from a corpus in memory, with replacement; implements the builders' `Pools`.

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
        self.sample_rate, self.label_weights = sample_rate, label_weights
        # Sorted by length, so that the utterances within any length are the first ones.
        speech = sorted(
            (clip for clip in clips if clip.record.kind == "speech"),
            key=lambda clip: (len(clip.waveform), clip.record.key),
        )
        spoken = [clip for clip in speech if has_words(clip, max_words)]
        self.speech = {"speech": spoken, "speech_any": speech}
        # Pairs need the words of both clips: one is the prompt, the other the target.
        self.speakers = grouped(spoken, lambda clip: clip.record.speaker)
        self.speakers.pop("", None)  # two clips of unknown speakers are no pair
        sounds = [clip for clip in clips if clip.record.kind == "sound"]
        self.by_label = grouped(sounds, lambda clip: label_of(clip.record))
        self.labels = sorted(self.by_label)
        if not speech and not sounds:
            raise InputError("There is neither speech nor sound among the clips; build them again.")

    def draw(
        self, kind: ClipKind, count: int, where: ClipLimits, generator: torch.Generator
    ) -> list[Clip]:
        """Draws clips as `Pools.draw` does."""
        if kind == "noise":
            noisy = [label for label in NOISY_LABELS if label in self.by_label]
            recorded = {label: self.by_label[label] for label in noisy}
            return draw_noise(count, where.max_seconds, self.sample_rate, recorded, generator)
        if kind == "sound":
            labels = (self.draw_label(where.excluded(item), generator) for item in range(count))
            sounds = (choose(self.by_label[label], generator) for label in labels)
            return [described(sound, generator) for sound in sounds]
        samples = int(where.max_seconds * self.sample_rate)
        if kind == "speaker_pair":
            return self._draw_pairs(count, samples, generator)
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

    def _draw_pairs(self, count: int, samples: int, generator: torch.Generator) -> list[Clip]:
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
        for name in map(names.__getitem__, chosen.tolist()):
            two = torch.randperm(sizes[name], generator=generator)[:2].tolist()
            pairs += [self.speakers[name][place] for place in two]
        return pairs


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
        low, high = (math.log(speed) for speed in self.speed)
        each = 2 if kind == "speaker_pair" else 1
        varied = []
        for place, clip in enumerate(clips):
            if place % each == 0:
                speed = math.exp(low + (high - low) * float(torch.rand((), generator=generator)))
            rate = round(speed * self.sample_rate)
            waveform = resample(clip.waveform, rate, self.sample_rate)
            varied.append(Clip(record=clip.record, waveform=waveform))
        return varied


def draw_noise(
    count: int,
    seconds: float,
    sample_rate: int,
    recorded: Mapping[str, Sequence[Clip]],
    generator: torch.Generator,
) -> list[Clip]:
    """Draws noise: half of it colored and `seconds` long, half from `recorded`, label by label.

    All of it is colored where no label has recordings.
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


def described(clip: Clip, generator: torch.Generator) -> Clip:
    """A sound with its label; its caption is the label or its own caption, drawn at random."""
    label = label_of(clip.record)
    by_label = bool(torch.rand((), generator=generator) < LABEL_AS_CAPTION)
    caption = label if by_label else plain_caption(clip.record.caption) or label
    record = dataclasses.replace(clip.record, label=label, caption=caption)
    return Clip(record=record, waveform=clip.waveform)


def choose(items: Sequence[T], generator: torch.Generator) -> T:
    """Draws one of several items."""
    return items[int(torch.randint(len(items), (1,), generator=generator))]


def has_words(clip: Clip, most: int | None) -> bool:
    """Whether the words of a clip are known and not too many."""
    words = clip.record.text
    return bool(words) and (most is None or len(words.split()) <= most)


def _within(pool: Sequence[Clip], samples: int) -> int:
    """Number of utterances of at most `samples` samples, the first ones of a sorted pool."""
    return bisect.bisect_right(pool, samples, key=lambda clip: len(clip.waveform))


def grouped(items: Iterable[T], name: Callable[[T], str]) -> dict[str, list[T]]:
    """Groups items by a name, in the order in which the names come."""
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(name(item), []).append(item)
    return groups

"""Pools whose sounds and voices are played faster or slower: more takes and voices of a few."""

import dataclasses
import math
from typing import TypeVar

import torch

from unison_audio.audio import resample
from unison_audio.errors import InputError
from unison_audio.tasks.pools import Pools, SoundClip, SpeechClip

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

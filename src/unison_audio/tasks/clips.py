"""What scenes are made from: clips of speech and of sound, and the pools that give them."""

import dataclasses
from typing import Protocol

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechClip:
    """An utterance."""

    waveform: Tensor
    """(samples,) at the pools' sample rate."""

    text: str
    """The words; may be empty where `Pools.speech_any` gave it."""

    gender: str
    """"male", "female", or empty where nobody said."""

    speaker: str
    """Who speaks; equal for equal voices."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundClip:
    """A sound without speech."""

    waveform: Tensor
    """(samples,) at the pools' sample rate."""

    label: str
    """The event as a noun phrase that can be added or removed, "a dog barking"."""

    caption: str
    """What is heard; the label, or a sentence."""


class Pools(Protocol):
    """Where raw clips come from; every draw is made with the generator given."""

    def speech(
        self, count: int, generator: torch.Generator, *, max_seconds: float
    ) -> list[SpeechClip]:
        """Utterances with their words, no longer than `max_seconds`."""

    def speech_any(
        self, count: int, generator: torch.Generator, *, max_seconds: float
    ) -> list[SpeechClip]:
        """Utterances whose words may be unknown."""

    def speaker_pairs(
        self, count: int, generator: torch.Generator, *, max_seconds_each: float
    ) -> list[tuple[SpeechClip, SpeechClip]]:
        """Two different utterances of one speaker."""

    def sounds(
        self,
        count: int,
        generator: torch.Generator,
        *,
        exclude_labels: list[set[str]] | None = None,
        max_seconds: float,
    ) -> list[SoundClip]:
        """Sounds; item i has a label outside `exclude_labels[i]`."""

    def noise(self, count: int, generator: torch.Generator, seconds: float) -> list[Tensor]:
        """Background noise of about that length."""

"""What scenes are made from: the pools that give clips of speech and of sound."""

import dataclasses
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Literal, Protocol

import torch

from unison_audio.data.records import Clip

ClipKind = Literal["speech", "speech_any", "speaker_pair", "sound", "noise"]
"""``speech`` has its text, ``speech_any`` may have none. ``speaker_pair`` gives two different
utterances of one speaker, with their texts. ``sound`` is an event without speech. ``noise`` is
background noise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipLimits:
    """Which clips a builder can use."""

    max_seconds: float
    """Longest utterance, each of a pair's; the length of noise. Longer sounds may come too: the
    builder crops them, so that long recordings are not lost to short scenes."""

    exclude_labels: Sequence[AbstractSet[str]] = ()
    """Per item, the labels that its sound must not have; no limit if empty."""

    def excluded(self, item: int) -> AbstractSet[str]:
        """The labels that one item's sound must not have."""
        return self.exclude_labels[item] if self.exclude_labels else frozenset()


class Pools(Protocol):
    """Where raw clips come from; every draw is made with the generator given."""

    def draw(
        self, kind: ClipKind, count: int, where: ClipLimits, generator: torch.Generator
    ) -> list[Clip]:
        """Draws clips of a kind.

        The record of a sound has a label, and as its caption the text that describes it here. A
        ``speaker_pair`` gives 2 * count clips: each reference is followed by its target.
        """

"""Segments that the nano codec is trained on: speech, sounds and mixtures."""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from unison_audio.data.records import Clip
from unison_audio.training.checkpoints import step_generator


def draw_segments(
    speech: Sequence[Tensor],
    sounds: Sequence[Tensor],
    batch: int,
    samples: int,
    generator: torch.Generator,
) -> Tensor:
    """Draws training segments: speech, sounds and mixtures at random levels and offsets.

    Args:
        speech: Waveforms (samples,).
        sounds: Waveforms (samples,).
        batch: Number of segments.
        samples: Length of a segment.
        generator: Source of randomness.

    Returns:
        Segments (batch, samples) within +-1.
    """
    kinds = torch.rand(batch, generator=generator)
    levels = 10 ** ((torch.rand(batch, generator=generator) * 16 - 12) / 20)
    segments = torch.zeros(batch, samples)
    for i in range(batch):
        pools = [speech] if kinds[i] < 0.5 else [sounds] if kinds[i] < 0.8 else [speech, sounds]
        for pool in pools:
            clip = pool[int(torch.randint(len(pool), (1,), generator=generator))]
            _place(segments[i], clip, generator)
        segments[i] *= levels[i]
    return segments * (0.99 / segments.abs().amax(dim=1, keepdim=True).clamp(min=0.99))


def _place(segment: Tensor, clip: Tensor, generator: torch.Generator) -> None:
    """Adds a clip to a segment in place, at an offset that keeps half of the shorter one."""
    overlap = min(len(segment), len(clip)) // 2
    lowest, highest = overlap - len(clip), len(segment) - overlap
    start = int(torch.randint(lowest, highest + 1, (1,), generator=generator))
    begin, end = max(0, start), min(len(segment), start + len(clip))
    segment[begin:end] += clip[begin - start : end - start]


@dataclass(frozen=True, kw_only=True)
class SegmentBatch:
    """A batch of training segments."""

    waveforms: Tensor
    """(B, samples)."""
    seconds: Mapping[str, float]
    """Time that the batch took to make."""


class SegmentStream(IterableDataset[SegmentBatch]):
    """The codec's batches, each from a generator of its own step.

    Args:
        clips: Training clips, speech and sounds.
        batch: Segments in a batch.
        samples: Length of a segment.
        seed: Seed of the batches.
    """

    def __init__(self, clips: Sequence[Clip], batch: int, samples: int, seed: int) -> None:
        self.batch, self.samples, self.seed, self.first = batch, samples, seed, 0
        self.speech = [clip.waveform for clip in clips if clip.record.kind == "speech"]
        self.sounds = [clip.waveform for clip in clips if clip.record.kind == "sound"]

    def draw(self, batch: int, samples: int, generator: torch.Generator) -> Tensor:
        """Draws segments, (batch, samples)."""
        return draw_segments(self.speech, self.sounds, batch, samples, generator)

    def __iter__(self) -> Iterator[SegmentBatch]:
        """Draws the batches from step `first` on."""
        for step in itertools.count(self.first):
            began = time.perf_counter()
            waveforms = self.draw(self.batch, self.samples, step_generator(self.seed, step))
            seconds = {"segments": time.perf_counter() - began}
            yield SegmentBatch(waveforms=waveforms, seconds=seconds)

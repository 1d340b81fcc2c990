"""What the released weights saw of a recording: its level, its length, its dither.

A checkpoint's config says which of the three apply. Without them nothing is changed here.
Generation, evaluation, training, validation and fine-tuning all come here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from unison_audio import audio
from unison_audio.audio_files import SILENCE_RMS
from unison_audio.codecs.table import AudioCodec
from unison_audio.errors import InputError
from unison_audio.tasks.table import TASKS, Task, TaskBatch
from unison_audio.variants import Variant

DITHER_SEED = 0x5EED_D17E
"""Added to an item's seed, so that its dither is not the noise that its sampling starts from."""


TARGET_SEED = 0x9E37_79B9
"""Added for a target, whose dither is not that of its source. It is below 2^32: torch's generator
on the CPU reads the lower 32 bits of a seed alone."""


def sampled_frames(variant: Variant, codec: AudioCodec, samples: int) -> int:
    """Latent frames T' that are sampled for a sound of a length.

    Args:
        variant: What samples.
        codec: The variant's codec.
        samples: Length of the sound.

    Returns:
        The frames of the one length that the weights know, else those of the sound.
    """
    return codec.frames(variant.sample_seconds or samples / variant.sample_rate)


def source_gain(variant: Variant, task: Task, waveform: Tensor, peak_limit: float) -> float:
    """Factor that brings a source to the level of the weights' training.

    Args:
        variant: What reads the source.
        task: What is done to it.
        waveform: (samples,), not silent.
        peak_limit: Highest peak where the task's own level applies. The release has no such limit:
            its mel front end clamps.
    """
    level, peak = float(audio.rms(waveform)), float(waveform.abs().max())
    return leveling_gain(variant, task, level, peak_limit / peak)


def leveling_gain(variant: Variant, task: Task, level: float, most: float) -> float:
    """Factor that brings a sound of an RMS to the level of the weights' training.

    Args:
        variant: What reads the sound.
        task: What is done to it.
        level: Its RMS.
        most: Largest factor where the task's own level applies.
    """
    if variant.source_rms:
        return variant.source_rms / level
    return min(task.source_rms / level, most)


def to_length(variant: Variant, source: Tensor) -> Tensor:
    """Pads a source with zeros to the one length that the weights know.

    Args:
        variant: What reads the source.
        source: (..., samples).

    Returns:
        (..., samples of that length), or the source itself where any length will do.

    Raises:
        InputError: If the source is longer.
    """
    if not variant.sample_seconds:
        return source
    length, given = round(variant.sample_seconds * variant.sample_rate), source.shape[-1]
    if given > length:
        raise InputError(
            f"The source is {given / variant.sample_rate:.2f} s long where {variant.name} takes at "
            f"most {variant.sample_seconds} s; cut it to that."
        )
    return torch.nn.functional.pad(source, (0, length - given))


def dithered(variant: Variant, source: Tensor, seeds: Sequence[int]) -> Tensor:
    """Replaces samples near digital silence by noise, as in the weights' training.

    The log-mel of digital silence lies at the floor of the logarithm, a tenth of what the release
    ever shows its codec. The noise is drawn on the CPU, one item at a time, so that it depends on
    the item's seed alone.

    Args:
        variant: What reads the source.
        source: (B, samples), at the model's level and length.
        seeds: B seeds.

    Returns:
        (B, samples).
    """
    if not variant.dither:
        return source
    rows = []
    for row, seed in zip(source, seeds, strict=True):
        generator = torch.Generator().manual_seed((seed + DITHER_SEED) % (1 << 63))
        noise = variant.dither * torch.randn(row.shape, generator=generator)
        rows.append(torch.where(row.abs() < variant.dither, noise.to(row.device), row))
    return torch.stack(rows)


def batch_source(
    variant: Variant, task: Task, source: Tensor, seeds: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Brings the sources of a built batch to what the weights saw.

    Args:
        variant: What reads the sources.
        task: The batch's task.
        source: (B, samples); references followed by zeros are at their level already.
        seeds: B seeds.

    Returns:
        What is to be encoded (B, samples'), and the gains (B, 1) that the results are divided by.
    """
    gains = _gains(variant, task, source)
    return dithered(variant, to_length(variant, source * gains), seeds), gains


def training_waveforms(
    variant: Variant, batch: TaskBatch, seed: int
) -> tuple[Tensor | None, Tensor]:
    """Brings a batch to train on to what generation gives the model.

    A target has the gain of its source, since generation divides the result by that gain, and it is
    padded as its source is. A shorter target thus ends in silence, which generation crops off.

    Args:
        variant: What is trained.
        batch: The built batch.
        seed: Seed of the dither of its first item.

    Returns:
        Source (B, samples'), None without one, and target (B, samples').
    """
    seeds = [seed + row for row in range(len(batch.target))]
    source, target = batch.source, batch.target
    if source is not None:
        if not batch.leveled:
            gains = _gains(variant, TASKS[batch.task], source)
            source, target = source * gains, target * gains
        source = dithered(variant, to_length(variant, source), seeds)
    beside = [one + TARGET_SEED for one in seeds]
    return source, dithered(variant, to_length(variant, target), beside)


def _gains(variant: Variant, task: Task, source: Tensor) -> Tensor:
    """Factors (B, 1) that bring sources (B, samples) to the level of the weights' training."""
    gains = torch.ones(source.shape[0], 1, device=source.device)
    if variant.source_rms and "source" in task.needs:
        levels = audio.rms(source)[:, None]
        gains = torch.where(levels > SILENCE_RMS, variant.source_rms / levels, gains)
    return gains

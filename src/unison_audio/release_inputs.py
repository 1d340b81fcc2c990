"""What the released weights saw of a recording: its level, its length, its dither.

A checkpoint's config says which of the three apply. Without them nothing is changed here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from unison_audio import audio
from unison_audio.audio_files import SILENCE_RMS
from unison_audio.codecs.table import AudioCodec
from unison_audio.errors import InputError
from unison_audio.tasks.table import Task
from unison_audio.variants import Variant

DITHER_SEED = 0x5EED_D17E
"""Added to an item's seed, so that its dither is not the noise that its sampling starts from."""


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
    if variant.source_rms:
        return variant.source_rms / level
    return min(task.source_rms / level, peak_limit / peak)


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
        source: (B, samples), on the CPU, at the model's level and length.
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
        rows.append(torch.where(row.abs() < variant.dither, noise, row))
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
    gains = torch.ones(source.shape[0], 1)
    if variant.source_rms and "source" in task.needs:
        levels = audio.rms(source)[:, None]
        gains = torch.where(levels > SILENCE_RMS, variant.source_rms / levels, gains)
    return dithered(variant, to_length(variant, source * gains), seeds), gains

"""Preserves the parts of an edit's source that the model left alone.

A codec with few numbers per second loses the fine structure of a recording, so that an edit of its
latents alters everything a little. But the codec alters equal sounds equally in source and result.
So the decoded result is compared with the decoded source, time-frequency bin by bin. The difference
is what the model changed, and only that change is applied to the recording itself.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.spectrogram import istft, stft

N_FFT = 1024

HOP = N_FFT // 4

SMOOTHED = 3
"""Neighboring bins, and frames, over which powers are averaged."""

SILENT_POWER = 1e-9
"""Power below which a bin is silent; a full-scale sine has about 6e4."""

MIN_FALL = 10 ** (-4 / 10)
"""A fall of power by up to 4 dB counts as the codec's noise; larger falls are reduced by 4 dB."""

MIN_RISE = 10 ** (6 / 10)
"""A rise of power by up to 6 dB counts as noise of codec and model: when an edit adds a sound, the
model repeats everything else inexactly."""

RESULT_BLEND_DB = (5.0, 10.0)
"""Falls of power, from and to, between which the recording fades to the decoded result, where an
edit removes speech. Attenuation alone leaves softer speech, and listeners understand words from
very little of it. Removed sounds need no such fade; it would only bring in the codec's errors."""


def preserve_source(
    source: Tensor,
    decoded_source: Tensor,
    result: Tensor,
    *,
    adds: bool,
    removes: bool,
    clears_speech: bool = False,
) -> Tensor:
    """Apply to a recording the change that an edit made to its copy in the codec.

    Let P' be the power of the decoded source and P that of the decoded result, both averaged over
    neighboring bins. An edit that removes something multiplies the recording by
    `min(1, sqrt(P / (P' MIN_FALL)))`. If it removes speech, the recording fades to the result where
    the fall `P' / P` is deep (`RESULT_BLEND_DB`). An edit that adds something mixes in the result
    with the weight `sqrt(max(0, 1 - P' MIN_RISE / P))`. Bins that the model changed little stay as
    recorded, and an edit that only adds keeps all of the recording.

    Args:
        source: (B, samples), the recording.
        decoded_source: (B, samples), the recording after encoding and decoding.
        result: (B, samples), the edit as the codec decodes it.
        adds: Whether the edit adds something.
        removes: Whether the edit removes something.
        clears_speech: Whether that is speech, or noise around speech.

    Returns:
        Waveforms, (B, samples).

    Raises:
        InputError: If the shapes differ.
    """
    if not source.shape == decoded_source.shape == result.shape:
        raise InputError(
            f"The source has the shape {tuple(source.shape)}, its copy "
            f"{tuple(decoded_source.shape)} and the result {tuple(result.shape)}; they must be "
            "equal."
        )
    own, before, after = (
        stft(wave, N_FFT, HOP, padding="zeros") for wave in (source, decoded_source, result)
    )
    power_before, power_after = (
        _smooth(bins.abs().square()) + SILENT_POWER for bins in (before, after)
    )  # (B, bins, T)
    edited = own
    if removes:
        edited = own * (power_after / (power_before * MIN_FALL)).clamp(max=1).sqrt()
    if clears_speech:
        low, high = RESULT_BLEND_DB
        fall_db = 10 * (power_before / power_after).log10()
        blend = ((fall_db - low) / (high - low)).clamp(0, 1)
        edited = torch.lerp(edited, after, blend.to(edited.dtype))
    if adds:
        edited = edited + after * (1 - power_before * MIN_RISE / power_after).clamp_min(0).sqrt()
    return istft(edited, HOP, source.shape[1])


def limit_fall(source: Tensor, result: Tensor, most_db: float) -> Tensor:
    """Lower a recording where the result of an edit is lower, by a bounded amount.

    A separation that errs takes words away with the noise; lowered words are still understood.

    Args:
        source: (B, samples), the recording.
        result: (B, samples), the edited recording.
        most_db: Most decibels by which a bin falls.

    Returns:
        Waveforms, (B, samples).
    """
    own, after = (stft(wave, N_FFT, HOP, padding="zeros") for wave in (source, result))
    power_own, power_after = (_smooth(x.abs().square()) + SILENT_POWER for x in (own, after))
    gain = (power_after / power_own).sqrt().clamp(10 ** (-most_db / 20), 1)
    return istft(own * gain, HOP, source.shape[1])


def _smooth(power: Tensor) -> Tensor:
    return F.avg_pool2d(
        power[:, None], SMOOTHED, 1, SMOOTHED // 2, count_include_pad=False
    ).squeeze(1)

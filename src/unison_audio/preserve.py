"""Keeps of an edit's source what the model left alone, by a filter between source and result.

A codec of few numbers a second does not give back the fine structure of a recording, so that an
edit made in its latents alters everything a little. But the codec alters alike what is alike in
source and result: comparing the decoded result with the decoded source, bin by bin, tells what
the model changed, and only that is done to the recording itself.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.spectrogram import istft, stft

N_FFT = 1024

HOP = N_FFT // 4

SMOOTHED = 3
"""Neighbouring bins, and frames, over which powers are averaged."""

FLOOR = 1e-9
"""Power below which a bin is silent; a full-scale sine has about 6e4."""

LEAST_FALL = 10 ** (-4 / 10)
"""A power that falls less than this, by 4 dB, is taken for the codec's noise, and what falls more
falls by so much less."""

LEAST_RISE = 10 ** (6 / 10)
"""Likewise of what rises, 6 dB: in all that an edit adds, the model repeats the rest inexactly."""

RENEWED_DB = (5.0, 10.0)
"""Where a power falls by so much, from and to, because speech goes, the recording gives way to the
result: what would be left of it there is the speech, only softer, and words are made out in little.
Of sounds that go nothing is: there it would only bring in the codec."""


def keep_source(
    source: Tensor,
    source_again: Tensor,
    result: Tensor,
    *,
    adds: bool,
    removes: bool,
    clears_speech: bool = False,
) -> Tensor:
    """Does to a recording what an edit did to its copy in the codec.

    With the powers P' of the source and P of the result, both decoded and averaged over
    neighbours, the recording is multiplied by `min(1, sqrt(P / (P' LEAST_FALL)))` in edits that
    take something away; if that is speech, it gives way to the result where the fall `P' / P` is
    deep (`RENEWED_DB`; between the two figures they are mixed in proportion to the decibels). In
    edits that add something the result joins the recording with the weight
    `sqrt(max(0, 1 - P' LEAST_RISE / P))`. Where the model changed little the recording stays as it
    is, and an edit that only adds leaves all of it there.

    Args:
        source: (B, samples), the recording.
        source_again: (B, samples), the recording through the codec.
        result: (B, samples), the edit as the codec decodes it.
        adds: Whether the edit brings in something new.
        removes: Whether the edit takes something away.
        clears_speech: Whether that is speech, or noise around speech.

    Returns:
        (B, samples).

    Raises:
        InputError: If the shapes differ.
    """
    if not source.shape == source_again.shape == result.shape:
        raise InputError(
            f"The source has the shape {tuple(source.shape)}, its copy "
            f"{tuple(source_again.shape)} and the result {tuple(result.shape)}; they must be equal."
        )
    own, before, after = (
        stft(wave, N_FFT, HOP, padding="zeros") for wave in (source, source_again, result)
    )
    was, now = (_smooth(bins.abs().square()) + FLOOR for bins in (before, after))  # (B, bins, T)
    edited = own
    if removes:
        edited = own * (now / (was * LEAST_FALL)).clamp(max=1).sqrt()
    if clears_speech:
        low, high = RENEWED_DB
        renewed = ((10 * (was / now).log10() - low) / (high - low)).clamp(0, 1)
        edited = torch.lerp(edited, after, renewed.to(edited.dtype))
    if adds:
        edited = edited + after * (1 - was * LEAST_RISE / now).clamp_min(0).sqrt()
    return istft(edited, HOP, source.shape[1])


def _smooth(power: Tensor) -> Tensor:
    return F.avg_pool2d(
        power[:, None], SMOOTHED, 1, SMOOTHED // 2, count_include_pad=False
    ).squeeze(1)

"""Waveforms through a codec, for the benchmarks that compare with what the codec alone costs."""

import torch
from torch import Tensor

from unison_audio.codecs.table import AudioCodec

CHUNK = 10
"""Waveforms in one batch."""


def round_trip(codec: AudioCodec, waveform: Tensor) -> Tensor:
    """Passes waveforms (B, samples) through a codec."""
    parts = [codec.decode(codec.encode(part)).cpu() for part in waveform.split(CHUNK)]
    return torch.cat(parts)[:, : waveform.shape[1]]

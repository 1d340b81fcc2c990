"""Reference recordings for zero-shot speech."""

import torch
from torch import Tensor

from unison_audio import audio


def prepare_reference(
    waveform: Tensor,
    sample_rate: int,
    *,
    max_seconds: float = 3.0,
    search_seconds: float = 0.5,
    threshold_db: float = -40.0,
    silence_seconds: float = 0.1,
    rms: float = 0.1,
) -> Tensor:
    """Make a recording the reference of zero-shot speech.

    It is mixed to mono and brought to an RMS; if it is longer than `max_seconds` it is cut there,
    or at the last silence within the `search_seconds` before; then silence is appended. The
    caller compares lengths to tell the user of a cut.

    Args:
        waveform: (samples,) or (channels, samples).
        sample_rate: Samples per second.
        max_seconds: The longest reference, without the silence.
        search_seconds: How far before that a silence is looked for.
        threshold_db: Frames of 10 ms below this level, in dB of full scale after the RMS is set,
            are silence.
        silence_seconds: Silence appended.
        rms: The RMS of the reference.

    Returns:
        (samples',).

    Raises:
        InputError: The recording is silent.
    """
    mono = waveform.mean(dim=0) if waveform.ndim == 2 else waveform
    audio.require_sound(mono, "The reference")
    mono = audio.normalize_rms(mono, rms)
    limit = round(max_seconds * sample_rate)
    if mono.shape[0] > limit:
        frame = max(1, round(0.01 * sample_rate))
        first = max(0, limit - round(search_seconds * sample_rate))
        quiet = torch.nonzero(audio.frame_levels(mono[first:limit], frame) < threshold_db)
        end = min(limit, first + (int(quiet[-1]) + 1) * frame) if len(quiet) else limit
        mono = audio.fade(audio.normalize_rms(mono[:end], rms), 0, frame)
    silence = mono.new_zeros(round(silence_seconds * sample_rate))
    return torch.cat([mono, silence])


def frame_edge(samples: int, hop: int) -> int:
    """The first edge of a latent frame at or after a sample."""
    return -(-samples // hop) * hop

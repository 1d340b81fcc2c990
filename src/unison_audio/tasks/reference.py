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
    """Turn a recording into a reference for zero-shot speech.

    The recording is mixed to mono and scaled to an RMS. One longer than `max_seconds` is cut at the
    last silence within the `search_seconds` before, or at `max_seconds`. Silence is appended. The
    caller compares lengths to report a cut to the user. The defaults are those of the release.

    Args:
        waveform: (samples,) or (channels, samples).
        sample_rate: Samples per second.
        max_seconds: Longest reference, without the silence.
        search_seconds: Length of the search for a silence before that.
        threshold_db: Frames of 10 ms below this level are silence, in dB of full scale after the
            RMS is set.
        silence_seconds: Length of the appended silence.
        rms: RMS of the reference.

    Returns:
        (samples',).

    Raises:
        InputError: The recording is silent.
    """
    mono = waveform.mean(dim=0) if waveform.ndim == 2 else waveform
    audio.require_sound(mono, "The reference")
    mono = audio.normalize_rms(mono, rms)
    # The release's weights share 10 s between reference and new speech, so the reference is short.
    limit = round(max_seconds * sample_rate)
    if mono.shape[0] > limit:
        frame = max(1, round(0.01 * sample_rate))
        first = max(0, limit - round(search_seconds * sample_rate))
        # A cut inside a word would make the model finish that word before it speaks the new text.
        quiet = torch.nonzero(audio.frame_levels(mono[first:limit], frame) < threshold_db)
        end = min(limit, first + (int(quiet[-1]) + 1) * frame) if len(quiet) else limit
        # The part that is kept may be louder or quieter than the whole was.
        mono = audio.fade(audio.normalize_rms(mono[:end], rms), 0, frame)
    silence = mono.new_zeros(round(silence_seconds * sample_rate))
    return torch.cat([mono, silence])


def frame_edge(samples: int, hop: int) -> int:
    """Return the first boundary of a latent frame at or after a sample."""
    return -(-samples // hop) * hop

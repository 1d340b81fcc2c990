"""Whether a recording can serve as the reference of a voice, and what has to be said about it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from unison_audio import audio
from unison_audio.errors import InputError
from unison_audio.speech_activity import ACTIVE_DB, HOP, RATE, voiced_frames

LEAST_SECONDS = 0.1
"""A shorter reference holds no voice."""

ENOUGH_SECONDS = 1.0
"""Voiced sound from which a voice is followed; references of training have as much."""

QUIET_DB = -55.0
"""Level below which a recording's noise is raised until it is heard."""

HEAD_SECONDS = 0.5
"""Longest beginning without a voice that needs no word; breath and consonants are shorter."""

MAX_LETTERS_PER_SECOND = {False: 28.0, True: 9.0}
"""More than anybody says; Chinese (True) has a syllable a character."""

VOICE, _RUN = 0.6, 4
"""Pitch strength, and frames in a row, that a voice begins with."""


class ReferenceWarning(UserWarning):
    """A reference from which the voice cannot be learned well."""


def require_voice(waveform: Tensor, sample_rate: int) -> None:
    """Refuse a reference that is too short to hold a voice.

    Args:
        waveform: (samples,), without the silence at its ends.
        sample_rate: Samples per second.

    Raises:
        InputError: It lasts less than `LEAST_SECONDS`.
    """
    seconds = len(waveform) / sample_rate
    if seconds < LEAST_SECONDS:
        raise InputError(
            f"The reference holds {1000 * seconds:.0f} ms of sound, too little for a voice; give "
            f"at least {ENOUGH_SECONDS:.0f} s of speech."
        )


def reference_notes(waveform: Tensor, sample_rate: int, text: str) -> list[str]:
    """What has to be said about a reference.

    Args:
        waveform: (samples,), the part that is used, without the silence at its ends, at the
            recording's own level.
        sample_rate: Samples per second.
        text: The words of the reference.

    Returns:
        One sentence for each finding.
    """
    notes = []
    level = float(20 * audio.rms(waveform).clamp_min(1e-9).log10())
    if level < QUIET_DB:
        notes.append(
            f"The reference is very quiet ({level:.0f} dB); its noise is raised with the voice. "
            "Give a louder recording."
        )
    voiced = _voice(waveform, sample_rate)
    seconds = float(voiced.sum()) * HOP / RATE
    runs = (
        torch.nonzero(voiced.unfold(0, _RUN, 1).all(dim=1)) if len(voiced) >= _RUN else voiced[:0]
    )
    head = float(runs[0]) * HOP / RATE if len(runs) else len(waveform) / sample_rate
    if seconds < ENOUGH_SECONDS / 2:
        # Half of fluent speech is voiced.
        notes.append(
            f"The reference holds only {seconds:.2f} s of voiced sound; give at least "
            f"{ENOUGH_SECONDS:.0f} s of speech, or the voice will differ."
        )
    elif head > HEAD_SECONDS:
        notes.append(
            f"The reference begins with {head:.2f} s in which no voice is heard; cut them off, or "
            "they take the place of the voice."
        )
    letters = sum(character.isalnum() for character in text)
    chinese = any("\u3400" <= character <= "\u9fff" for character in text)
    length = len(waveform) / sample_rate
    if letters > MAX_LETTERS_PER_SECOND[chinese] * length:
        notes.append(
            f"The reference text has {letters} letters, and {length:.2f} s of the reference are "
            "used: nobody speaks as fast. Give the words that are said there, and no more."
        )
    return notes


def _voice(waveform: Tensor, sample_rate: int) -> Tensor:
    """Frames with a pitch, (frames,), without what an offset of the recording would add."""
    low = audio.resample(waveform, sample_rate, RATE)
    window = 2 * (RATE // 60) + 1  # two periods of the lowest pitch pass
    drift = F.avg_pool1d(low[None, None], window, 1, window // 2, count_include_pad=False).flatten()
    low = low - drift
    strength, _ = voiced_frames(low, RATE)
    levels = audio.frame_levels(low, HOP)[: len(strength)]
    return (strength[: len(levels)] > VOICE) & (levels > levels.max() - ACTIVE_DB)

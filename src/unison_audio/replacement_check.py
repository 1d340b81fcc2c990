"""What a replacement did to its source, measured afterwards.

The result holds what is left of the source and the new sound, so a level says nothing by itself.
What is left is the part of each time-frequency bin that is in phase with the source.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from unison_audio.audio import level_db
from unison_audio.edit_check import SPEECH_IN_SOURCE, UNCHANGED_DB, lost_speech
from unison_audio.spectrogram import istft, stft
from unison_audio.speech_activity import speech_probability
from unison_audio.tasks.table import Task

N_FFT, HOP = 1024, 256

SMOOTHED = 3
"""Neighboring bins, and frames, over which products and powers are averaged."""

# Fitted to 40 replacements in two sounds, 40 in one, and 40 in speech with a sound, and measured
# over 30 others of each kind (`benchmarks/named_edits.py`): of 21 in two sounds that left the old
# one, 10 are named; of 25 that lost the speech, 21. All of these warnings are right, and of 90
# replacements without speech one is said to have lost it.
LITTLE_DB = -1.5
"""Level of what is left of a source, from which the old sound is still there, unless it was more
than 4 dB below the rest. Not said of a source with speech, which a sound usually lies further
below."""

LOST_DB = (3.0, 5.0)
"""Falls of what is left of a source from which its speech counts as removed: where speech was
likely there, and where a sound covered it."""


@dataclass(frozen=True, kw_only=True)
class ReplacementOutcome:
    """Source and result of one replacement, compared."""

    change_db: float
    """Level of the difference, relative to the source."""
    kept_db: float
    """Level of what is left of the source, relative to it."""
    source_speech: float
    """Probability that there is speech in the source."""
    removed_speech: float
    """Probability that there is speech in what was taken away."""

    @property
    def speech_removed(self) -> bool:
        """Whether speech went with the old sound, or in its place."""
        return lost_speech(self.source_speech, self.removed_speech, -self.kept_db, LOST_DB)


def compare_replacement(source: Tensor, result: Tensor, sample_rate: int) -> ReplacementOutcome:
    """Compare the result of a replacement with its source.

    Args:
        source: (samples,).
        result: (samples',), at the source's level.
        sample_rate: Samples per second of both.
    """
    length = len(source)
    after = F.pad(result[:length], (0, max(0, length - len(result))))
    before, now = (stft(wave, N_FFT, HOP, padding="zeros") for wave in (source, after))  # (bins, T)
    power = before.abs().square()
    # Averaged, since the phase of one bin alone agrees by chance.
    in_phase = _smooth((before.conj() * now).real) / _smooth(power).clamp_min(1e-12)
    left = istft(in_phase.clamp(0, 1) * before, HOP, length)
    change_db = level_db(after - source, source)
    return ReplacementOutcome(
        change_db=change_db,
        kept_db=level_db(left, source),
        source_speech=speech_probability(source, sample_rate),
        removed_speech=(
            0.0 if change_db < UNCHANGED_DB else speech_probability(source - left, sample_rate)
        ),
    )


def replacement_notes(task: Task, instruction: str, outcome: ReplacementOutcome) -> list[str]:
    """What has to be said about the replacement of a sound, by another one or by a voice.

    Args:
        task: The task; others than such replacements give nothing.
        instruction: The instruction as the user wrote it.
        outcome: What the edit did.

    Returns:
        One sentence, or none.
    """
    if not replaces(task):
        return []
    if task.group == "add_speech":
        return _voice_notes(instruction, outcome)
    if outcome.change_db < UNCHANGED_DB:
        return [
            f"Nothing was found that fits {instruction!r}: the recording stays as it was (the "
            f"change lies {-outcome.change_db:.0f} dB below it)."
        ]
    if outcome.speech_removed:
        return [
            f"The speech was removed as well by {instruction!r}: of the recording, what is left "
            f"lies {-outcome.kept_db:.0f} dB lower, and what went sounds like speech. To keep the "
            "speech, add the new sound alone: [Edit][Audio] Add ..."
        ]
    if outcome.kept_db >= LITTLE_DB and outcome.source_speech < SPEECH_IN_SOURCE:
        return [
            f"Little was taken away by {instruction!r}: the recording fell by no more than "
            f"{max(0.0, -outcome.kept_db):.1f} dB under what was added. The old sound is still "
            "there, unless it was faint."
        ]
    return []


def replaces(task: Task) -> bool:
    """Whether a task puts a sound or a voice in the place of a sound."""
    return task.group in ("add", "add_speech") and task.removes and not task.clears_speech


def _voice_notes(instruction: str, outcome: ReplacementOutcome) -> list[str]:
    """What is said where a voice takes a sound's place in a source with speech of its own.

    Of 15 mixes of nano's speech and one of its sounds, nano took the speech from all; 14 are named
    as lost and one as having speech. Of the 15 sounds alone, three calls of animals are named.
    """
    keep = (
        "To keep it, make two edits of this one: remove the sound with [Edit][Audio] Remove ..., "
        "then add the voice with [Edit][Speech] Add ..."
    )
    if outcome.speech_removed:
        return [
            f"The speech in the source was removed as well by {instruction!r}: what went sounds "
            f"like speech. {keep}"
        ]
    if outcome.source_speech >= SPEECH_IN_SOURCE:
        return [
            f"The source seems to hold speech, which {instruction!r} may have taken away with the "
            f"sound. {keep}"
        ]
    return []


def _smooth(bins: Tensor) -> Tensor:
    return F.avg_pool2d(bins[None, None], SMOOTHED, 1, SMOOTHED // 2)[0, 0]

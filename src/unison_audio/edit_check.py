"""What an edit did to its source, measured afterwards, and said where it is not what was asked.

A model that cannot find the named sound takes away what is easiest to move, which is speech. The
checks compare source and result by level and by `speech_activity`; they change nothing.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from unison_audio.audio import level_db, rms
from unison_audio.speech_activity import speech_probability
from unison_audio.tasks.table import Task

# Measured over 60 mixes of speech and a sound and 60 of two sounds (`benchmarks/named_edits.py`):
# of the edits that lost words these thresholds name 47 of 48, of the others 2 in 60.
SPEECH_IN_SOURCE, SPEECH_IN_REMOVED, LEAST_FALL_DB = 0.3, 0.5, 1.5
"""Speech counts as removed where it was likely there, what went sounds like it, and the level fell
by so much."""

COVERED_SPEECH, SURELY_SPEECH, SURE_FALL_DB = 0.05, 0.8, 5.0
"""The same for a source whose speech is covered: what went sounds like speech and was most of it.
"""

UNCHANGED_DB = -25.0
"""Level of the change relative to the source, below which it is inaudible."""

LITTLE_DB, STRETCH_SECONDS, AUDIBLE_DB = -6.0, 1.0, 20.0
"""Level of the change relative to the source, in the stretch that changed most, below which little
was taken away; stretches so far below the loudest one do not count. One of two equal sounds lies at
-3 dB. Of 80 absent sounds beside another one this names 21 of the 28 that no other rule names. Of
80 removals in two sounds it names 33 of the 55 that left the sound, and none of the 15 good ones.
"""

EMPTIED_DB = 12.0
"""Fall of the level from which nearly all of a recording is gone."""


class EditWarning(UserWarning):
    """An edit did something else than it was asked for."""


@dataclass(frozen=True, kw_only=True)
class EditOutcome:
    """Source and result of one edit, compared."""

    change_db: float
    """Level of the difference, relative to the source."""
    fall_db: float
    """Fall of the level."""
    most_change_db: float
    """Level of the difference in the stretch that changed most, relative to the source there."""
    source_speech: float
    """Probability that there is speech in the source."""
    removed_speech: float
    """Probability that there is speech in what was taken away."""

    @property
    def speech_removed(self) -> bool:
        """Whether speech went with the rest, or in its place."""
        return lost_speech(
            self.source_speech, self.removed_speech, self.fall_db, (LEAST_FALL_DB, SURE_FALL_DB)
        )


def lost_speech(source: float, removed: float, fall_db: float, least: tuple[float, float]) -> bool:
    """Whether an edit took the speech of its source.

    Args:
        source: Probability that there is speech in the source.
        removed: Probability that there is speech in what was taken away.
        fall_db: Fall of the level of what is left.
        least: Falls from which it counts: where speech was likely, and where it was covered.
    """
    likely = source >= SPEECH_IN_SOURCE and removed >= SPEECH_IN_REMOVED
    covered = source >= COVERED_SPEECH and removed >= SURELY_SPEECH
    return (likely and fall_db >= least[0]) or (covered and fall_db >= least[1])


def compare(source: Tensor, result: Tensor, sample_rate: int) -> EditOutcome:
    """Compare the result of a removal with its source.

    Args:
        source: (samples,).
        result: (samples',), at the source's level.
        sample_rate: Samples per second of both.
    """
    length = len(source)
    after = F.pad(result[:length], (0, max(0, length - len(result))))
    removed = source - after
    change_db = level_db(removed, source)
    return EditOutcome(
        change_db=change_db,
        fall_db=-level_db(after, source),
        most_change_db=_most_change_db(source, removed, sample_rate),
        source_speech=speech_probability(source, sample_rate),
        removed_speech=(
            0.0 if change_db < UNCHANGED_DB else speech_probability(removed, sample_rate)
        ),
    )


def removal_notes(task: Task, instruction: str, outcome: EditOutcome) -> list[str]:
    """What has to be said about the removal of a sound.

    Args:
        task: The task; others than removals of a sound give nothing.
        instruction: The instruction as the user wrote it.
        outcome: What the edit did.

    Returns:
        One sentence, or none.
    """
    if task.group != "remove" or task.clears_speech:
        return []
    if outcome.change_db < UNCHANGED_DB:
        return [
            f"Nothing was found that fits {instruction!r}: the recording stays as it was (the "
            f"change lies {-min(0.0, outcome.change_db):.0f} dB below it)."
        ]
    if outcome.speech_removed:
        return [
            f"The speech was removed as well by {instruction!r}: the level fell by "
            f"{outcome.fall_db:.0f} dB, and what went sounds like speech. To keep the speech and "
            "lower all the rest, write [Edit][Speech] Denoise the recording."
        ]
    if outcome.most_change_db < LITTLE_DB and outcome.source_speech < SPEECH_IN_SOURCE:
        return [
            f"Little was taken away by {instruction!r}: what went lies "
            f"{-outcome.change_db:.0f} dB below the recording. The named sound was not in it, or "
            "is still there, unless it was faint."
        ]
    if outcome.fall_db > EMPTIED_DB:
        return [
            f"Nearly all of the recording was removed by {instruction!r}: the level fell by "
            f"{outcome.fall_db:.0f} dB. If it holds more than the named sound, that sound was not "
            "told apart."
        ]
    return []


def _most_change_db(source: Tensor, removed: Tensor, sample_rate: int) -> float:
    """The greatest level of a change, over stretches of about `STRETCH_SECONDS`."""
    count = max(1, round(len(source) / (STRETCH_SECONDS * sample_rate)))
    parts = list(zip(source.chunk(count), removed.chunk(count), strict=True))
    least = max(float(rms(own)) for own, _ in parts) * 10 ** (-AUDIBLE_DB / 20)
    return max(level_db(gone, own) for own, gone in parts if float(rms(own)) >= least)

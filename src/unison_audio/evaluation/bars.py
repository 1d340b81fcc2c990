"""The bars that nano is measured against: which figure must reach, or may exceed, how much."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from unison_audio.evaluation.report import Row


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar; exactly one of the three is set."""

    at_least: float | None = None
    """What the value must reach."""
    above_truth: float | None = None
    """By how much the value may exceed the ground truth's."""
    at_most: float | None = None
    """What the value may not exceed."""


WORDS = "word error rate"
NEARER = "nearer to the target than the source"
NEARER_THROUGH_CODEC = "nearer to the target than the source through the codec"
GENDER = "gender"
CLASS = "asked class in the top 3"
ALL_CLASSES = "every asked class in the top 3"
ADDED = "added class in the top 3 of what is new"
HALF = "at least half of the words"
QUALITY_LOST = "DNSMOS lost"
OWN_VOICE = "voice nearest to its own reference"
CONTRAST = "dB of windows above pauses"
IN_WINDOW = "class in the top 3 in its window"
REMOVED = "removed speech"
SDR_GAIN = "dB of SI-SDR gained"
BOTH = "both halves"
REST = "distance where nothing is to change"
LEAK = "words of the reference that were not asked for"
SLOWEST = "computing per second of sound, the slowest task"
SIZE = "megabytes of weights in float16"

SEQUENCES = "sequences"
"""Stands for a task: `tts` of random sequences of words alone."""
EVERY_TASK = "every task"
"""Stands for a task in rows that are about all of them."""

FINAL: dict[tuple[str, str], Bar] = {
    ("codec", WORDS): Bar(above_truth=0.015),
    ("codec", QUALITY_LOST): Bar(above_truth=0.3),
    ("tts", WORDS): Bar(above_truth=0.05),
    (SEQUENCES, WORDS): Bar(above_truth=0.05),
    (SEQUENCES, GENDER): Bar(at_least=0.99),
    ("zero_shot_tts", WORDS): Bar(above_truth=0.08),
    ("zero_shot_tts", LEAK): Bar(above_truth=0.0),
    ("zero_shot_tts", OWN_VOICE): Bar(at_least=0.85),
    ("t2as", WORDS): Bar(above_truth=0.12),
    ("t2as", CLASS): Bar(at_least=0.8),
    ("t2a", CLASS): Bar(at_least=0.9),
    ("t2a_mix", ALL_CLASSES): Bar(at_least=0.7),
    ("timed", CONTRAST): Bar(at_least=10.0),
    ("timed", IN_WINDOW): Bar(at_least=0.75),
    ("edit_add", ADDED): Bar(at_least=0.85),
    ("edit_add", NEARER): Bar(at_least=0.95),
    ("edit_replace", ADDED): Bar(at_least=0.85),
    ("edit_replace", NEARER): Bar(at_least=0.95),
    ("edit_remove", NEARER): Bar(at_least=0.97),
    ("speech_delete", NEARER): Bar(at_least=0.97),
    ("speech_delete", REMOVED): Bar(at_least=0.95),
    ("denoise", NEARER): Bar(at_least=0.97),
    ("denoise", SDR_GAIN): Bar(at_least=6.0),
    ("speech_insert", WORDS): Bar(above_truth=0.1),
    ("speech_insert", NEARER): Bar(at_least=0.95),
    ("speech_rewrite", WORDS): Bar(above_truth=0.1),
    ("speech_rewrite", NEARER): Bar(at_least=0.95),
    ("audio_to_speech", BOTH): Bar(at_least=0.75),
    ("speech_to_audio", BOTH): Bar(at_least=0.75),
    (EVERY_TASK, SLOWEST): Bar(at_most=1.0),
    (EVERY_TASK, SIZE): Bar(at_most=40.0),
}
"""What nano is meant to reach."""


def with_bars(rows: Iterable[Row], bars: dict[tuple[str, str], Bar]) -> list[Row]:
    """Puts bars to the rows that have one, by task and measure."""
    return [
        dataclasses.replace(row, **dataclasses.asdict(bars.get((row.task, row.measure), Bar())))
        for row in rows
    ]


def verdict(rows: Iterable[Row], bars: dict[tuple[str, str], Bar]) -> str:
    """Says in a sentence which bars are met, and which are missed by which figures.

    Args:
        rows: What was measured, whatever bars it has.
        bars: The bars.
    """
    judged = [row for row in with_bars(rows, bars) if row.met is not None]
    missed = [
        f"{row.task}, {row.measure} ({row.show(row.value)}; {row.bar})"
        for row in judged
        if not row.met
    ]
    sentence = f"Of {len(judged)} bars measured, {len(judged) - len(missed)} are met"
    return f"{sentence}; missed: {'; '.join(missed)}." if missed else f"{sentence}."

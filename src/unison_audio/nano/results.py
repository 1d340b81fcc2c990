"""From the scores of nano's sets to the rows of its table."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from unison_audio.evaluation.metrics.measure import Score
from unison_audio.nano import bars
from unison_audio.nano.bars import BarRow
from unison_audio.nano.items import SEQUENCES
from unison_audio.nano.vocabulary import IsSentence

MODEL, TRUTH, CODEC, SOURCE = "unison", "ground-truth", "through-codec", "copy-source"
SOURCE_CODEC = "source-through-codec"
SYSTEMS = (MODEL, TRUTH, CODEC, SOURCE, SOURCE_CODEC)
"""The systems that nano's table compares."""


@dataclass(frozen=True, kw_only=True)
class SetScores:
    """The scores of one test set."""

    scores: Mapping[str, Mapping[str, Score]]
    """System -> metric -> score."""
    texts: Mapping[str, str]
    """Item id -> requested words."""

    def of(self, system: str, metric: str) -> Score | None:
        """A score; None where a system has no answers to the set."""
        return self.scores.get(system, {}).get(metric)


Figure = Callable[[SetScores, str], tuple[float, int] | None]
"""(Scores of a set, system) -> figure and number of items; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class FigureSpec:
    """One row of nano's table."""

    measure: str
    """What is measured, as the table says it."""
    metrics: tuple[str, ...]
    """Keys of `NANO_METRICS` that it needs."""
    figure: Figure
    """Computes the figure."""
    systems: tuple[tuple[str, str], ...] = (
        ("value", MODEL),
        ("truth", TRUTH),
        ("codec", CODEC),
        ("source", SOURCE),
    )
    """(Column, system)."""
    percent: bool = True
    """Whether it is a share, shown in percent."""
    model: str = ""
    """Name of the metric model; the first metric's if empty."""


def mean(values: Iterable[float]) -> float:
    """Mean; NaN of an empty list."""
    listed = list(values)
    return statistics.fmean(listed) if listed else math.nan


def plain(metric: str, measure: str, **options: Any) -> FigureSpec:
    """A metric's own figure."""

    def figure(of: SetScores, system: str) -> tuple[float, int] | None:
        score = of.of(system, metric)
        return None if score is None else (score.value, score.count)

    return FigureSpec(measure=measure, metrics=(metric,), figure=figure, **options)


def _part(metric: str, measure: str, sentences: bool, model: str) -> FigureSpec:
    """A metric over the sentences, or over the sequences, of a set that has both."""
    # Whisper and pocketsphinx each fail on the other's kind of text, so the mean over both kinds
    # hides which one was measured.
    is_sentence = IsSentence()

    def figure(of: SetScores, system: str) -> tuple[float, int] | None:
        score = of.of(system, metric)
        if score is None or score.per_item is None:
            return None
        chosen = [
            value
            for name, value in score.per_item.items()
            if is_sentence(of.texts[name]) == sentences
        ]
        # A set of one kind has this figure already, as the metric's own.
        return (mean(chosen), len(chosen)) if 0 < len(chosen) < score.count else None

    return FigureSpec(measure=measure, metrics=(metric,), figure=figure, model=model)


def _less_than(metric: str, than: str) -> Figure:
    """Share of items whose score is below another system's."""

    def figure(of: SetScores, system: str) -> tuple[float, int] | None:
        own, other = of.of(system, metric), of.of(than, metric)
        if own is None or other is None or own.per_item is None or other.per_item is None:
            return None
        pairs = [(v, other.per_item[k]) for k, v in own.per_item.items() if k in other.per_item]
        return mean(a < b for a, b in pairs), len(pairs)

    return figure


def _difference(metric: str, other: str, sign: float) -> Figure:
    """A metric's figure less another system's, or the other way round."""

    def figure(of: SetScores, system: str) -> tuple[float, int] | None:
        own, reference = of.of(system, metric), of.of(other, metric)
        if own is None or reference is None:
            return None
        return sign * (own.value - reference.value), own.count

    return figure


def _both(there: str) -> FigureSpec:
    """Share of items with the added content, whose output is nearer to the target."""

    def figure(of: SetScores, system: str) -> tuple[float, int] | None:
        new, own, source = (
            of.of(system, there),
            of.of(system, "edit_distance"),
            of.of(SOURCE, "edit_distance"),
        )
        if new is None or own is None or source is None:
            return None
        added, away, before = (score.per_item or {} for score in (new, own, source))
        pairs = [added[k] > 0 and away[k] < before[k] for k in added if k in away and k in before]
        return mean(pairs), len(pairs)

    return FigureSpec(measure=bars.BOTH, metrics=(there, "edit_distance"), figure=figure, model=" ")


def _added_and_kept(there: str) -> FigureSpec:
    """Share of items with the added content that leave the rest as the codec would.

    Any recording of what is asked for meets it, wherever it begins; an untouched source does not,
    since nothing is added.
    """

    def figure(of: SetScores, system: str) -> tuple[float, int] | None:
        found = (
            of.of(system, there),
            of.of(system, "unedited_distance"),
            of.of(SOURCE_CODEC, "unedited_distance"),
        )
        if any(score is None for score in found):
            return None
        added, rest, codec = (score.per_item or {} for score in found if score is not None)
        pairs = [
            added[k] > 0 and rest[k] <= bars.KEPT * codec[k]
            for k in added
            if k in rest and k in codec
        ]
        return mean(pairs), len(pairs)

    return FigureSpec(
        measure=bars.ADDED_AND_KEPT,
        metrics=(there, "unedited_distance"),
        figure=figure,
        model=" ",
    )


_EDITED = (("value", MODEL), ("truth", TRUTH), ("codec", CODEC))

_WORDS = (
    plain("wer", bars.WORDS, model="both models"),
    _part("wer", f"{bars.WORDS}, sentences", True, "Whisper tiny.en"),
    _part("wer", f"{bars.WORDS}, sequences", False, "pocketsphinx"),
)
_QUALITY = plain("dnsmos", "DNSMOS overall", percent=False)
_GENDER = plain("nano_gender", bars.GENDER)
_CLASS = plain("events_in_top", bars.CLASS)
_DISTANCES = (
    FigureSpec(
        measure=bars.NEARER,
        metrics=("edit_distance",),
        figure=_less_than("edit_distance", SOURCE),
        systems=_EDITED,
    ),
    FigureSpec(
        measure=bars.NEARER_THROUGH_CODEC,
        metrics=("edit_distance",),
        figure=_less_than("edit_distance", SOURCE_CODEC),
        systems=_EDITED,
    ),
    plain("edit_distance", "distance to the target", percent=False),
)
_REST = plain("unedited_distance", bars.REST, percent=False)
_EVENT_ADDED = (
    plain("added_event_in_top", bars.ADDED),
    _added_and_kept("added_event_in_top"),
    *_DISTANCES,
    _REST,
)
_SPEECH_ADDED = (
    *_WORDS,
    plain("half_of_words", bars.HALF, model="either model"),
    _added_and_kept("half_of_words"),
    *_DISTANCES,
    _REST,
)
_OF_CODEC = (("value", CODEC), ("truth", TRUTH))

FIGURES: dict[str, tuple[FigureSpec, ...]] = {
    "codec": (
        plain("wer", bars.WORDS, systems=_OF_CODEC, model="both models"),
        plain("mel_distance", "multi-resolution mel distance", systems=_OF_CODEC, percent=False),
        plain("dnsmos", "DNSMOS overall", systems=_OF_CODEC, percent=False),
        FigureSpec(
            measure=bars.QUALITY_LOST,
            metrics=("dnsmos",),
            figure=_difference("dnsmos", TRUTH, -1.0),
            systems=_OF_CODEC,
            percent=False,
        ),
    ),
    "tts": (*_WORDS, _QUALITY, _GENDER),
    SEQUENCES: (*_WORDS, _GENDER),
    "zero_shot_tts": (
        *_WORDS,
        plain("word_leak", bars.LEAK, model="both models"),
        plain("own_voice", bars.OWN_VOICE),
        plain("pitch_match", "median F0 within 15 % of the reference's"),
    ),
    "t2a": (_CLASS, plain("event_first", "asked class is the first")),
    "t2a_mix": (
        plain("all_events_in_top", bars.ALL_CLASSES),
        plain("events_in_top", "asked classes in the top 3"),
    ),
    "t2as": (*_WORDS, _CLASS),
    "timed": (
        plain("window_contrast", bars.CONTRAST, percent=False),
        plain("window_energy", "energy inside the windows"),
        plain("window_share", "share of time that the windows are", systems=(("value", TRUTH),)),
        plain("window_events_in_top", bars.IN_WINDOW),
    ),
    "edit_add": _EVENT_ADDED,
    "edit_remove": _DISTANCES,
    "edit_replace": _EVENT_ADDED,
    "speech_insert": _SPEECH_ADDED,
    "speech_delete": (*_DISTANCES, plain("removal", bars.REMOVED)),
    "speech_rewrite": _SPEECH_ADDED,
    "denoise": (
        *_DISTANCES,
        FigureSpec(
            measure=bars.SDR_GAIN,
            metrics=("si_sdr",),
            figure=_difference("si_sdr", SOURCE, 1.0),
            systems=(("value", MODEL), ("codec", CODEC), ("source", SOURCE)),
            percent=False,
        ),
        _QUALITY,
    ),
    "audio_to_speech": (_both("half_of_words"), *_SPEECH_ADDED),
    "speech_to_audio": (_both("added_event_in_top"), *_EVENT_ADDED),
}
"""Task, ``codec`` or `SEQUENCES` -> the rows about it."""


def set_of(task: str) -> str:
    """Name of a task's test set; the codec uses that of TTS."""
    return f"nano-{'tts' if task == 'codec' else task}"


def metrics_of(task: str) -> tuple[str, ...]:
    """The metrics of a task's set."""
    tasks = ("codec", "tts") if task == "tts" else (task,)
    return tuple(
        dict.fromkeys(name for key in tasks for spec in FIGURES[key] for name in spec.metrics)
    )


def rows_of(task: str, scores: SetScores) -> list[BarRow]:
    """The rows about a task.

    Args:
        task: Key of `FIGURES`.
        scores: Scores of its test set.
    """
    rows, none = [], (None, 0)
    for spec in FIGURES[task]:
        found = {
            column: figure
            for column, system in spec.systems
            if (figure := spec.figure(scores, system)) is not None
        }
        if "value" not in found:
            continue

        first = next((s for s in scores.scores.values() if spec.metrics[0] in s), {})
        rows.append(
            BarRow(
                task=task,
                measure=spec.measure,
                model=spec.model.strip() if spec.model else first[spec.metrics[0]].model,
                items=found["value"][1],
                percent=spec.percent,
                value=found["value"][0],
                truth=found.get("truth", none)[0],
                codec=found.get("codec", none)[0],
                source=found.get("source", none)[0],
            )
        )
    return rows

"""The items of a task before its judges: what all scores are made of."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unison_audio.evaluation import bars, metrics
from unison_audio.evaluation.classifier import EventClassifier, what_is_new
from unison_audio.evaluation.items import FLOOR_DBFS, IsSentence, Items
from unison_audio.evaluation.judges import Recogniser, fold
from unison_audio.evaluation.listeners import PresenceListener, QualityListener, VoiceListener
from unison_audio.evaluation.report import Row, mean
from unison_audio.tasks.table import TASKS

SILENCE = 10 ** ((FLOOR_DBFS + 6) / 10) * 3 / 8 * metrics.LSD_N_FFT
"""Power that white noise 6 dB above the items' noise floor has in a bin of the LSD's spectra."""


@dataclass(frozen=True, kw_only=True)
class Judges:
    """All judges of nano."""

    free: Recogniser
    """Judges natural sentences."""
    vocabulary: Recogniser
    """Judges random sequences of words."""
    events: EventClassifier
    """Judges sounds."""
    quality: QualityListener
    """Judges how clean speech sounds."""
    presence: PresenceListener
    """Judges how long somebody speaks."""
    voices: VoiceListener
    """Judges whose voice it is."""
    gender_threshold: float
    """Hz of median F0 above which a voice is female."""


@dataclass(frozen=True, kw_only=True)
class Versions:
    """The four versions of the items that are compared, (B, samples) each."""

    value: Tensor
    """The model's."""
    truth: Tensor
    """The target."""
    codec: Tensor
    """The target through the codec."""
    source: Tensor | None
    """The source of an edit."""

    def each(self, measure: Callable[[Tensor], float]) -> dict[str, float | None]:
        """Measures every version; the keys are the columns of `Row`."""
        return {
            "value": measure(self.value),
            "truth": measure(self.truth),
            "codec": measure(self.codec),
            "source": measure(self.source) if self.source is not None else None,
        }


def versions(items: Items) -> Versions:
    """The versions of a task's items; the source only where it is a recording to edit."""
    edits = TASKS[items.batch.task].needs == ("source",)
    return Versions(
        value=items.output,
        truth=items.batch.target,
        codec=items.target_again,
        source=items.batch.source if edits else None,
    )


class Scorer:
    """Scores the items of one task.

    Args:
        items: The items.
        judges: The judges.
        rate: Sample rate in Hz.
    """

    def __init__(self, items: Items, judges: Judges, rate: int) -> None:
        self.items, self.judges, self.rate = items, judges, rate
        self.batch, self.details = items.batch, items.batch.details
        self.versions = versions(items)
        self.is_sentence = IsSentence()

    def row(self, measure: str, figures: dict[str, float | None], **about: object) -> Row:
        """Makes a row."""
        settings: dict[str, object] = {"task": self.batch.task, "items": len(self.details)}
        return Row(measure=measure, **{**settings, **figures, **about})  # type: ignore[arg-type]

    def recogniser(self, text: str) -> Recogniser:
        """The judge that fits a text."""
        return self.judges.free if self.is_sentence(text) else self.judges.vocabulary

    def word_errors(self, waves: Tensor, texts: Sequence[str]) -> list[float]:
        """Word error rate of each item, by the judge that fits its text."""
        return [
            metrics.word_error_rate(fold(text), fold(heard))
            for text, heard in zip(texts, self.heard(waves, texts), strict=True)
        ]

    def heard(self, waves: Tensor, texts: Sequence[str]) -> list[str]:
        """What the judge that fits each item's text hears in it."""
        return [
            self.recogniser(text).transcribe(wave, self.rate)
            for wave, text in zip(waves, texts, strict=True)
        ]

    def spoken(self, waves: Tensor, texts: Sequence[str]) -> list[bool]:
        """Whether either recogniser hears at least half of an item's words.

        A text of at least three words that was not said is accepted in 0.3 % of cases by either,
        as by pocketsphinx alone; over texts of all lengths in 1.9 % against 1.7 %.
        """
        return [
            any(
                metrics.word_recall(fold(text), fold(judge.transcribe(wave, self.rate))) >= 0.5
                for judge in (self.judges.vocabulary, self.judges.free)
            )
            for wave, text in zip(waves, texts, strict=True)
        ]

    def in_top(
        self,
        waves: Tensor,
        labels: Sequence[str],
        k: int = 3,
        beside: Sequence[Sequence[str]] = (),
    ) -> list[bool]:
        """Whether each item's label is among its k best, others known to sound left out."""
        ranks = self.judges.events.ranks(waves, self.rate, labels, beside)
        return [rank <= k for rank in ranks]

    def added(self, waves: Tensor) -> list[bool]:
        """Whether the event to be added is in the top 3 of what an item has and its source not."""
        assert self.batch.source is not None
        labels = [detail["labels"][-1] for detail in self.details]
        bases = [(detail["base_label"],) for detail in self.details]
        return self.in_top(what_is_new(waves, self.batch.source), labels, 3, bases)

    def nearer(self, waves: Tensor) -> list[bool]:
        """Whether each item is nearer to the target than its source is, by LSD."""
        assert self.batch.source is not None
        own, source = (self.distance(w) for w in (waves, self.batch.source))
        return (own < source).tolist()

    def distance(self, waves: Tensor) -> Tensor:
        """Log-spectral distances (B,) to the targets; what is as soft as `SILENCE` counts little.

        Otherwise the zeros of a digitally silent pause would be decades away from a recording's.
        """
        return metrics.lsd(self.batch.target, waves, self.rate, eps=SILENCE)

    def rest_row(self) -> Row:
        """How far the output is from the source where the edit has nothing to change."""
        target, source = self.batch.target, self.batch.source
        assert source is not None

        def away(waves: Tensor) -> float:
            found = metrics.distance_where_equal(target, source, waves, self.rate, eps=SILENCE)
            return mean(x for x in found.tolist() if not math.isnan(x))

        figures = self.versions.each(away)
        return self.row(bars.REST, figures, judge="LSD", percent=False)

    def wer_rows(self, kept: Versions, texts: Sequence[str]) -> list[Row]:
        """Word error rates over all texts and, where both kinds occur, over each."""
        kinds = {
            "sentences": (self.judges.free.name, [self.is_sentence(text) for text in texts]),
            "sequences": (self.judges.vocabulary.name, [not self.is_sentence(t) for t in texts]),
        }
        errors = {
            column: self.word_errors(waves, texts)
            for column, waves in vars(kept).items()
            if waves is not None
        }
        rows = [
            self.row(
                "word error rate",
                {column: mean(rates) for column, rates in errors.items()},
                judge="both recognisers",
            )
        ]
        for kind, (judge, chosen) in kinds.items():
            if 0 < sum(chosen) < len(texts):
                figures = {
                    column: mean(r for r, c in zip(rates, chosen, strict=True) if c)
                    for column, rates in errors.items()
                }
                label = f"word error rate, {kind}"
                rows.append(self.row(label, dict(figures), judge=judge, items=sum(chosen)))
        return rows

    def top_row(self, measure: str, labels: Sequence[str]) -> Row:
        """Share of items whose label is in the top 3."""
        figures = self.versions.each(lambda waves: mean(self.in_top(waves, labels)))
        return self.row(measure, figures, judge="event classifier")

    def distance_rows(self) -> list[Row]:
        """How often, and how far, the output is nearer to the target than the source was."""
        assert self.batch.source is not None
        assert self.items.source_again is not None
        distance = self.distance
        output, source = distance(self.items.output), distance(self.batch.source)
        again = distance(self.items.source_again)
        codec = distance(self.items.target_again)

        def shares(than: Tensor) -> dict[str, float | None]:
            columns = {"value": output, "truth": torch.zeros_like(output), "codec": codec}
            return {name: float((own < than).float().mean()) for name, own in columns.items()}

        return [
            self.row(bars.NEARER, shares(source), judge="LSD"),
            self.row(bars.NEARER_THROUGH_CODEC, shares(again), judge="LSD"),
            self.row(
                "distance to the target",
                {
                    "value": float(output.mean()),
                    "truth": 0.0,
                    "codec": float(codec.mean()),
                    "source": float(source.mean()),
                },
                judge="LSD",
                percent=False,
            ),
        ]

"""What each task's items are scored by: one function a task, from items to rows of the table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unison_audio.evaluation import metrics
from unison_audio.evaluation.classifier import EventClassifier
from unison_audio.evaluation.items import IsSentence, Items
from unison_audio.evaluation.judges import Recogniser, fold
from unison_audio.evaluation.report import Row, mean
from unison_audio.tasks.table import TASKS

WER_ABOVE_TRUTH = 0.25
CODEC_WER_ABOVE_TRUTH = 0.05


@dataclass(frozen=True, kw_only=True)
class Judges:
    """All judges of nano."""

    free: Recogniser
    """Judges natural sentences."""
    vocabulary: Recogniser
    """Judges random sequences of words."""
    events: EventClassifier
    """Judges sounds."""
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

    def subset(self, chosen: Sequence[int]) -> "Versions":
        """Some of the items."""
        index = torch.tensor(list(chosen), dtype=torch.long)
        return Versions(
            value=self.value[index],
            truth=self.truth[index],
            codec=self.codec[index],
            source=self.source[index] if self.source is not None else None,
        )


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
            metrics.word_error_rate(
                fold(text), fold(self.recogniser(text).transcribe(wave, self.rate))
            )
            for wave, text in zip(waves, texts, strict=True)
        ]

    def spoken(self, waves: Tensor, texts: Sequence[str]) -> list[bool]:
        """Whether at least half of an item's words are heard by the vocabulary recogniser."""
        hear = self.judges.vocabulary.transcribe
        return [
            metrics.word_recall(fold(text), fold(hear(wave, self.rate))) >= 0.5
            for wave, text in zip(waves, texts, strict=True)
        ]

    def in_top(
        self, waves: Tensor, labels: Sequence[str], k: int = 3, beside: Sequence[str] = ()
    ) -> list[bool]:
        """Whether each item's label is among its k best; the labels of the bases do not count."""
        ranks = self.judges.events.ranks(waves, self.rate, labels, beside)
        return [rank <= k for rank in ranks]

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

    def top_row(self, measure: str, labels: Sequence[str], beside: Sequence[str] = ()) -> Row:
        """Share of items whose label is in the top 3."""
        figures = self.versions.each(lambda waves: mean(self.in_top(waves, labels, 3, beside)))
        return self.row(measure, figures, judge="event classifier")

    def distance_rows(self) -> list[Row]:
        """How often, and how far, the output is nearer to the target than the source was."""
        assert self.batch.source is not None
        assert self.items.source_again is not None
        target = self.batch.target

        def distance(wave: Tensor) -> Tensor:
            return metrics.lsd(target, wave, self.rate)

        output, source = distance(self.items.output), distance(self.batch.source)
        again = distance(self.items.source_again)
        codec = distance(self.items.target_again)

        def share(nearer: Tensor, than: Tensor) -> float:
            return float((nearer < than).float().mean())

        return [
            self.row(
                "nearer to the target than the source",
                {"value": share(output, source), "codec": share(codec, source)},
                judge="LSD",
            ),
            self.row(
                "nearer to the target than the source through the codec",
                {"value": share(output, again), "codec": share(codec, again)},
                judge="LSD",
            ),
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


def score_codec(scorer: Scorer) -> list[Row]:
    """The codec's round trip of the utterances of TTS."""
    kept = scorer.versions
    texts = [detail["text"] for detail in scorer.details]
    plain = Versions(value=kept.codec, truth=kept.truth, codec=kept.codec, source=None)
    rows = scorer.wer_rows(plain, texts)
    distance = metrics.mel_distance(kept.truth, kept.codec, scorer.rate)
    rows = [_with(row, codec=None, above_truth=CODEC_WER_ABOVE_TRUTH) for row in rows]
    figures = {"value": float(distance.mean()), "truth": 0.0}
    rows.append(scorer.row("multi-resolution mel distance", dict(figures), percent=False))
    return [_with(row, task="codec") for row in rows]


def score_tts(scorer: Scorer) -> list[Row]:
    """Words and gender of generated speech."""
    kept = scorer.versions
    rows = scorer.wer_rows(kept, [detail["text"] for detail in scorer.details])
    rows[0] = _with(rows[0], above_truth=WER_ABOVE_TRUTH)

    def right(waves: Tensor) -> float:
        pitches = [metrics.median_f0(wave, scorer.rate) for wave in waves]
        return mean(
            metrics.gender_of(pitch, scorer.judges.gender_threshold) == detail["gender"]
            for pitch, detail in zip(pitches, scorer.details, strict=True)
        )

    judge = f"median F0, {scorer.judges.gender_threshold:.0f} Hz"
    return [*rows, scorer.row("gender", kept.each(right), judge=judge, at_least=0.9)]


def score_zero_shot(scorer: Scorer) -> list[Row]:
    """Words of the part after the reference, and its pitch beside the reference's."""
    edges = scorer.batch.reference_samples
    assert edges is not None

    def after(waves: Tensor) -> Tensor:
        length = waves.shape[1]
        rows = [F.pad(w[int(e) :], (0, int(e))) for w, e in zip(waves, edges, strict=True)]
        return torch.stack(rows)[:, :length]

    kept = scorer.versions
    spoken = Versions(
        value=after(kept.value), truth=after(kept.truth), codec=after(kept.codec), source=None
    )
    given = [
        metrics.median_f0(wave[: int(edge)], scorer.rate)
        for wave, edge in zip(kept.truth, edges, strict=True)
    ]

    def same(waves: Tensor) -> float:
        pitches = [metrics.median_f0(wave, scorer.rate) for wave in waves]
        return mean(
            abs(pitch - reference) < 0.15 * reference  # NaN compares as false
            for pitch, reference in zip(pitches, given, strict=True)
        )

    rows = scorer.wer_rows(spoken, [detail["text"] for detail in scorer.details])
    pitch = scorer.row("median F0 within 15 % of the reference's", spoken.each(same), judge="F0")
    return [*rows, pitch]


def score_t2a(scorer: Scorer) -> list[Row]:
    """Whether the asked sound is heard."""
    labels = [detail["labels"][0] for detail in scorer.details]
    kept = scorer.versions
    best = kept.each(lambda waves: mean(scorer.in_top(waves, labels, 1)))
    return [
        _with(scorer.top_row("asked class in the top 3", labels), at_least=0.6),
        scorer.row("asked class is the first", best, judge="event classifier"),
    ]


def score_t2a_mix(scorer: Scorer) -> list[Row]:
    """How many of the asked sounds are heard."""

    def heard(waves: Tensor) -> float:
        found: list[bool] = []
        for wave, detail in zip(waves, scorer.details, strict=True):
            labels = detail["labels"]
            found += scorer.in_top(wave.expand(len(labels), -1), labels)
        return mean(found)

    figures = scorer.versions.each(heard)
    return [scorer.row("asked classes in the top 3", figures, judge="event classifier")]


def score_t2as(scorer: Scorer) -> list[Row]:
    """Words and sound of speech with sound."""
    rows = scorer.wer_rows(scorer.versions, [detail["text"] for detail in scorer.details])
    labels = [detail["labels"][0] for detail in scorer.details]
    return [*rows, scorer.top_row("asked class in the top 3", labels)]


def score_timed(scorer: Scorer) -> list[Row]:
    """Whether sounds are where they were asked for."""
    rate, details = scorer.rate, scorer.details
    kept = scorer.versions

    def inside(waves: Tensor) -> float:
        return mean(
            metrics.energy_inside(wave, detail["windows"], rate)
            for wave, detail in zip(waves, details, strict=True)
        )

    def heard(waves: Tensor) -> float:
        found: list[bool] = []
        for wave, detail in zip(waves, details, strict=True):
            for label, (start, end) in zip(detail["labels"], detail["windows"], strict=True):
                part = wave[round(start * rate) : round(end * rate)]
                found += scorer.in_top(part[None], [label])
        return mean(found)

    flat = torch.ones_like(kept.truth)
    return [
        scorer.row("energy inside the windows", kept.each(inside), judge="energy"),
        scorer.row("share of time that the windows are", {"value": inside(flat)}),
        scorer.row("class in the top 3 in its window", kept.each(heard), judge="event classifier"),
    ]


def score_event_added(scorer: Scorer) -> list[Row]:
    """Whether the event to be added, or put in place of another, is heard beside the base."""
    labels = [detail["labels"][-1] for detail in scorer.details]
    bases = [detail["base_label"] for detail in scorer.details]
    row = scorer.top_row("added class in the top 3 beside the base", labels, bases)
    bar = 0.5 if scorer.batch.task == "edit_add" else None
    return [_with(row, at_least=bar), *scorer.distance_rows()]


def score_speech_added(scorer: Scorer) -> list[Row]:
    """Whether the words to be added, or put in place of others, are heard."""
    texts = [detail["text"] for detail in scorer.details]
    half = scorer.versions.each(lambda waves: mean(scorer.spoken(waves, texts)))
    judge = scorer.judges.vocabulary.name
    bar = 0.5 if scorer.batch.task == "speech_insert" else None
    row = scorer.row("at least half of the words", half, judge=judge, at_least=bar)
    return [row, *scorer.distance_rows()]


def score_removed(scorer: Scorer) -> list[Row]:
    """Whether the output is nearer to the target than the source was."""
    nearer, *rest = scorer.distance_rows()
    return [_with(nearer, at_least=0.75), *rest]


SCORERS: dict[str, Callable[[Scorer], list[Row]]] = {
    "codec": score_codec,
    "tts": score_tts,
    "zero_shot_tts": score_zero_shot,
    "t2a": score_t2a,
    "t2a_mix": score_t2a_mix,
    "t2as": score_t2as,
    "timed": score_timed,
    "edit_add": score_event_added,
    "edit_remove": score_removed,
    "edit_replace": score_event_added,
    "speech_insert": score_speech_added,
    "speech_delete": score_removed,
    "speech_rewrite": score_speech_added,
    "denoise": score_removed,
    "audio_to_speech": score_speech_added,
    "speech_to_audio": score_event_added,
}
"""Task, or ``codec`` -> its scorer."""


def _with(row: Row, **changes: object) -> Row:
    return Row(**{**vars(row), **changes})

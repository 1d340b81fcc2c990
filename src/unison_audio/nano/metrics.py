"""What each task's items are scored by: one function a task, from items to rows of the table."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unison_audio.evaluation.metrics import signal as metrics
from unison_audio.evaluation.models.asr import Asr
from unison_audio.evaluation.models.event_classifier import EventClassifier, what_is_new
from unison_audio.evaluation.models.speaker import Resemblyzer, nearest_is_own
from unison_audio.evaluation.models.speech_quality import Dnsmos, SileroVad
from unison_audio.evaluation.test_sets.scenes import FLOOR_DBFS
from unison_audio.nano import bars
from unison_audio.nano.bars import Row, mean
from unison_audio.nano.items import Items
from unison_audio.nano.vocabulary import IsSentence
from unison_audio.nano.vocabulary_asr import fold
from unison_audio.tasks.table import TASKS

SILENCE = 10 ** ((FLOOR_DBFS + 6) / 10) * 3 / 8 * metrics.LSD_N_FFT
"""Power that white noise 6 dB above the items' noise floor has in a bin of the LSD's spectra."""


@dataclass(frozen=True, kw_only=True)
class Judges:
    """All judges of nano."""

    free: Asr
    """Judges natural sentences."""
    vocabulary: Asr
    """Judges random sequences of words."""
    events: EventClassifier
    """Judges sounds."""
    quality: Dnsmos
    """Judges how clean speech sounds."""
    presence: SileroVad
    """Judges how long somebody speaks."""
    voices: Resemblyzer
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

    def recogniser(self, text: str) -> Asr:
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
            self.recogniser(text).transcribe([wave.numpy()])[0]
            for wave, text in zip(waves, texts, strict=True)
        ]

    def spoken(self, waves: Tensor, texts: Sequence[str]) -> list[bool]:
        """Whether either recogniser hears at least half of an item's words.

        A text of at least three words that was not said is accepted in 0.3 % of cases by either,
        as by pocketsphinx alone; over texts of all lengths in 1.9 % against 1.7 %.
        """
        return [
            any(
                metrics.word_recall(fold(text), fold(judge.transcribe([wave.numpy()])[0])) >= 0.5
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
            "sentences": (self.judges.free.model, [self.is_sentence(text) for text in texts]),
            "sequences": (self.judges.vocabulary.model, [not self.is_sentence(t) for t in texts]),
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


SCORES_VERSION = 1
"""Version of the scores. Raise it with any change of a scorer, or of what one calls, that changes
figures; kept scores of other versions are then not used."""


def score_codec(scorer: Scorer) -> list[Row]:
    """The codec's round trip of the utterances of TTS."""
    kept = scorer.versions
    texts = [detail["text"] for detail in scorer.details]
    plain = Versions(value=kept.codec, truth=kept.truth, codec=kept.codec, source=None)
    rows = scorer.wer_rows(plain, texts)
    distance = metrics.mel_distance(kept.truth, kept.codec, scorer.rate)
    rows = [_with(row, codec=None) for row in rows]
    figures = {"value": float(distance.mean()), "truth": 0.0}
    rows.append(scorer.row("multi-resolution mel distance", dict(figures), percent=False))
    quality = quality_row(scorer, plain)
    lost = {"value": (quality.truth or 0.0) - quality.value, "truth": 0.0}
    rows.append(_with(quality, codec=None))
    rows.append(scorer.row(bars.QUALITY_LOST, dict(lost), judge=quality.judge, percent=False))
    return [_with(row, task="codec") for row in rows]


def quality_row(scorer: Scorer, kept: Versions) -> Row:
    """How clean speech sounds, from 1 to 5."""
    listener = scorer.judges.quality

    def overall(waves: Tensor) -> float:
        return mean(listener.overall(wave, scorer.rate) for wave in waves)

    return scorer.row("DNSMOS overall", kept.each(overall), judge=listener.model, percent=False)


def score_tts(scorer: Scorer) -> list[Row]:
    """Words, quality and gender of generated speech."""
    *words, gender = score_sequences(scorer)
    return [*words, quality_row(scorer, scorer.versions), gender]


def score_sequences(scorer: Scorer) -> list[Row]:
    """Words and gender of generated speech."""
    kept = scorer.versions
    rows = scorer.wer_rows(kept, [detail["text"] for detail in scorer.details])

    def right(waves: Tensor) -> float:
        pitches = [metrics.median_f0(wave, scorer.rate) for wave in waves]
        return mean(
            metrics.gender_of(pitch, scorer.judges.gender_threshold) == detail["gender"]
            for pitch, detail in zip(pitches, scorer.details, strict=True)
        )

    judge = f"median F0, {scorer.judges.gender_threshold:.0f} Hz"
    return [*rows, scorer.row(bars.GENDER, kept.each(right), judge=judge)]


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
    return [*rows, leak_row(scorer, spoken), voice_row(scorer, spoken), pitch]


def leak_row(scorer: Scorer, spoken: Versions) -> Row:
    """Share of the items in which words of the reference are heard that were not asked for."""
    details = scorer.details
    said = [set(fold(detail["reference_text"]).split()) for detail in details]
    asked = [fold(detail["text"]) for detail in details]

    def leaked(waves: Tensor) -> float:
        return mean(
            bool((words - set(text.split())) & set(fold(heard).split()))
            for words, text, heard in zip(
                said, asked, scorer.heard(waves, [d["text"] for d in details]), strict=True
            )
        )

    return scorer.row(bars.LEAK, spoken.each(leaked), judge="both recognisers")


def voice_row(scorer: Scorer, spoken: Versions) -> Row:
    """Whether the voice is more like its reference than like any other held-out speaker.

    The other speakers are those of the other items, each heard in all its references.
    """
    listener, edges = scorer.judges.voices, scorer.batch.reference_samples
    assert edges is not None
    speakers = [detail["speaker"] for detail in scorer.details]
    given = [
        listener.embed([wave[: int(edge)].numpy()])[0]
        for wave, edge in zip(scorer.batch.target, edges, strict=True)
    ]
    known = {
        name: torch.stack([v for v, s in zip(given, speakers, strict=True) if s == name])
        for name in sorted(set(speakers))
    }

    def own(waves: Tensor) -> float:
        return mean(
            nearest_is_own(
                reference,
                [vectors for name, vectors in known.items() if name != speaker],
                listener.embed([wave.numpy()])[0],
            )
            for wave, reference, speaker in zip(waves, given, speakers, strict=True)
        )

    return scorer.row(bars.OWN_VOICE, spoken.each(own), judge=listener.model)


def score_t2a(scorer: Scorer) -> list[Row]:
    """Whether the asked sound is heard."""
    labels = [detail["labels"][0] for detail in scorer.details]
    best = scorer.versions.each(lambda waves: mean(scorer.in_top(waves, labels, 1)))
    return [
        scorer.top_row(bars.CLASS, labels),
        scorer.row("asked class is the first", best, judge="event classifier"),
    ]


def score_t2a_mix(scorer: Scorer) -> list[Row]:
    """How many of the asked sounds are heard, each beside the others."""

    def heard(waves: Tensor) -> list[list[bool]]:
        found = []
        for wave, detail in zip(waves, scorer.details, strict=True):
            labels = detail["labels"]
            others = [[other for other in labels if other != label] for label in labels]
            found.append(scorer.in_top(wave.expand(len(labels), -1), labels, 3, others))
        return found

    each = {
        column: heard(waves) if waves is not None else []
        for column, waves in vars(scorer.versions).items()
    }
    every = {column: mean(all(found) for found in items) for column, items in each.items()}
    single = {column: mean(one for item in items for one in item) for column, items in each.items()}
    judge = "event classifier"
    return [
        scorer.row(bars.ALL_CLASSES, dict(every), judge=judge),
        scorer.row("asked classes in the top 3", dict(single), judge=judge),
    ]


def score_t2as(scorer: Scorer) -> list[Row]:
    """Words and sound of speech with sound."""
    rows = scorer.wer_rows(scorer.versions, [detail["text"] for detail in scorer.details])
    labels = [detail["labels"][0] for detail in scorer.details]
    return [*rows, scorer.top_row(bars.CLASS, labels)]


def score_timed(scorer: Scorer) -> list[Row]:
    """Whether sounds are where they were asked for."""
    rate, details = scorer.rate, scorer.details
    kept = scorer.versions

    def inside(waves: Tensor) -> float:
        return mean(
            metrics.energy_inside(wave, detail["windows"], rate)
            for wave, detail in zip(waves, details, strict=True)
        )

    def contrast(waves: Tensor) -> float:
        return mean(
            level
            for wave, detail in zip(waves, details, strict=True)
            for level in window_contrasts(wave, detail["windows"], rate)
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
        scorer.row(bars.CONTRAST, kept.each(contrast), judge="energy", percent=False),
        scorer.row("energy inside the windows", kept.each(inside), judge="energy"),
        scorer.row("share of time that the windows are", {"value": inside(flat)}),
        scorer.row(bars.IN_WINDOW, kept.each(heard), judge="event classifier"),
    ]


def window_contrasts(
    waveform: Tensor, windows: Sequence[tuple[float, float]], rate: int
) -> list[float]:
    """Measures by how many dB each window is louder than what lies outside all windows.

    The items' noise floor is added to both, so that digital silence is no lower than a recording's.

    Args:
        waveform: (samples,).
        windows: Seconds from and to; they may overlap.
        rate: Sample rate in Hz.

    Returns:
        One figure a window; none where the windows leave less than a tenth of a second.
    """
    power = waveform.double().square() + 10 ** (FLOOR_DBFS / 10)
    outside = torch.ones_like(power, dtype=torch.bool)
    spans = [(round(start * rate), round(end * rate)) for start, end in windows]
    for start, end in spans:
        outside[start:end] = False
    if int(outside.sum()) < rate // 10:
        return []
    ground = power[outside].mean()
    return [float(10 * (power[a:b].mean() / ground).log10()) for a, b in spans]


def score_event_added(scorer: Scorer) -> list[Row]:
    """Whether the event to be added, or put in place of another, is heard."""
    figures = scorer.versions.each(lambda waves: mean(scorer.added(waves)))
    row = scorer.row(bars.ADDED, figures, judge="event classifier")
    return [row, *scorer.distance_rows(), scorer.rest_row()]


def score_speech_added(scorer: Scorer) -> list[Row]:
    """Whether the words to be added, or put in place of others, are heard."""
    texts = [detail["text"] for detail in scorer.details]
    half = scorer.versions.each(lambda waves: mean(scorer.spoken(waves, texts)))
    row = scorer.row(bars.HALF, half, judge="either recogniser")
    words = scorer.wer_rows(scorer.versions, texts)
    return [*words, row, *scorer.distance_rows(), scorer.rest_row()]


def score_swap(scorer: Scorer) -> list[Row]:
    """Whether what is to come is there and the whole is nearer to the target than the source."""

    def there(waves: Tensor) -> list[bool]:
        if scorer.batch.task == "speech_to_audio":
            return scorer.added(waves)
        return scorer.spoken(waves, [detail["text"] for detail in scorer.details])

    def both(waves: Tensor) -> float:
        return mean(
            new and old for new, old in zip(there(waves), scorer.nearer(waves), strict=True)
        )

    row = scorer.row(bars.BOTH, scorer.versions.each(both))
    parts = score_event_added if scorer.batch.task == "speech_to_audio" else score_speech_added
    return [row, *parts(scorer)]


def score_removed(scorer: Scorer) -> list[Row]:
    """Whether the output is nearer to the target than the source was."""
    return scorer.distance_rows()


def score_speech_removed(scorer: Scorer) -> list[Row]:
    """How much of the speech is gone; items in which no speech is heard before do not count."""
    assert scorer.batch.source is not None
    listener, rate = scorer.judges.presence, scorer.rate
    before = [listener.speech_seconds(wave, rate) for wave in scorer.batch.source]

    def removed(waves: Tensor) -> float:
        return mean(
            1.0 - listener.speech_seconds(wave, rate) / spoken
            for wave, spoken in zip(waves, before, strict=True)
            if spoken > 0
        )

    row = scorer.row(
        bars.REMOVED,
        scorer.versions.each(removed),
        judge=listener.model,
        items=sum(spoken > 0 for spoken in before),
    )
    return [*scorer.distance_rows(), row]


def score_denoised(scorer: Scorer) -> list[Row]:
    """Whether noise is gone and the waveform is nearer to the speech alone."""
    assert scorer.batch.source is not None
    target = scorer.batch.target
    before = metrics.si_sdr(target, scorer.batch.source)

    def gained(waves: Tensor) -> float:
        return float((metrics.si_sdr(target, waves) - before).mean())

    kept = scorer.versions
    figures = {"value": gained(kept.value), "codec": gained(kept.codec), "source": 0.0}
    row = scorer.row(bars.SDR_GAIN, dict(figures), judge="SI-SDR", percent=False)
    quality = quality_row(scorer, kept)
    return [*scorer.distance_rows(), row, quality]


SCORERS: dict[str, Callable[[Scorer], list[Row]]] = {
    "codec": score_codec,
    "tts": score_tts,
    bars.SEQUENCES: score_sequences,
    "zero_shot_tts": score_zero_shot,
    "t2a": score_t2a,
    "t2a_mix": score_t2a_mix,
    "t2as": score_t2as,
    "timed": score_timed,
    "edit_add": score_event_added,
    "edit_remove": score_removed,
    "edit_replace": score_event_added,
    "speech_insert": score_speech_added,
    "speech_delete": score_speech_removed,
    "speech_rewrite": score_speech_added,
    "denoise": score_denoised,
    "audio_to_speech": score_swap,
    "speech_to_audio": score_swap,
}
"""Task, ``codec`` or `bars.SEQUENCES` -> its scorer."""


def _with(row: Row, **changes: object) -> Row:
    return Row(**{**vars(row), **changes})

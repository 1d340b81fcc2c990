"""Metrics of nano's own test sets, whose items list their sounds and words."""

import json
import math
import zlib
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from unison_audio.audio import load
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics import signal
from unison_audio.evaluation.metrics.metric import Metric, MetricContext, load_audio, path_of
from unison_audio.evaluation.metrics.speech import GenderAccuracy, LogSpectralDistance
from unison_audio.evaluation.metrics.table import METRICS
from unison_audio.evaluation.models.speaker import PitchGender, Resemblyzer
from unison_audio.evaluation.test_sets.manifest import EvaluationSample
from unison_audio.evaluation.test_sets.scenes import FLOOR_DBFS
from unison_audio.nano.event_classifier import what_is_new
from unison_audio.nano.label_matcher import event_classifier
from unison_audio.nano.vocabulary_asr import NanoAsr, fold

RATE = 16_000
"""Nano's sample rate in Hz."""

TOP = 3
"""A requested class counts as present if it is among the classifier's top three."""

ABOUT_FILE = "judges.json"
"""File beside the event classifier: its accuracy, and the pitch that separates the genders. The
name is the format's first one, so that existing folders stay valid."""

SILENCE = 10 ** ((FLOOR_DBFS + 6) / 10) * 3 / 8 * signal.LSD_N_FFT
"""Power that white noise 6 dB above the items' noise floor has in a bin of the LSD's spectra.

Without it the zeros of a digitally silent pause would be decades away from a recording's."""


class _NanoMetric(Metric):
    """Silent outputs are scored, so that a model is not spared for an output without content."""

    better: ClassVar[Literal["higher", "lower"]] = "higher"
    sample_rate = RATE
    scores_silence = True


class _EventMetric(_NanoMetric):
    """A metric by the event classifier."""

    def __init__(self, context: MetricContext) -> None:
        self.events = event_classifier(context)
        self.model, self.identity = self.events.model, self.events.identity


class _EventRanks(_EventMetric):
    """Features are the rank of each asked label, the others that are asked for left out."""

    features, feature_shape = "event_ranks", (None,)

    def extract_features(self, samples: Sequence[EvaluationSample]) -> list[np.ndarray]:
        """Ranks of each sample's labels, (labels,); 1 is the best."""
        ranks = []
        for sample in samples:
            labels = sample.item.details["labels"]
            others = [[other for other in labels if other != label] for label in labels]
            wave = _wave(sample).expand(len(labels), -1)
            ranks.append(np.array(self.events.ranks(wave, RATE, labels, others)))
        return ranks


class EventsInTop(_EventRanks):
    """Share of the asked classes in the top 3."""

    name, title = "events_in_top", "Asked classes in the top 3"

    def aggregate(self, pooled: Sequence[np.ndarray]) -> float:
        """The share over the labels of all samples."""
        return float((np.concatenate(pooled) <= TOP).mean())


class AllEventsInTop(_EventRanks):
    """Whether every asked class is in the top 3."""

    name, title = "all_events_in_top", "Every asked class in the top 3"

    def pool(self, features: np.ndarray) -> np.ndarray:
        """1 or 0, ()."""
        return np.asarray(float((features <= TOP).all()))


class EventFirst(_EventRanks):
    """Whether the asked class is the first."""

    name, title = "event_first", "Asked class is the first"

    def pool(self, features: np.ndarray) -> np.ndarray:
        """1 or 0, ()."""
        return np.asarray(float((features == 1).all()))


class WindowEventsInTop(EventsInTop):
    """Share of a timeline's classes that are in the top 3 of their own windows."""

    name, title, features = (
        "window_events_in_top",
        "Class in the top 3 in its window",
        "window_ranks",
    )

    def extract_features(self, samples: Sequence[EvaluationSample]) -> list[np.ndarray]:
        """Ranks of each sample's labels in their windows, (labels,)."""
        ranks = []
        for sample in samples:
            wave, details = _wave(sample), sample.item.details
            found: list[int] = []
            for label, (start, end) in zip(details["labels"], details["windows"], strict=True):
                part = wave[round(start * RATE) : round(end * RATE)]
                found += self.events.ranks(part[None], RATE, [label])
            ranks.append(np.array(found))
        return ranks


class AddedEventInTop(_EventMetric):
    """Whether the event to be added is in the top 3 of what an output has and its source lacks."""

    name, title, needs = "added_event_in_top", "Added class in the top 3", ("source",)

    def score(self, sample: EvaluationSample) -> float:
        """1 or 0."""
        details = sample.item.details
        new = what_is_new(_wave(sample)[None], _wave(sample, "source")[None])
        base = [(details["base_label"],)]
        return float(self.events.ranks(new, RATE, [details["labels"][-1]], base)[0] <= TOP)


class HalfOfWords(_NanoMetric):
    """Whether either speech recognition model finds at least half of an item's words.

    A text of at least three words that was not said is accepted in 0.3 % of cases by either, as by
    pocketsphinx alone; over texts of all lengths in 1.9 % against 1.7 %.
    """

    name, title, needs = "half_of_words", "At least half of the words", ("text",)

    def __init__(self, context: MetricContext) -> None:
        self.asr = context.model("nano asr", NanoAsr)
        self.model, self.identity = self.asr.model, self.asr.identity

    def score(self, sample: EvaluationSample) -> float:
        """1 or 0."""
        wave, text = load_audio(sample.output, RATE), fold(sample.item.text)
        return float(
            any(
                signal.word_recall(text, fold(asr.transcribe([wave])[0])) >= 0.5
                for asr in (self.asr.sequences, self.asr.sentences)
            )
        )


class WordLeak(HalfOfWords):
    """Whether the output has words of the reference that were not requested."""

    name, title, better = "word_leak", "Words of the reference", "lower"

    def score(self, sample: EvaluationSample) -> float:
        """1 or 0."""
        item = sample.item
        ((text, found),) = self.asr.transcript_pairs([load_audio(sample.output, RATE)], [item.text])
        return float(bool((_words(fold(item.reference_text)) - _words(text)) & _words(found)))


class OwnVoice(_NanoMetric):
    """Whether a voice is closer to its reference than to any other held-out speaker.

    The other speakers are those of the other samples, each by all its references. Features are
    (3, D): a number for the speaker, the reference's embedding, the output's.
    """

    name, title, needs = "own_voice", "Voice nearest to its own reference", ("reference",)
    feature_shape = (3, None)
    max_bootstrap: ClassVar[float] = 100

    def __init__(self, context: MetricContext) -> None:
        self.encoder = context.model("resemblyzer", Resemblyzer)
        self.model, self.identity = self.encoder.model, self.encoder.identity

    def extract_features(self, samples: Sequence[EvaluationSample]) -> list[np.ndarray]:
        """Speaker and embeddings of each sample."""
        rows = []
        for sample in samples:
            paths = (path_of(sample, "reference"), sample.output)
            reference, output = self.encoder.embed([load_audio(path, RATE) for path in paths])
            speaker = zlib.crc32(sample.item.details["speaker"].encode())
            number = torch.full_like(reference, speaker, dtype=torch.float64)
            rows.append(torch.stack([number, reference.double(), output.double()]).numpy())
        return rows

    def aggregate(self, pooled: Sequence[np.ndarray]) -> float:
        """The share of samples."""
        speakers = np.array([row[0, 0] for row in pooled])
        references = np.stack([row[1] for row in pooled])
        right = [
            nearest_is_own(
                row[1],
                [references[speakers == other] for other in set(speakers) - {row[0, 0]}],
                row[2],
            )
            for row in pooled
        ]
        return float(np.mean(right))


class PitchMatch(_NanoMetric):
    """Whether the median pitch is within 15 % of the reference's."""

    name, title, needs = "pitch_match", "Pitch of the reference", ("reference",)
    model = "F0"

    def score(self, sample: EvaluationSample) -> float:
        """1 or 0."""
        given = signal.median_f0(_wave(sample, "reference"), RATE)
        found = signal.median_f0(_wave(sample), RATE)
        return float(abs(found - given) < 0.15 * given)  # NaN compares as false


class TrainingPitchGender(GenderAccuracy):
    """Gender by the pitch that best separates nano's training voices."""

    name, title = "nano_gender", "Gender accuracy (nano)"

    def load(self, context: MetricContext) -> Any:
        """The classifier of genders, by the threshold beside the event classifier."""

        def from_file() -> PitchGender:
            folder = context.path("classifier")
            if folder is None:
                raise InputError(
                    "The pitch that parts the genders stands beside nano's event classifier; give "
                    "its folder as the metric model 'classifier'"
                )
            about = json.loads((folder / ABOUT_FILE).read_text())
            return PitchGender(about["gender_threshold_hz"])

        return context.model("nano gender", from_file)


class EditDistance(LogSpectralDistance):
    """Log-spectral distance from the target; what is as soft as `SILENCE` counts little."""

    name, title, sample_rate, eps = "edit_distance", "LSD of edits", RATE, SILENCE
    model, identity = "LSD", "lsd above silence"


class UneditedDistance(_NanoMetric):
    """Distance of an output from the source where the edit changes nothing."""

    name, title, better = "unedited_distance", "LSD where nothing is to change", "lower"
    needs = ("target", "source")
    model = "LSD"

    def score(self, sample: EvaluationSample) -> float:
        """The distance.

        Raises:
            InputError: Target and source are nowhere alike.
        """
        target, source = _wave(sample, "target")[None], _wave(sample, "source")[None]
        output = _wave(sample)[None]
        found = float(signal.distance_where_equal(target, source, output, RATE, eps=SILENCE))
        if math.isnan(found):
            raise InputError(f"Item {sample.item.id} changes everywhere; nothing is to be kept")
        return found


class SiSdr(_NanoMetric):
    """Scale-invariant signal-to-distortion ratio."""

    name, title, unit, needs = "si_sdr", "SI-SDR", "dB", ("target",)
    model = "SI-SDR"

    def score(self, sample: EvaluationSample) -> float:
        """The ratio in dB."""
        return float(signal.si_sdr(_wave(sample, "target")[None], _wave(sample)[None]))


class MelDistance(_NanoMetric):
    """Multi-resolution mel distance from the target."""

    name, title, better, needs = "mel_distance", "Mel distance", "lower", ("target",)
    model = "mel"

    def score(self, sample: EvaluationSample) -> float:
        """The distance."""
        return float(signal.mel_distance(_wave(sample, "target")[None], _wave(sample)[None], RATE))


class WindowContrast(_NanoMetric):
    """Level difference in dB between a timeline's windows and its pauses."""

    name, title, unit, model = "window_contrast", "Windows above pauses", "dB", "energy"
    feature_shape = (None,)

    def extract_features(self, samples: Sequence[EvaluationSample]) -> list[np.ndarray]:
        """The contrast of each window, (windows,); none where there are no pauses."""
        return [
            np.array(
                signal.window_contrasts(
                    _wave(sample), sample.item.details["windows"], RATE, FLOOR_DBFS
                )
            )
            for sample in samples
        ]

    def aggregate(self, pooled: Sequence[np.ndarray]) -> float:
        """The mean over the windows of all samples.

        Raises:
            InputError: No sample has pauses.
        """
        levels = np.concatenate(pooled)
        if len(levels) == 0:
            raise InputError("No timeline has pauses; ask for more items")
        return float(levels.mean())


class WindowEnergy(_NanoMetric):
    """Share of the energy inside a timeline's windows."""

    name, title, model = "window_energy", "Energy inside the windows", "energy"

    def score(self, sample: EvaluationSample) -> float:
        """The share."""
        return signal.energy_inside(_wave(sample), sample.item.details["windows"], RATE)


class WindowShare(_NanoMetric):
    """Share of the time that a timeline's windows take: the energy of an even sound in them."""

    name, title, model = "window_share", "Share of time of the windows", "time"

    def score(self, sample: EvaluationSample) -> float:
        """The share."""
        even = torch.ones_like(_wave(sample))
        return signal.energy_inside(even, sample.item.details["windows"], RATE)


def nearest_is_own(own: np.ndarray, others: Sequence[np.ndarray], voice: np.ndarray) -> bool:
    """Whether a voice is closer to its own reference than to any other speaker.

    Args:
        own: The reference's embedding (D,).
        others: The embeddings (N, D) of each other speaker; the mean likeness counts.
        voice: The output's embedding, (D,).
    """
    return all(float(voice @ own) > float((other @ voice).mean()) for other in others)


def _words(text: str) -> set[str]:
    return set(text.split())


def _wave(
    sample: EvaluationSample, role: Literal["output", "target", "source", "reference"] = "output"
) -> Tensor:
    """A sample's sound, (samples,)."""
    path = sample.output if role == "output" else path_of(sample, role)
    return load(path, sample_rate=RATE)


NANO_METRICS: dict[str, type[Metric]] = {
    **{name: METRICS[name] for name in ("wer", "dnsmos", "removal")},
    **{
        metric.name: metric
        for metric in (
            EventsInTop,
            AllEventsInTop,
            EventFirst,
            WindowEventsInTop,
            AddedEventInTop,
            HalfOfWords,
            WordLeak,
            OwnVoice,
            PitchMatch,
            TrainingPitchGender,
            EditDistance,
            UneditedDistance,
            SiSdr,
            MelDistance,
            WindowContrast,
            WindowEnergy,
            WindowShare,
        )
    },
}
"""The metrics of nano's own test sets by name."""

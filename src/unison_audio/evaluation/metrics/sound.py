"""Metrics of sound: FAD, FAD-infinity, FD, KL, IS, CLAP and CLAP by segment (paper §4.2)."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Protocol, TypeAlias

import numpy as np
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.distribution import (
    divergence,
    frechet_distance,
    frechet_infinity,
    inception_score,
    softmax,
)
from unison_audio.evaluation.metrics.metric import (
    Metric,
    MetricContext,
    load_audio,
    path_of,
)
from unison_audio.evaluation.models.aisfx import AisfxEmbedder, AisfxTagger, packaged_aisfx
from unison_audio.evaluation.models.clap import Clap
from unison_audio.evaluation.models.cnn14 import Cnn14Tagger
from unison_audio.evaluation.models.vggish import VggishEmbedder
from unison_audio.evaluation.test_sets.manifest import EvaluationSample, Need

Embedder: TypeAlias = VggishEmbedder | AisfxEmbedder
"""Embeds each short stretch of a sound."""

Tagger: TypeAlias = Cnn14Tagger | AisfxTagger
"""Embeds a sound as a whole, and gives logits of classes."""


class Matcher(Protocol):
    """Embeds sounds and texts in one space; CLAP, or nano's classifier offline."""

    model: str
    identity: str
    sample_rate: int

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Maps B sounds (samples,) to unit vectors (B, D)."""
        ...

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Maps B texts to unit vectors (B, D)."""
        ...


class FrechetAudioDistance(Metric):
    """Frechet distance between the embeddings of all outputs' stretches and all targets'.

    Features are (stretches of both, 1 + D); the first column is 0 for the output, 1 for the target.
    """

    name, title, better, sample_rate = "fad", "FAD", "lower", 16_000
    features, feature_shape, needs = "stretches", (None, None), ("target",)

    def __init__(self, context: MetricContext) -> None:
        self.embedder: Embedder = context.model(
            "embedder",
            lambda: (
                AisfxEmbedder(context) if context.stands_in("vggish") else VggishEmbedder(context)
            ),
        )
        self.model, self.identity = self.embedder.model, self.embedder.identity

    def extract_features(self, samples: Sequence[EvaluationSample]) -> list[np.ndarray]:
        """Embeddings of the stretches of each sample's output and target."""
        return [
            np.concatenate(
                [
                    np.pad(self._embed(path), ((0, 0), (1, 0)), constant_values=mark)
                    for mark, path in enumerate((sample.output, path_of(sample, "target")))
                ]
            )
            for sample in samples
        ]

    def aggregate(self, pooled: Sequence[np.ndarray]) -> float:
        """The distance; outputs come first."""
        rows = np.concatenate(pooled)
        marks, vectors = rows[:, 0], rows[:, 1:]
        return self.distance(vectors[marks == 0], vectors[marks == 1])

    def distance(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """The distance of two sets of embeddings."""
        return frechet_distance(outputs, targets)

    def _embed(self, path: Path) -> np.ndarray:
        return self.embedder.embed(load_audio(path, self.embedder.sample_rate))


class FadInfinity(FrechetAudioDistance):
    """The Frechet distance extrapolated to an infinite set of outputs."""

    name, title = "fad_inf", "FAD∞"
    # One figure takes as long as `distribution.STEPS` distances.
    max_bootstrap: ClassVar[float] = 100

    def distance(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """The extrapolated distance of two sets of embeddings."""
        return frechet_infinity(outputs, targets)


class _TagMetric(Metric):
    """Features of the tagger: (1 or 2, width + classes), the output's row, then the target's."""

    better: ClassVar[Literal["higher", "lower"]] = "lower"
    sample_rate = 16_000
    features, feature_shape = "tags", (None, None)
    needs: ClassVar[tuple[Need, ...]] = ("target",)

    def __init__(self, context: MetricContext) -> None:
        self.tagger: Tagger = context.model(
            "tagger",
            lambda: packaged_aisfx(context) if context.stands_in("cnn14") else Cnn14Tagger(context),
        )
        self.model, self.identity = self.tagger.model, self.tagger.identity

    def extract_features(self, samples: Sequence[EvaluationSample]) -> list[np.ndarray]:
        """Embeddings and logits of each sample's output, and of its target if it has one."""
        paths = [path for sample in samples for path in (sample.output, sample.target) if path]
        waves = {path: load_audio(path, self.tagger.sample_rate) for path in dict.fromkeys(paths)}
        rows = dict(zip(waves, self.tagger.tag(list(waves.values())), strict=True))
        return [
            np.stack([rows[path] for path in (sample.output, sample.target) if path])
            for sample in samples
        ]


class FrechetDistance(_TagMetric):
    """Frechet distance between embeddings of outputs and targets."""

    name, title = "fd", "FD"

    def pool(self, features: np.ndarray) -> np.ndarray:
        """The embeddings, (2, width)."""
        return features[:, : self.tagger.width]

    def aggregate(self, pooled: Sequence[np.ndarray]) -> float:
        """The distance."""
        pairs = np.stack(pooled)
        return frechet_distance(pairs[:, 0], pairs[:, 1])


class ClassDivergence(_TagMetric):
    """Divergence of an output's class posteriors from its target's."""

    name, title = "kl", "KL"

    def pool(self, features: np.ndarray) -> np.ndarray:
        """The sample's own divergence, ()."""
        output, target = softmax(features[:, self.tagger.width :])
        return np.asarray(divergence(target, output))


class InceptionScore(_TagMetric):
    """Inception score of the outputs' class posteriors."""

    name, title, better, needs = "is", "IS", "higher", ()

    def pool(self, features: np.ndarray) -> np.ndarray:
        """The output's posteriors, (classes,)."""
        return softmax(features[0, self.tagger.width :])

    def aggregate(self, pooled: Sequence[np.ndarray]) -> float:
        """The score."""
        return inception_score(np.stack(pooled))


class ClapScore(Metric):
    """Cosine between an output and its caption."""

    name, title, better, sample_rate = "clap", "CLAP", "higher", 48_000
    needs: ClassVar[tuple[Need, ...]] = ("caption",)

    def __init__(self, context: MetricContext) -> None:
        self.matcher: Matcher = context.model("matcher", lambda: self.load(context))
        self.model, self.identity = self.matcher.model, self.matcher.identity

    def load(self, context: MetricContext) -> Matcher:
        """The model that compares sounds with captions."""
        if context.stands_in("clap"):
            from unison_audio.nano.label_matcher import LabelMatcher

            return LabelMatcher(context)
        return Clap(context)

    def extract_features(self, samples: Sequence[EvaluationSample]) -> list[np.ndarray]:
        """The cosine of each sample, ()."""
        waves = [load_audio(sample.output, self.matcher.sample_rate) for sample in samples]
        captions = [sample.item.caption for sample in samples]
        return [np.asarray(cosine) for cosine in self.cosines(waves, captions)]

    def cosines(self, waves: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
        """Cosines (B,) of sounds with their captions."""
        products = self.matcher.embed_audio(waves) * self.matcher.embed_text(captions)
        return products.sum(dim=1).double().numpy()


class SegmentClapScore(ClapScore):
    """Mean cosine between the windows of an output's events and the events' own captions."""

    name, title, needs = "segment_clap", "CLAP per segment", ("events",)

    def extract_features(self, samples: Sequence[EvaluationSample]) -> list[np.ndarray]:
        """The mean cosine of each sample's events, ()."""
        return [
            np.asarray(
                self.cosines(
                    event_windows(sample, self.matcher.sample_rate),
                    [event.caption for event in sample.item.events],
                ).mean()
            )
            for sample in samples
        ]


def event_windows(sample: EvaluationSample, sample_rate: int) -> list[np.ndarray]:
    """The windows of an item's events in its output, (samples,) each.

    Args:
        sample: Its item has events.
        sample_rate: Of the result, in Hz.

    Raises:
        InputError: If the output ends before an event begins.
    """
    waveform = load_audio(sample.output, sample_rate)
    windows = []
    for event in sample.item.events:
        window = waveform[round(event.start * sample_rate) : round(event.end * sample_rate)]
        if len(window) == 0:
            raise InputError(
                f"{sample.output} ends at {len(waveform) / sample_rate:.2f} s, before the event at "
                f"{event.start:.2f} s begins; generate it at full length"
            )
        windows.append(window)
    return windows


SOUND: tuple[type[Metric], ...] = (
    FrechetAudioDistance,
    FadInfinity,
    FrechetDistance,
    ClassDivergence,
    InceptionScore,
    ClapScore,
    SegmentClapScore,
)
"""Metrics of sound; their sample rates are those of the published models."""

"""Metrics of sound: FAD, FAD-infinity, FD, KL, IS, CLAP and CLAP by segment (paper §4.2)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

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
    Judge,
    Metric,
    Tools,
    heard,
    mean_score,
    target_of,
)
from unison_audio.evaluation.models.clap import Clap
from unison_audio.evaluation.models.cnn14 import Cnn14Tagger
from unison_audio.evaluation.models.offline import CaptionMatcher, Fragments, indexer
from unison_audio.evaluation.models.vggish import VggishEmbedder
from unison_audio.evaluation.test_sets.manifest import Sample

SetDistance = Callable[[np.ndarray, np.ndarray], float]


class Ear(Protocol):
    """A model that listens, as judges know it."""

    @property
    def model(self) -> str:
        """Name of the model and the checkpoint."""
        ...

    @property
    def identity(self) -> str:
        """What tells it from others of the same name."""
        ...

    @property
    def sample_rate(self) -> int:
        """At which it hears, in Hz."""
        ...


class Embedder(Ear, Protocol):
    """An ear that describes each short stretch of a sound."""

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """Maps (samples,) to (stretches, D); raises `InputError` if it is too short."""
        ...


class Tagger(Ear, Protocol):
    """An ear that describes a sound as a whole and tells classes apart."""

    @property
    def width(self) -> int:
        """Of the embedding."""
        ...

    def tag(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Maps sounds (samples,) to embeddings and logits side by side, (width + classes,)."""
        ...


class Matcher(Ear, Protocol):
    """An ear that puts sounds and texts into one space."""

    def hear(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Maps B sounds (samples,) to unit vectors (B, D)."""
        ...

    def read(self, texts: Sequence[str]) -> Tensor:
        """Maps B texts to unit vectors (B, D)."""
        ...


class _EarJudge:
    """A judge that hears by an ear."""

    def __init__(self, ear: Ear) -> None:
        self.model, self.identity = ear.model, ear.identity


class FadJudge(_EarJudge):
    """Distance between the embeddings of all outputs' stretches and all targets'.

    A description is (stretches of both, 1 + D); the first column is 0 for the output's, 1 for the
    target's.

    Args:
        embedder: Who listens.
        distance: Of two sets of embeddings.
    """

    described_as = "stretches"
    needs_target = True

    def __init__(self, embedder: Embedder, distance: SetDistance) -> None:
        super().__init__(embedder)
        self.embedder, self.distance = embedder, distance

    def describe(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """Embeds the stretches of each sample's output and target."""
        return [
            np.concatenate(
                [
                    np.pad(self._embed(path), ((0, 0), (1, 0)), constant_values=mark)
                    for mark, path in enumerate((sample.output, target_of(sample)))
                ]
            )
            for sample in samples
        ]

    def reduce(self, described: Sequence[np.ndarray]) -> float:
        """The distance; outputs come first."""
        rows = np.concatenate(described)
        marks, vectors = rows[:, 0], rows[:, 1:]
        return self.distance(vectors[marks == 0], vectors[marks == 1])

    def _embed(self, path: Path) -> np.ndarray:
        return self.embedder.embed(heard(path, self.embedder.sample_rate))


class FadInfinityJudge(FadJudge):
    """The distance that endless sets of outputs would have.

    Args:
        embedder: Who listens.
    """

    most_draws = 100
    """One figure takes as long as `frechet.STEPS` distances."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__(embedder, frechet_infinity)


class TaggerJudge(_EarJudge):
    """Describes output and target by a tagger's embeddings and logits.

    A description is (1 or 2, width + classes): the output's row, then the target's if there is one.

    Args:
        tagger: Who listens.
    """

    described_as = "tags"
    needs_target = True

    def __init__(self, tagger: Tagger) -> None:
        super().__init__(tagger)
        self.tagger = tagger

    def describe(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """Hears each sample's output, and its target if there is one."""
        paths = [path for sample in samples for path in (sample.output, sample.target) if path]
        waves = {path: heard(path, self.tagger.sample_rate) for path in dict.fromkeys(paths)}
        rows = dict(zip(waves, self.tagger.tag(list(waves.values())), strict=True))
        return [
            np.stack([rows[path] for path in (sample.output, sample.target) if path])
            for sample in samples
        ]


class FdJudge(TaggerJudge):
    """Frechet distance between embeddings of outputs and targets."""

    def condense(self, described: np.ndarray) -> np.ndarray:
        """The embeddings, (2, width)."""
        return described[:, : self.tagger.width]

    def reduce(self, described: Sequence[np.ndarray]) -> float:
        """The distance."""
        pairs = np.stack(described)
        return frechet_distance(pairs[:, 0], pairs[:, 1])


class KlJudge(TaggerJudge):
    """Divergence of an output's class posteriors from its target's."""

    def condense(self, described: np.ndarray) -> np.ndarray:
        """The sample's own divergence, ()."""
        output, target = softmax(described[:, self.tagger.width :])
        return np.asarray(divergence(target, output))

    def reduce(self, described: Sequence[np.ndarray]) -> float:
        """The mean divergence."""
        return mean_score(described)


class IsJudge(TaggerJudge):
    """Inception score of the outputs' class posteriors."""

    needs_target = False

    def condense(self, described: np.ndarray) -> np.ndarray:
        """The output's posteriors, (classes,)."""
        return softmax(described[0, self.tagger.width :])

    def reduce(self, described: Sequence[np.ndarray]) -> float:
        """The score."""
        return inception_score(np.stack(described))


class ClapJudge(_EarJudge):
    """Cosine between an output and its caption.

    Args:
        matcher: Who listens and reads.
    """

    def __init__(self, matcher: Matcher) -> None:
        super().__init__(matcher)
        self.matcher = matcher

    def describe(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """The cosine of each sample, ()."""
        captions = [require_caption(sample) for sample in samples]
        waves = [heard(sample.output, self.matcher.sample_rate) for sample in samples]
        cosines = (self.matcher.hear(waves) * self.matcher.read(captions)).sum(dim=1)
        return [np.asarray(cosine) for cosine in cosines.double().numpy()]

    def reduce(self, described: Sequence[np.ndarray]) -> float:
        """The mean cosine."""
        return mean_score(described)


class SegmentClapJudge(ClapJudge):
    """Mean cosine between the windows of an output's events and the events' own captions."""

    def describe(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """The mean cosine of each sample's events, ()."""
        described = []
        for sample in samples:
            windows = event_windows(sample, self.matcher.sample_rate)
            captions = [event.caption for event in sample.item.events]
            cosines = (self.matcher.hear(windows) * self.matcher.read(captions)).sum(dim=1)
            described.append(np.asarray(float(cosines.double().mean())))
        return described


def require_caption(sample: Sample) -> str:
    """A sample's caption.

    Raises:
        InputError: If its item has none.
    """
    if not sample.item.caption:
        raise InputError(
            f"Item {sample.item.id} has no caption; leave CLAP out for the set {sample.item.set}"
        )
    return sample.item.caption


def event_windows(sample: Sample, sample_rate: int) -> list[np.ndarray]:
    """What sounds in an output in the windows of its item's events, (samples,) each.

    Args:
        sample: With a timeline.
        sample_rate: Of the result, in Hz.

    Raises:
        InputError: If the item has no events, or the output ends before one begins.
    """
    item = sample.item
    if not item.events:
        raise InputError(
            f"Item {item.id} has no timed events; leave CLAP by segment out for the set {item.set}"
        )
    waveform = heard(sample.output, sample_rate)
    windows = []
    for event in item.events:
        window = waveform[round(event.start * sample_rate) : round(event.end * sample_rate)]
        if len(window) == 0:
            raise InputError(
                f"{sample.output} ends at {len(waveform) / sample_rate:.2f} s, before the event at "
                f"{event.start:.2f} s begins; generate it at full length"
            )
        windows.append(window)
    return windows


def _embedder(tools: Tools) -> Embedder:
    return tools.model(
        "embedder", lambda: Fragments(tools) if _offline(tools, "vggish") else VggishEmbedder(tools)
    )


def _tagger(tools: Tools) -> Tagger:
    return tools.model(
        "tagger", lambda: indexer(tools) if _offline(tools, "cnn14") else Cnn14Tagger(tools)
    )


def _matcher(tools: Tools) -> Matcher:
    return tools.model(
        "matcher", lambda: CaptionMatcher(tools) if _offline(tools, "clap") else Clap(tools)
    )


def _offline(tools: Tools, name: str) -> bool:
    """Whether a model is to be stood in for; not if its own files are given."""
    return tools.offline_judges and tools.path(name) is None


def _fad(tools: Tools) -> Judge:
    return FadJudge(_embedder(tools), frechet_distance)


def _fad_infinity(tools: Tools) -> Judge:
    return FadInfinityJudge(_embedder(tools))


def _fd(tools: Tools) -> Judge:
    return FdJudge(_tagger(tools))


def _kl(tools: Tools) -> Judge:
    return KlJudge(_tagger(tools))


def _is(tools: Tools) -> Judge:
    return IsJudge(_tagger(tools))


def _clap(tools: Tools) -> Judge:
    return ClapJudge(_matcher(tools))


def _segment_clap(tools: Tools) -> Judge:
    return SegmentClapJudge(_matcher(tools))


# Plain functions, no lambdas, so that metrics can be sent to other processes.
SOUND: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="fad", title="FAD", better="lower", sample_rate=16_000, judge=_fad),
        Metric(
            name="fad_inf", title="FAD∞", better="lower", sample_rate=16_000, judge=_fad_infinity
        ),
        Metric(name="fd", title="FD", better="lower", sample_rate=16_000, judge=_fd),
        Metric(name="kl", title="KL", better="lower", sample_rate=16_000, judge=_kl),
        Metric(name="is", title="IS", better="higher", sample_rate=16_000, judge=_is),
        Metric(name="clap", title="CLAP", better="higher", sample_rate=48_000, judge=_clap),
        Metric(
            name="segment_clap",
            title="CLAP per segment",
            better="higher",
            sample_rate=48_000,
            judge=_segment_clap,
        ),
    )
}
"""Name -> metric. Sample rates are those of the published models."""

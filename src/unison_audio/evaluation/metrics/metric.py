"""The metric interface, and the context that gives metrics their models."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from unison_audio.audio import load
from unison_audio.errors import InputError
from unison_audio.evaluation.test_sets.manifest import EvaluationSample, Need, Role

Model = TypeVar("Model")


@dataclass(kw_only=True)
class MetricContext:
    """Source of the metric models, and everything that metrics share."""

    paths: Mapping[str, Path] = field(default_factory=dict)
    """Local files or folders of models by name, such as ``vggish``, ``cnn14`` and ``clap``; the
    others come out of a package, the cache folder or the hub."""
    device: str = "cpu"
    """Device of the models."""
    cache: Path | None = None
    """Folder of the features; None keeps none."""
    offline: bool = False
    """Whether models out of packages stand in for those that are not in `paths`, for use without a
    network."""
    models: dict[str, Any] = field(default_factory=dict, repr=False)
    """Loaded models by name; a model put here is used in place of the one that would be loaded."""

    def path(self, name: str) -> Path | None:
        """The local file or folder of a model; None where none is given.

        Raises:
            InputError: If a path is given and nothing is there.
        """
        path = self.paths.get(name)
        if path is not None and not Path(path).exists():
            raise InputError(
                f"There is nothing at {path}, given for the metric model {name!r}; check the path"
            )
        return Path(path) if path is not None else None

    def stands_in(self, name: str) -> bool:
        """Whether a model out of a package is used in place of the named one."""
        return self.offline and self.path(name) is None

    def model(self, key: str, load_model: Callable[[], Model]) -> Model:
        """Loads a model once for all metrics that use it.

        Args:
            key: Its name in `models`.
            load_model: Loads it.
        """
        if key not in self.models:
            self.models[key] = load_model()
        return self.models[key]

    def open(self, metric: type["Metric"]) -> "Metric":
        """A metric with its model, made once."""
        return self.model(f"metric {metric.name}", lambda: metric(self))


class Metric:
    """A metric: its inputs, the features of a sample, and the figure of a set.

    A subclass declares the class attributes. It implements `score` where each sample has a score of
    its own, and otherwise `extract_features` and `aggregate`. One that needs a model loads it in
    `__init__` through `MetricContext.model`, and sets `model` and `identity`.

    Args:
        context: Source of the metric models.

    Raises:
        InputError: If the metric model is not available.
    """

    name: ClassVar[str]
    """Short name, the key in `METRICS`."""
    title: ClassVar[str]
    """Title in tables."""
    better: ClassVar[Literal["higher", "lower"]]
    """Which direction is better."""
    sample_rate: ClassVar[int]
    """Sample rate in Hz at which outputs are checked, the metric model's own."""
    unit: ClassVar[str] = ""
    """Unit of the figure; empty if it has none."""
    version: ClassVar[int] = 1
    """Version of the features. Raise it with any change of `extract_features`: cached features of
    other versions are not used."""
    features: ClassVar[str] = ""
    """Name of the features in the cache; the metric's own if empty. Metrics that extract the same
    features of the same model share a name, and the work."""
    feature_shape: ClassVar[tuple[int | None, ...]] = ()
    """Shape of a sample's features, None for a size that depends on model or sample; () is one
    score a sample."""
    needs: ClassVar[tuple[Need, ...]] = ()
    """Inputs that an item must have; a sample without them counts as failed."""
    scores_silence: ClassVar[bool] = False
    """Whether a silent output is measured; otherwise it counts as failed. Silence is measured where
    leaving it out would spare a system its worst outputs."""
    max_bootstrap: ClassVar[float] = math.inf
    """Most resamples of the bootstrap, for figures that are slow to compute."""

    model: str = ""
    """Name of the metric model and its checkpoint; printed with every figure."""
    identity: str = ""
    """Identity of the model, such as a checksum; `model` if empty."""

    def __init__(self, context: MetricContext) -> None:
        del context

    def score(self, sample: EvaluationSample) -> float:
        """A sample's own score.

        Raises:
            InputError: If the sample cannot be scored; it is then counted as failed, and named.
        """
        raise NotImplementedError(f"{type(self).__name__} has no score of a single sample")

    def extract_features(self, samples: Sequence[EvaluationSample]) -> list[np.ndarray]:
        """Features of each sample, of `feature_shape`; by default its score.

        Args:
            samples: At most `measure.BATCH`.

        Raises:
            Exception: If a sample has none; the samples are then given one by one.
        """
        return [np.asarray(self.score(sample), np.float64) for sample in samples]

    def pool(self, features: np.ndarray) -> np.ndarray:
        """The part of the features that `aggregate` takes; of shape (), it is the score itself."""
        return features

    def aggregate(self, pooled: Sequence[np.ndarray]) -> float:
        """The figure of a set; by default the mean of the scores.

        Raises:
            InputError: If there are too few samples.
        """
        return float(np.mean(np.stack([np.asarray(score, np.float64) for score in pooled])))


def load_audio(path: Path, sample_rate: int) -> np.ndarray:
    """Reads a file at a metric model's sample rate.

    Args:
        path: The file.
        sample_rate: In Hz.

    Returns:
        (samples,), mono, float32.

    Raises:
        InputError: If the file cannot be read, or holds values that are not finite.
    """
    return load(path, sample_rate=sample_rate).numpy()


def windows(waveform: np.ndarray, span: int, *, tolerated: int = 0) -> list[np.ndarray]:
    """Cuts a sound into the fewest windows that cover it, evenly spaced.

    Args:
        waveform: (samples,).
        span: Samples of a window; a shorter sound is its own window.
        tolerated: Samples at the end that need not be covered.
    """
    over = len(waveform) - span
    if over <= 0:
        return [waveform]
    count = 1 + max(0, math.ceil((over - tolerated) / span))
    starts = [round(over * k / (count - 1)) for k in range(count)] if count > 1 else [0]
    return [waveform[start : start + span] for start in starts]


def path_of(sample: EvaluationSample, role: Role) -> Path:
    """The file of a sample's role.

    Raises:
        InputError: If it has none; declare it in `Metric.needs`, and such samples never come.
    """
    path: Path | None = vars(sample)[role]
    if path is None:
        raise InputError(f"Item {sample.item.id} has no {role}; leave this metric out for its set")
    return path

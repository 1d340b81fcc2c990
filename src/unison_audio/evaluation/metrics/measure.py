"""Measures a metric over a set of samples: cached features, listed failures, an interval."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from unison_audio.audio import load, require_sound
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.feature_cache import FeatureCache, feature_key
from unison_audio.evaluation.metrics.metric import Metric, MetricContext
from unison_audio.evaluation.test_sets.manifest import EvaluationSample

logger = logging.getLogger(__name__)

BATCH = 32
"""Batch size of a metric. The features of a batch are cached before the next batch begins."""

CONFIDENCE = 0.95
"""Confidence of the bootstrap's intervals."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The result of a metric over a set."""

    metric: str
    """Name of the metric."""
    value: float
    """The figure; NaN where no sample could be measured, or too few."""
    low: float
    """Lower end of the bootstrap interval at `CONFIDENCE`."""
    high: float
    """Upper end of the interval."""
    count: int
    """Number of samples in the figure."""
    failed: tuple[str, ...]
    """Ids of the samples that could not be measured."""
    model: str
    """Name of the metric model."""
    per_item: dict[str, float] | None = None
    """Each sample's own score by id; None for metrics that only have figures of sets."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why each of `failed` could not be measured; under "" why the set could not."""


def measure(
    metric: type[Metric],
    samples: Sequence[EvaluationSample],
    context: MetricContext,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Score:
    """Measures a set of samples.

    Features are cached, so a killed run resumes. A sample that cannot be measured is named in the
    result with the reason.

    Args:
        metric: The metric.
        samples: The samples; their ids are unique.
        context: Where the metric finds its model.
        bootstrap: Resamples for the interval; 0 gives none (NaN).
        seed: Seed of the resamples.

    Raises:
        InputError: If the metric model is not available.
    """
    opened = context.open(metric)
    features, reasons = _features(opened, samples, context)
    failed = tuple(sample.item.id for sample in samples if sample.item.id in reasons)
    if failed:
        logger.warning("%s: %d of %d samples failed", opened.name, len(failed), len(samples))
    pooled = {name: np.asarray(opened.pool(array)) for name, array in features.items()}
    arrays = list(pooled.values())
    own = bool(arrays) and all(array.ndim == 0 for array in arrays)
    value = low = high = math.nan
    try:
        if arrays:
            value = opened.aggregate(arrays)
            low, high = _interval(opened, arrays, value, own, bootstrap, seed)
    except InputError as error:
        reasons[""] = str(error)
        logger.warning("%s: %s", opened.name, error)
    return Score(
        metric=opened.name,
        value=float(value),
        low=low,
        high=high,
        count=len(arrays),
        failed=failed,
        model=opened.model,
        per_item={name: float(array) for name, array in pooled.items()} if own else None,
        reasons=reasons,
    )


def _features(
    metric: Metric, samples: Sequence[EvaluationSample], context: MetricContext
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Features and reasons of failure by sample id; cached features are reused."""
    name = metric.features or metric.name
    cache = FeatureCache(context.cache / name) if context.cache is not None else None
    found: dict[str, np.ndarray] = {}
    reasons: dict[str, str] = {}
    unknown: list[tuple[EvaluationSample, str]] = []
    for sample in samples:
        key, item = "", sample.item.id
        if lacking := _lacking(metric, sample):
            reasons[item] = lacking
            continue
        if cache is not None:
            try:
                key = feature_key(sample, name, metric.version, metric.identity or metric.model)
            except OSError as error:
                reasons[item] = f"{error.filename}: {error.strerror}"
                continue
            kept = cache.read(key)
            if kept is not None:
                found[item] = kept
                continue
        unknown.append((sample, key))
    # An InputError is about one sample; any other exception may be a bug. If every sample fails and
    # one of them with a bug, that is raised below instead of a table of NaN.
    fault: Exception | None = None
    for start in range(0, len(unknown), BATCH):
        usable = []
        for sample, key in unknown[start : start + BATCH]:
            try:
                _require_usable(sample, metric)
                usable.append((sample, key))
            except InputError as error:
                reasons[sample.item.id] = str(error)
        extracted = _extract(metric, [sample for sample, _ in usable])
        for (sample, key), result in zip(usable, extracted, strict=True):
            if isinstance(result, Exception):
                fault = fault if isinstance(result, InputError) else result
                reasons[sample.item.id] = str(result) or type(result).__name__
                continue
            found[sample.item.id] = result
            if cache is not None:
                cache.write(key, result)
    if fault is not None and not found:
        raise fault  # not a single sample worked: the metric is at fault, not the samples
    order = [sample.item.id for sample in samples]
    return {name: found[name] for name in order if name in found}, reasons


def _lacking(metric: Metric, sample: EvaluationSample) -> str:
    """The reason why a sample lacks an input of the metric; empty if it lacks none."""
    for need in metric.needs:
        if not sample.has(need):
            called = "timed events" if need == "events" else need
            return (
                f"Item {sample.item.id} has no {called}; leave the metric {metric.name!r} out for "
                f"the set {sample.item.set}"
            )
    return ""


def _extract(metric: Metric, batch: Sequence[EvaluationSample]) -> list[np.ndarray | Exception]:
    """Features of a batch; if the batch fails, its samples are retried one by one."""
    if not batch:
        return []
    try:
        extracted = [np.asarray(array) for array in metric.extract_features(batch)]
        if len(extracted) != len(batch):
            raise ValueError(
                f"{metric.name} gave {len(extracted)} features for {len(batch)} samples; give one "
                "array a sample"
            )
    except Exception as error:
        # One bad file must not cost its whole batch the figure. Alone, each sample fails or works.
        if len(batch) == 1:
            return [error]
        return [entry for sample in batch for entry in _extract(metric, [sample])]
    return [_checked(metric, array) for array in extracted]


def _checked(metric: Metric, array: np.ndarray) -> np.ndarray | Exception:
    """Features of the declared shape, or an error that describes the fault."""
    declared = metric.feature_shape
    if len(declared) != array.ndim or any(
        size not in (None, own) for size, own in zip(declared, array.shape, strict=True)
    ):
        return ValueError(
            f"{metric.name} gave features of the shape {array.shape} where {declared} is declared; "
            "correct feature_shape or extract_features"
        )
    if not np.isfinite(array).all():
        return InputError("the metric model's answer is not finite")
    return array


def _require_usable(sample: EvaluationSample, metric: Metric) -> None:
    """Refuses an unreadable output, and a silent one if the metric does not measure silence.

    Raises:
        InputError: With the reason.
    """
    output = load(sample.output, sample_rate=metric.sample_rate)
    if not metric.scores_silence:
        require_sound(output, str(sample.output))


def _interval(
    metric: Metric,
    arrays: Sequence[np.ndarray],
    value: float,
    own: bool,
    bootstrap: int,
    seed: int,
) -> tuple[float, float]:
    """The bootstrap's interval: samples are drawn anew with replacement.

    Figures of sets, such as Frechet distances, are biased in few samples, and more so in resamples,
    which repeat some. Their resamples are therefore moved so that their mean is the figure; the
    interval tells the spread between sets, not the bias.
    """
    bootstrap = int(min(bootstrap, metric.max_bootstrap))
    if bootstrap <= 0 or not arrays:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    if own and type(metric).aggregate is Metric.aggregate:
        scores = np.stack(arrays).astype(np.float64)
        draws = np.stack(
            [scores[rng.integers(len(scores), size=len(scores))].mean() for _ in range(bootstrap)]
        )
    else:
        draws = np.array(
            [
                metric.aggregate([arrays[i] for i in rng.integers(len(arrays), size=len(arrays))])
                for _ in range(bootstrap)
            ]
        )
        # A resample has only about 63 % of the samples, some of them repeatedly. That shifts
        # distances between sets upwards, so the interval would lie beside the figure.
        draws += value - draws.mean()
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)

"""Metrics that need no model: loudness of an output, and how loudness is spread over a set."""

from collections.abc import Sequence

import numpy as np

from unison_audio.evaluation.metrics.metric import Metric, load_audio
from unison_audio.evaluation.test_sets.manifest import EvaluationSample

RATE = 16_000


class Loudness(Metric):
    """The RMS of each output in dB of full scale."""

    title, better, sample_rate, model = "loudness", "higher", RATE, "root mean square"

    def score(self, sample: EvaluationSample) -> float:
        wave = load_audio(sample.output, RATE)
        return 20 * np.log10(np.sqrt(np.mean(wave**2)) + 1e-9)


class Spread(Metric):
    """The standard deviation of the peaks over a set."""

    title, better, sample_rate, model = "spread", "higher", RATE, "peak"
    feature_shape = (1,)

    def extract_features(self, samples: Sequence[EvaluationSample]) -> list[np.ndarray]:
        return [np.array([np.abs(load_audio(sample.output, RATE)).max()]) for sample in samples]

    def aggregate(self, pooled: Sequence[np.ndarray]) -> float:
        return float(np.std(np.stack(pooled)))


def toy_metrics(*names: str) -> dict[str, type[Metric]]:
    """Under the names of real ones, loudness; under "fd", the spread."""
    return {
        name: type("Toy", (Spread if name == "fd" else Loudness,), {"name": name, "title": name})
        for name in names
    }

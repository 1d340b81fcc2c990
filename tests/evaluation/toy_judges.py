"""Judges that need no model: loudness of an output, and how loudness is spread over a set."""

from collections.abc import Sequence

import numpy as np

from unison_audio.audio import load
from unison_audio.evaluation.metrics.metric import Metric, Tools, mean_score
from unison_audio.evaluation.test_sets.manifest import Sample


class Loudness:
    """The RMS of each output in dB of full scale."""

    model = "root mean square"

    def describe(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        waves = [load(sample.output, sample_rate=16_000).numpy() for sample in samples]
        return [np.asarray(20 * np.log10(np.sqrt(np.mean(wave**2)) + 1e-9)) for wave in waves]

    reduce = staticmethod(mean_score)


class Spread:
    """The standard deviation of the peaks over a set."""

    model = "peak"

    def describe(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        waves = [load(sample.output, sample_rate=16_000).numpy() for sample in samples]
        return [np.array([np.abs(wave).max()]) for wave in waves]

    def reduce(self, described: Sequence[np.ndarray]) -> float:
        return float(np.std(np.stack(described)))


def loudness(tools: Tools) -> Loudness:
    return Loudness()


def spread(tools: Tools) -> Spread:
    return Spread()


def toy_metrics(*names: str) -> dict[str, Metric]:
    """Under the names of real ones, loudness; under "fd", the spread."""
    return {
        name: Metric(
            name=name,
            title=name,
            better="higher",
            sample_rate=16_000,
            judge=spread if name == "fd" else loudness,
        )
        for name in names
    }

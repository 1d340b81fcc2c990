"""Adds a metric, the error of the level: `python examples/custom_metric.py [FOLDER]`.

docs/add-a-metric.md explains each numbered step and names the file that it belongs to.
"""

import sys
from pathlib import Path

import numpy as np

from unison_audio import Audio, Unison
from unison_audio.evaluation.metrics.measure import measure
from unison_audio.evaluation.metrics.metric import Metric, MetricContext, load_audio, path_of
from unison_audio.evaluation.metrics.table import METRICS
from unison_audio.evaluation.test_sets.manifest import EvaluationSample, TestItem

RATE = 16_000


# 1. The metric: what it is called, what it needs, and the score of one sample.
class LevelError(Metric):
    """The absolute difference in dB between the RMS levels of output and target."""

    name, title, better, unit = "level_error", "Level error", "lower", "dB"
    sample_rate = RATE
    needs = ("target",)
    model = "RMS level"

    def score(self, sample: EvaluationSample) -> float:
        """The difference in dB."""
        levels = [
            20 * np.log10(np.sqrt(np.mean(np.square(load_audio(path, RATE)))) + 1e-9)
            for path in (sample.output, path_of(sample, "target"))
        ]
        return abs(levels[0] - levels[1])


# 2. The row of the table.
METRICS["level_error"] = LevelError


def run(folder: Path) -> None:
    """Measure four outputs of nano against targets that are 6 dB softer."""
    unison = Unison.from_pretrained("nano")
    labels = ["rain", "thunder", "birds singing", "footsteps"]
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for i, sound in enumerate(unison.generate([f"[Audio] {label}" for label in labels])):
        output, target = folder / f"output-{i}.wav", folder / f"target-{i}.wav"
        sound.save(output)
        Audio(0.5 * sound.waveform, sound.sample_rate).save(target)
        item = TestItem(
            id=f"item-{i}",
            set="custom",
            task="t2a",
            instruction=sound.instruction,
            seconds=sound.seconds,
        )
        samples.append(EvaluationSample(item=item, output=output, target=target, source=None))

    # 3. Features are cached, failures named, and the interval is a bootstrap over the items.
    score = measure(LevelError, samples, MetricContext(cache=folder / "features"))
    print(f"{score.value:.2f} dB [{score.low:.2f}, {score.high:.2f}] by {score.model}")
    print(score.per_item)


if __name__ == "__main__":
    run(Path(sys.argv[1] if len(sys.argv) > 1 else "level-error"))

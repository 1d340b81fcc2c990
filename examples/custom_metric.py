"""Adds a metric, the error of the level: `python examples/custom_metric.py [FOLDER]`.

docs/add-a-metric.md explains each numbered step and names the file that it belongs to.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unison_audio import Audio, Unison
from unison_audio.evaluation.metrics.metric import Metric, Tools, heard, measure, target_of
from unison_audio.evaluation.metrics.speech import ItemJudge
from unison_audio.evaluation.metrics.table import METRICS
from unison_audio.evaluation.test_sets.manifest import Item, Sample

RATE = 16_000


# 1. What is computed for each item: one number.
def level_errors(samples: Sequence[Sample]) -> list[float]:
    """The absolute difference in dB between the RMS levels of output and target."""
    errors = []
    for sample in samples:
        levels = [
            20 * np.log10(np.sqrt(np.mean(np.square(heard(path, RATE)))) + 1e-9)
            for path in (sample.output, target_of(sample))
        ]
        errors.append(abs(levels[0] - levels[1]))
    return errors


# 2. The metric: a title, a direction, a sample rate, a unit, and what makes it.
METRICS["level_error"] = Metric(
    name="level_error",
    title="Level error",
    better="lower",
    sample_rate=RATE,
    unit="dB",
    judge=lambda tools: ItemJudge(model="RMS level", identity="RMS level 1", scores=level_errors),
)


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
        item = Item(
            id=f"item-{i}",
            set="custom",
            task="t2a",
            instruction=sound.instruction,
            seconds=sound.seconds,
        )
        samples.append(Sample(item=item, output=output, target=target, source=None))

    # 3. Features are cached, failures named, and the interval is a bootstrap over the items.
    score = measure(METRICS["level_error"], samples, Tools(cache=folder / "features"))
    print(f"{score.value:.2f} dB [{score.low:.2f}, {score.high:.2f}] by {score.model}")
    print(score.per_item)


if __name__ == "__main__":
    run(Path(sys.argv[1] if len(sys.argv) > 1 else "level-error"))

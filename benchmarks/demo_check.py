"""The demo's examples, measured one by one: each against the bars of its task.

python benchmarks/demo_check.py --corpus CORPUS --out FOLDER [--variant nano] [--classifier FOLDER]

`demo_draws.py` measures several examples of each task.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch.nn.functional as F
from demo_inputs import draw_again
from torch import Tensor

from unison_audio.audio import save
from unison_audio.codecs.table import AudioCodec
from unison_audio.demo.examples import DemoExample, packaged_inputs, read_examples
from unison_audio.evaluation.metrics.measure import measure
from unison_audio.evaluation.metrics.metric import MetricContext
from unison_audio.evaluation.models.weights import require_packages
from unison_audio.evaluation.systems import ThroughCodec
from unison_audio.evaluation.test_sets.manifest import EvaluationSample
from unison_audio.nano.bars import OWN_VOICE, THRESHOLDS, BarRow, Threshold, with_thresholds
from unison_audio.nano.event_model import classifier_folder, prepare_classifier
from unison_audio.nano.items import render_items
from unison_audio.nano.metrics import NANO_METRICS
from unison_audio.nano.results import (
    FIGURES,
    MODEL,
    SOURCE,
    SOURCE_CODEC,
    TRUTH,
    SetScores,
    rows_of,
)
from unison_audio.pipeline import Unison
from unison_audio.tasks.table import TASKS, TaskBatch

PAGE = "demo.md"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found out about one example."""

    example: DemoExample
    """The example."""
    rows: tuple[BarRow, ...]
    """The figures that its task has a bar for, with the bars."""

    @property
    def passed(self) -> bool:
        """Whether every bar is met."""
        return all(row.met for row in self.rows)


def check_demo(
    unison: Unison, corpus: Path, out: Path, *, classifier: Path | None = None
) -> list[Verdict]:
    """Generates the page's examples and measures them.

    Args:
        unison: The model.
        corpus: What ``unison-audio data nano`` wrote; the page's examples are drawn from it anew,
            to know their targets.
        out: Folder for ``demo.md``, the sounds and the features.
        classifier: Folder of the event classifier, as in `evaluate_nano`.

    Returns:
        A verdict for each example, in the order of the task table.

    Raises:
        InputError: If the corpus gives other examples, or a metric model is missing.
    """
    inputs = packaged_inputs()
    drawn = draw_again(corpus, read_examples(inputs))
    context = prepare(unison, corpus, out, classifier)
    verdicts = judge(unison, drawn, inputs, out / "sounds", context)
    (out / PAGE).write_text(table(verdicts))
    return verdicts


def prepare(
    unison: Unison, corpus: Path, out: Path, classifier: Path | None = None
) -> MetricContext:
    """The metric models.

    Args:
        unison: The model that is to be measured.
        corpus: What ``unison-audio data nano`` wrote; it trains the event classifier if need be.
        out: Folder of the features and, without `classifier`, of the classifier.
        classifier: Folder of the event classifier, as in `evaluate_nano`.

    Raises:
        InputError: If a metric model is missing.
    """
    require_packages()
    out.mkdir(parents=True, exist_ok=True)
    folder = classifier_folder(out, classifier)
    prepare_classifier(corpus, unison.codec.sample_rate, folder)
    return MetricContext(paths={"classifier": folder}, offline=True, cache=out / "features")


def judge(
    unison: Unison,
    drawn: Sequence[tuple[DemoExample, TaskBatch]],
    inputs: Path,
    out: Path,
    context: MetricContext,
) -> list[Verdict]:
    """Generates examples and measures each as `evaluate_nano` measures its task's items.

    A rate over many items becomes that of one: every word counts, a class is there or not, and an
    edit is nearer to its target or not. The voice of zero-shot speech is left out: it
    takes the references of other items.

    Args:
        unison: The model.
        drawn: Each example and what was built for it.
        inputs: Folder of the examples' recordings.
        out: Folder for the sounds.
        context: Where the metrics find their models.
    """
    examples = [example for example, _ in drawn]
    sounds = unison.generate(
        [example.instruction for example in examples],
        source=[example.source and inputs / example.source for example in examples],
        reference=[example.reference and inputs / example.reference for example in examples],
        reference_text=[example.reference_text for example in examples],
        duration=[example.duration for example in examples],
        seed=[example.seed for example in examples],
    )
    measured = (
        measure_one(context, batch, sound.waveform, unison.codec, out / example.task)
        for (example, batch), sound in zip(drawn, sounds, strict=True)
    )
    return [
        Verdict(example=example, rows=rows)
        for example, rows in zip(examples, measured, strict=True)
    ]


def measure_one(
    context: MetricContext, batch: TaskBatch, output: Tensor, codec: AudioCodec, folder: Path
) -> tuple[BarRow, ...]:
    """The figures of one example that its task has a bar for.

    Args:
        context: Where the metrics find their models.
        batch: The example, a batch of one.
        output: (samples,) what the model made; of zero-shot speech without the reference.
        codec: The model's codec.
        folder: Where the sounds are written.
    """
    rate = codec.sample_rate
    (rendered,) = render_items("demo", [batch], rate)
    length = len(rendered.sounds["target"])
    output = F.pad(output, (0, max(0, length - len(output))))[:length]
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    waves = {**rendered.sounds, "output": output}
    if TASKS[batch.task].needs == ("source",):
        # Clipped, since the codec may exceed full scale and a file cannot.
        waves[SOURCE_CODEC] = ThroughCodec(codec).changed(waves["source"]).clamp(-1, 1)
    for role, wave in waves.items():
        paths[role] = folder / f"{role}.flac"
        save(paths[role], wave, rate)
    answers = {MODEL: paths["output"], TRUTH: paths["target"]}
    if TASKS[batch.task].needs == ("source",):
        answers |= {SOURCE: paths["source"], SOURCE_CODEC: paths[SOURCE_CODEC]}
    samples = {
        system: [
            EvaluationSample(
                item=rendered.item,
                output=path,
                target=paths["target"],
                source=paths.get("source"),
                reference=paths.get("reference"),
            )
        ]
        for system, path in answers.items()
    }
    rows = rows_of(batch.task, measure_samples(batch.task, samples, context))
    thresholds = {
        # The recording of one item has all or nothing, and nothing would be no bar.
        key: Threshold(at_least=1.0) if bar.below_truth is not None else bar
        for key, bar in THRESHOLDS.items()
        if key[1] != OWN_VOICE
    }
    return tuple(row for row in with_thresholds(rows, thresholds) if row.met is not None)


def measure_samples(
    task: str, samples: Mapping[str, Sequence[EvaluationSample]], context: MetricContext
) -> SetScores:
    """Measures samples that belong to no test set on disk by a task's metrics.

    Args:
        task: Key of `FIGURES`.
        samples: System -> its samples.
        context: Where the metrics find their models.
    """
    names = tuple(dict.fromkeys(name for spec in FIGURES[task] for name in spec.metrics))
    return SetScores(
        scores={
            system: {name: measure(NANO_METRICS[name], own, context, bootstrap=0) for name in names}
            for system, own in samples.items()
        },
        texts={sample.item.id: sample.item.text for own in samples.values() for sample in own},
    )


def table(verdicts: list[Verdict]) -> str:
    """Writes verdicts as a Markdown table."""
    passed = sum(verdict.passed for verdict in verdicts)
    lines = [
        f"{passed} of {len(verdicts)} examples pass.",
        "",
        "| task | instruction | passes | figures |",
        "|---|---|---|---|",
    ]
    for verdict in verdicts:
        figures = "; ".join(
            f"{row.measure} {row.show(row.value)} ({row.bar})" for row in verdict.rows
        )
        task, instruction = verdict.example.task, verdict.example.instruction
        lines.append(
            f"| {task} | {instruction} | {'yes' if verdict.passed else '**no**'} | {figures} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", default="nano")
    parser.add_argument("--classifier", type=Path)
    arguments = parser.parse_args()
    unison = Unison.from_pretrained(arguments.variant)
    verdicts = check_demo(unison, arguments.corpus, arguments.out, classifier=arguments.classifier)
    print(table(verdicts))


if __name__ == "__main__":
    main()

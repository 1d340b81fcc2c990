"""The demo's examples before nano's judges: each against the bars of its task.

python benchmarks/demo_check.py --corpus CORPUS --out FOLDER [--variant nano] [--classifier FOLDER]
"""

import argparse
import dataclasses
from pathlib import Path

import torch
import torch.nn.functional as F
from demo_inputs import draw_examples
from torch import Tensor

from unison_audio.codecs.table import AudioCodec
from unison_audio.demo.examples import DemoExample, packaged_inputs, read_examples
from unison_audio.errors import InputError
from unison_audio.evaluation.models.speech_quality import require_packages
from unison_audio.nano.bars import FINAL, OWN_VOICE, Row, with_bars
from unison_audio.nano.evaluation import classifier_folder, load_judges
from unison_audio.nano.items import Items, round_trip
from unison_audio.nano.metrics import SCORERS, Judges, Scorer
from unison_audio.pipeline import Unison
from unison_audio.tasks.table import TaskBatch

PAGE = "demo.md"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found out about one example."""

    example: DemoExample
    """The example."""
    rows: tuple[Row, ...]
    """The figures that its task has a bar for, with the bars."""

    @property
    def passed(self) -> bool:
        """Whether every bar is met."""
        return all(row.met for row in self.rows)


def check_demo(
    unison: Unison, corpus: Path, out: Path, *, classifier: Path | None = None
) -> list[Verdict]:
    """Plays the page's examples and judges each as `evaluate_nano` judges the items of its task.

    A rate over many items becomes that of one: every word counts, a class is heard or not, and an
    edit is nearer to its target or not. Of zero-shot speech the voice is not judged, which would
    take the references of other items.

    Args:
        unison: The model.
        corpus: What ``unison-audio data nano`` wrote; the page's examples are drawn from it anew,
            to know their targets.
        out: Folder for ``demo.md`` and for what the judges heard.
        classifier: Folder of the event classifier, as in `evaluate_nano`.

    Returns:
        A verdict for each example, in the order of the task table.

    Raises:
        InputError: If the corpus gives other examples, or a judge is missing.
    """
    require_packages()
    inputs = packaged_inputs()
    drawn = list(draw_examples(corpus))
    examples = [example for example, _ in drawn]
    if examples != read_examples(inputs):
        raise InputError(
            f"The corpus {corpus} does not give the demo's examples; build it with this version of "
            "unison-audio data nano."
        )
    rate = unison.codec.sample_rate
    out.mkdir(parents=True, exist_ok=True)
    judges, _ = load_judges(corpus, rate, classifier_folder(out, classifier), out / "heard")
    sounds = unison.generate(
        [example.instruction for example in examples],
        source=[example.source and inputs / example.source for example in examples],
        reference=[example.reference and inputs / example.reference for example in examples],
        reference_text=[example.reference_text for example in examples],
        duration=[example.duration for example in examples],
        seed=[example.seed for example in examples],
    )
    verdicts = [
        Verdict(example=example, rows=judge_one(unison.codec, judges, batch, sound.waveform))
        for (example, batch), sound in zip(drawn, sounds, strict=True)
    ]
    (out / PAGE).write_text(table(verdicts))
    return verdicts


def judge_one(
    codec: AudioCodec, judges: Judges, batch: TaskBatch, output: Tensor
) -> tuple[Row, ...]:
    """The figures of one example that its task has a bar for.

    Args:
        codec: Of the model.
        judges: The judges.
        batch: The example, a batch of one.
        output: (samples,) what the model made; of zero-shot speech without the reference.
    """
    length = batch.target.shape[1]
    if batch.reference_samples is not None:
        edge = int(batch.reference_samples[0])
        output = torch.cat((batch.target[0, :edge], output))
    output = F.pad(output, (0, max(0, length - len(output))))[None, :length]
    items = Items(
        batch=batch,
        output=output,
        target_again=round_trip(codec, batch.target),
        source_again=None if batch.source is None else round_trip(codec, batch.source),
        real_time_factor=0.0,
    )
    bars = {key: bar for key, bar in FINAL.items() if key[1] != OWN_VOICE}
    rows = SCORERS[batch.task](Scorer(items, judges, codec.sample_rate))
    return tuple(row for row in with_bars(rows, bars) if row.met is not None)


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

"""Several examples of each task, and how many pass the bars: what the demo was chosen from.

python benchmarks/demo_draws.py --corpus CORPUS --out FOLDER [--draws 10] [--variant nano]
    [--classifier FOLDER]

Writes into FOLDER/chosen the first example of each task that passes, or the first one where none
does; they are kept in the package, in src/unison_audio/demo/inputs.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from demo_check import Verdict, judge, prepare
from demo_inputs import draw_again, draw_examples, write_inputs

from unison_audio.demo.examples import DemoExample
from unison_audio.pipeline import Unison
from unison_audio.tasks.table import TASKS


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskDraws:
    """The examples of one task."""

    verdicts: tuple[Verdict, ...]
    """Their verdicts, in the order of the seeds."""

    @property
    def passed(self) -> int:
        """How many pass."""
        return sum(verdict.passed for verdict in self.verdicts)

    @property
    def chosen(self) -> DemoExample:
        """The first that passes; the first of all where none does."""
        passing = (verdict.example for verdict in self.verdicts if verdict.passed)
        example = next(passing, self.verdicts[0].example)
        return dataclasses.replace(example, passing=f"{self.passed} of {len(self.verdicts)}")


def measure_draws(
    unison: Unison, corpus: Path, out: Path, draws: int, *, classifier: Path | None = None
) -> dict[str, TaskDraws]:
    """Draws, generates and measures examples with the seeds 0 to `draws` - 1.

    Args:
        unison: The model.
        corpus: What ``unison-audio data nano`` wrote.
        out: Folder for inputs, sounds and features.
        draws: Number of examples a task.
        classifier: Folder of the event classifier, as in `evaluate_nano`.

    Returns:
        Task -> its examples.
    """
    context = prepare(unison, corpus, out, classifier)
    found: dict[str, list[Verdict]] = {task: [] for task in TASKS}
    for seed in range(draws):
        drawn = list(draw_examples(corpus, seed))
        inputs = out / "inputs" / str(seed)
        write_inputs(drawn, inputs)
        for verdict in judge(unison, drawn, inputs, out / "sounds" / str(seed), context):
            found[verdict.example.task].append(verdict)
        print(f"draw {seed}: {sum(verdicts[-1].passed for verdicts in found.values())} pass")
    return {task: TaskDraws(verdicts=tuple(verdicts)) for task, verdicts in found.items()}


def table(tasks: dict[str, TaskDraws]) -> str:
    """Writes the shares as a Markdown table."""
    lines = ["| task | pass | chosen |", "|---|---|---|"]
    for task, draws in tasks.items():
        seed = draws.chosen.seed if draws.passed else "0, which fails"
        lines.append(f"| {task} | {draws.chosen.passing} | {seed} |")
    by_seed: Sequence[tuple[Verdict, ...]] = list(
        zip(*(draws.verdicts for draws in tasks.values()), strict=True)
    )
    counts = [sum(verdict.passed for verdict in verdicts) for verdicts in by_seed]
    mean = sum(counts) / len(counts)
    lines.append("")
    lines.append(f"Of the {len(tasks)} examples of a seed {mean:.1f} pass in the mean: {counts}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the table and writes the chosen examples."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--variant", default="nano")
    parser.add_argument("--classifier", type=Path)
    arguments = parser.parse_args()
    unison = Unison.from_pretrained(arguments.variant)
    tasks = measure_draws(
        unison,
        arguments.corpus,
        arguments.out,
        arguments.draws,
        classifier=arguments.classifier,
    )
    chosen = [draws.chosen for draws in tasks.values()]
    write_inputs(draw_again(arguments.corpus, chosen), arguments.out / "chosen")
    print(table(tasks))


if __name__ == "__main__":
    main()

"""Nano's bars in float32, bfloat16 and int8, or with fewer steps, item by item.

unison-audio evaluate nano --tables bars --corpus CORPUS --out FOLDER
python benchmarks/bars_by_type.py FOLDER --out OUT [--items 25] [--again edit_remove]
python benchmarks/bars_by_type.py FOLDER --out OUT --types "8 steps" --types "8 steps, shift 2"

FOLDER is a finished evaluation in float32; nothing is written there. Its test sets are answered
again in the other types, with the same noise for each item, and measured by the same metrics. Of
each set so many items are taken, spread evenly. `--again` names tasks whose float32 outputs are
made anew, for those that the code has changed since. Prints every bar by type, and the mean
difference to float32 with the half width of its 95 % interval over the items, by the jackknife,
since some figures are no means over items. What exists in OUT is used again, so a killed run
resumes. A Markdown table, after the last set.
"""

import dataclasses
import json
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import cyclopts
import torch
from machine import describe
from speech_presets import ShiftedUniPC

from unison_audio.evaluation.engine import Made, generate_set, score_set
from unison_audio.evaluation.metrics.measure import Score
from unison_audio.evaluation.metrics.metric import MetricContext
from unison_audio.evaluation.systems import UnisonSystem
from unison_audio.evaluation.test_sets.manifest import TestSet, read_test_set
from unison_audio.model import solvers
from unison_audio.nano.bars import THRESHOLDS, BarRow
from unison_audio.nano.metrics import NANO_METRICS
from unison_audio.nano.results import FIGURES, MODEL, TRUTH, FigureSpec, SetScores, set_of
from unison_audio.nano.results import metrics_of as all_metrics_of
from unison_audio.pipeline import Unison

TYPES: dict[str, dict[str, Any]] = {
    "float32": {"dtype": torch.float32},
    "bfloat16": {"dtype": torch.bfloat16},
    "int8": {"quantize": "int8"},
}
"""Type -> options of `Unison.from_pretrained`. Beside nano's int8 layers the rest is float32."""


class LateUniPC(ShiftedUniPC):
    """UniPC whose last steps are longer, near the data."""

    shift = 2.0


class EarlyUniPC(ShiftedUniPC):
    """UniPC whose first steps are longer, near the noise."""

    shift = 0.7


SAMPLINGS: dict[str, dict[str, Any]] = {
    "12 steps": {"steps": 12},
    "8 steps": {"steps": 8},
    "8 steps, shift 2": {"steps": 8, "solver": "unipc-late"},
    "8 steps, shift 0.7": {"steps": 8, "solver": "unipc-early"},
}
"""Name -> options of sampling, in float32; the default of these tasks is 16 steps of UniPC."""

Scores = Mapping[str, Score]


def spread(test_set: TestSet, count: int) -> TestSet:
    """A test set with so many of its items, evenly spaced."""
    items, kept = test_set.items, min(count, len(test_set.items))
    chosen = tuple(items[k * len(items) // kept] for k in range(kept))
    return dataclasses.replace(test_set, items=chosen)


def only(score: Score, names: Collection[str]) -> Score:
    """A score of some items."""
    each = score.per_item or {}
    found = {name: each[name] for name in names if name in each}
    value = statistics.fmean(found.values()) if found else math.nan
    return dataclasses.replace(score, per_item=found, value=value, count=len(found))


def stored_scores(evaluation: Path, name: str) -> dict[str, Scores]:
    """System -> metric -> score of a set, as the finished evaluation has it."""
    rows = json.loads((evaluation / "results.json").read_text("utf-8"))["rows"]
    return {
        row["system"]: {metric: Score(**score) for metric, score in row["scores"].items()}
        for row in rows
        if row["set"] == name
    }


def figure(spec: FigureSpec, scores: Mapping[str, Scores], names: Collection[str]) -> float:
    """A row's figure over some items; NaN where there is none."""
    chosen = {
        system: {metric: only(score, names) for metric, score in own.items() if score.per_item}
        for system, own in scores.items()
    }
    found = spec.figure(SetScores(scores=chosen, texts={}), MODEL)
    return math.nan if found is None else found[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """The outputs of one type for a test set."""

    test_set: TestSet
    made: Made
    context: MetricContext
    scores: dict[str, Scores]
    """System -> metric -> score; `MODEL` stands for these outputs."""

    def score(self, metric: str, names: Collection[str]) -> Score:
        """A metric over some items."""
        return score_set(
            self.test_set,
            self.made,
            NANO_METRICS[metric],
            self.context,
            keep=lambda item: item.id in names,
            bootstrap=0,
        )

    def value(self, spec: FigureSpec, names: Collection[str]) -> float:
        """A row's figure over some items."""
        own = self.scores[MODEL]
        if all(metric in own and own[metric].per_item for metric in spec.metrics):
            return figure(spec, self.scores, names)
        (metric,) = spec.metrics  # a figure of the set
        return self.score(metric, names).value

    def per_item(self, spec: FigureSpec, names: Sequence[str]) -> list[float]:
        """Values for the items: the jackknife's pseudo-values of the row's figure.

        Their mean and spread are those of the items themselves where the figure is a mean.
        """
        count, whole = len(names), self.value(spec, names)
        without = [self.value(spec, [n for n in names if n != name]) for name in names]
        return [count * whole - (count - 1) * left for left in without]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar in all types."""

    task: str
    spec: FigureSpec
    truth: float
    values: dict[str, float]
    """Type -> figure."""
    each: dict[str, list[float]]
    """Type -> its values for the items, in one order."""

    def cells(self, kind: str) -> list[str]:
        """The figure of a type, and its difference to float32."""
        row, exact = self.row(kind), self.row("float32")
        shown = row.show(row.value) + ("" if row.met else " (missed)")
        if kind == "float32":
            return [shown]
        away = [a - b for a, b in zip(self.each[kind], self.each["float32"], strict=True)]
        half = 1.96 * statistics.stdev(away) / len(away) ** 0.5
        scale, digits = (100, 1) if self.spec.percent else (1, 2)
        change = scale * (row.value - exact.value)
        lost = " **lost**" if exact.met and not row.met else ""
        return [f"{shown}{lost}", f"{change:+.{digits}f} ± {scale * half:.{digits}f}"]

    def line(self) -> str:
        """A line of the table."""
        row = self.row("float32")
        cells = [self.task, self.spec.measure, str(row.items), row.bar]
        for kind in self.values:
            cells += self.cells(kind)
        return f"| {' | '.join(cells)} |"

    def row(self, kind: str) -> BarRow:
        """The row of nano's table."""
        return BarRow(
            task=self.task,
            measure=self.spec.measure,
            items=len(self.each[kind]),
            value=self.values[kind],
            truth=self.truth,
            percent=self.spec.percent,
            threshold=THRESHOLDS[self.task, self.spec.measure],
        )


def bars_of(
    task: str, answers: Mapping[str, Answers], truth: Answers, names: Sequence[str]
) -> list[Bar]:
    """The bars of a task.

    Args:
        task: The task.
        answers: Type -> its outputs and scores.
        truth: Those of the ground truth, as if they were the model's.
        names: Items.
    """
    return [
        Bar(
            task=task,
            spec=spec,
            truth=truth.value(spec, names),
            values={kind: own.value(spec, names) for kind, own in answers.items()},
            each={kind: own.per_item(spec, names) for kind, own in answers.items()},
        )
        for spec in FIGURES[task]
        if (task, spec.measure) in THRESHOLDS
    ]


def metrics_of(task: str) -> list[str]:
    """The metrics that a task's bars need."""
    needed = {
        metric
        for spec in FIGURES[task]
        if (task, spec.measure) in THRESHOLDS
        for metric in spec.metrics
    }
    return [name for name in all_metrics_of(task) if name in needed]


def main(
    evaluation: Path,
    *,
    out: Path,
    types: tuple[str, ...] = ("bfloat16", "int8"),
    items: int = 25,
    tasks: tuple[str, ...] = tuple(name for name in FIGURES if name != "codec"),
    again: tuple[str, ...] = (),
) -> None:
    """Print the table.

    Args:
        evaluation: Folder of the finished evaluation in float32.
        out: Folder of the other types' outputs and features.
        types: Types, or ways of sampling, beside the finished evaluation's.
        items: Items of each task.
        tasks: Tasks in the order in which they are measured.
        again: Tasks whose float32 outputs are made anew.
    """
    solvers.SOLVERS |= {"unipc-late": LateUniPC, "unipc-early": EarlyUniPC}
    kinds = ("float32", *types)
    systems = {
        kind: UnisonSystem(
            Unison.from_pretrained("nano", **TYPES.get(kind, {})),
            name=kind,
            **SAMPLINGS.get(kind, {}),
        )
        for kind in kinds
        if kind != "float32" or again
    }
    context = MetricContext(
        paths={"classifier": evaluation / "classifier"}, cache=out / "features", offline=True
    )
    bars: list[Bar] = []
    for task in tasks:
        name = set_of(task)
        test_set = spread(read_test_set(evaluation / "sets" / name, check_files=False), items)
        names = [item.id for item in test_set.items]
        stored = stored_scores(evaluation, name)
        finished = {
            system: Answers(
                test_set=test_set,
                made=Made(
                    folder=evaluation / "outputs" / system / name, items=test_set.items, failed={}
                ),
                context=context,
                scores={**stored, MODEL: stored[system]},
            )
            for system in (MODEL, TRUTH)
        }
        answers = {}
        for kind in kinds:
            if kind == "float32" and task not in again:
                answers[kind] = finished[MODEL]
                continue
            made = generate_set(systems[kind], test_set, out / "outputs")
            own = Answers(test_set=test_set, made=made, context=context, scores={**stored})
            own.scores[MODEL] = {metric: own.score(metric, names) for metric in metrics_of(task)}
            answers[kind] = own
        bars += bars_of(task, answers, finished[TRUTH], names)
        print(*(bar.line() for bar in bars if bar.task == task), sep="\n", flush=True)

    print(f"\n{describe()}\n\n| task | measure | items | bar | float32 |", end="")
    print("".join(f" {kind} | difference |" for kind in types))
    print("|---" * (5 + 2 * len(types)) + "|")
    print(*(bar.line() for bar in bars), sep="\n")


if __name__ == "__main__":
    cyclopts.run(main)

"""The parts of a test set that have figures of their own, and the metrics of each."""

from collections.abc import Mapping
from dataclasses import dataclass

from unison_audio.evaluation.metrics.metric import Metric
from unison_audio.evaluation.test_sets.manifest import TestItem, TestSet
from unison_audio.tasks.table import TASKS

BY_LANGUAGE = {"wer": {"en": "wer", "zh": "cer"}}
"""Metric -> language -> the metric that is measured in that language."""

BEYOND = {
    "tts": ("dnsmos",),
    "zero_shot_tts": ("similarity", "dnsmos"),
    "t2a": ("fad_inf",),
}
"""Task -> metrics beyond the paper's."""

LEFT_OUT = {"seed-tts": ("gender",)}
"""Set -> metrics of its tasks that the paper does not take there."""

OVERALL = ("audio-editing",)
"""Sets that are also measured as a whole."""

BY_GENDER = ("gender-tts",)
"""Sets whose error rates are also given by gender."""


@dataclass(frozen=True, kw_only=True)
class Subset:
    """A subset of the items with figures of its own."""

    task: str = ""
    """Task of the items; "" for all."""
    language: str = ""
    """Language of the items; "" for all."""
    part: str = ""
    """Requested gender; "" for both."""
    metrics: tuple[str, ...]
    """Metrics to measure."""

    def has(self, item: TestItem) -> bool:
        """Whether an item belongs to the subset."""
        return (
            self.task in ("", item.task)
            and self.language in ("", item.language)
            and self.part in ("", item.gender)
        )


def subsets_of(
    test_set: TestSet, metrics: Mapping[str, type[Metric]] | None = None
) -> list[Subset]:
    """The subsets of a test set and their metrics, from the task table.

    Args:
        test_set: The set.
        metrics: Metrics that the user named. Those that no task has, such as a user's own,
            are measured on every task whose items have what they need.
    """
    asked = {name for task in TASKS.values() for name in task.metrics}
    asked |= {name for names in BEYOND.values() for name in names}
    asked |= {name for rates in BY_LANGUAGE.values() for name in rates.values()}
    own = {name: metric for name, metric in (metrics or {}).items() if name not in asked}
    made: list[Subset] = []
    tasks = list(dict.fromkeys(item.task for item in test_set.items))
    for task in tasks:
        without = LEFT_OUT.get(test_set.name, ())
        named = [m for m in (*TASKS[task].metrics, *BEYOND.get(task, ())) if m not in without]
        items = [item for item in test_set.items if item.task == task]
        named += [
            name
            for name, metric in own.items()
            if any(all(map(item.has, metric.needs)) for item in items)
        ]
        # Error rates are computed by language: English counts words, Mandarin characters, and a
        # mean of both would mean nothing.
        whole = tuple(name for name in named if name not in BY_LANGUAGE)
        if whole:
            made.append(Subset(task=task, metrics=whole))
        languages = {item.language for item in test_set.items if item.task == task}
        for language in sorted(languages):
            rates = tuple(BY_LANGUAGE[name][language] for name in named if name in BY_LANGUAGE)
            if rates:
                made.append(Subset(task=task, language=language, metrics=rates))
                if test_set.name in BY_GENDER:
                    made += [
                        Subset(task=task, language=language, part=part, metrics=rates)
                        for part in ("male", "female")
                        if any(i.gender == part and i.language == language for i in test_set.items)
                    ]
    if test_set.name in OVERALL:
        made.append(Subset(metrics=TASKS[tasks[0]].metrics))
    return made

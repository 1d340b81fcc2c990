"""Which figures a test set has: its tasks, languages and genders, and the metrics of each."""

from dataclasses import dataclass

from unison_audio.evaluation.benchmark import Item, TestSet
from unison_audio.tasks.table import TASKS

BY_LANGUAGE = {"wer": {"en": "wer", "zh": "cer"}}
"""Metrics of speech that stand for another in some languages."""
BEYOND = {
    "tts": ("dnsmos",),
    "zero_shot_tts": ("similarity", "dnsmos"),
    "t2a": ("fad_inf",),
}
"""Task -> metrics beyond the paper's."""
LEFT_OUT = {"seed-tts": ("gender",)}
"""Set -> metrics of its tasks that the paper does not take there."""
OVERALL = ("audio-editing",)
"""Sets that are measured as a whole as well."""
BY_GENDER = ("gender-tts",)
"""Sets whose error rates are told by gender as well."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Items of a set that have figures of their own."""

    task: str = ""
    """Of one task; "" for all."""
    language: str = ""
    """In one language; "" for all."""
    part: str = ""
    """Asked of one gender; "" for both."""
    metrics: tuple[str, ...]
    """What is measured."""

    def has(self, item: Item) -> bool:
        """Whether an item is one of them."""
        return (
            self.task in ("", item.task)
            and self.language in ("", item.language)
            and self.part in ("", item.gender)
        )


def groups_of(test_set: TestSet) -> list[Group]:
    """The parts of a set that have figures, and which ones, from the task table."""
    made: list[Group] = []
    tasks = list(dict.fromkeys(item.task for item in test_set.items))
    for task in tasks:
        without = LEFT_OUT.get(test_set.name, ())
        named = [m for m in (*TASKS[task].metrics, *BEYOND.get(task, ())) if m not in without]
        whole = tuple(name for name in named if name not in BY_LANGUAGE)
        if whole:
            made.append(Group(task=task, metrics=whole))
        languages = {item.language for item in test_set.items if item.task == task}
        for language in sorted(languages):
            rates = tuple(BY_LANGUAGE[name][language] for name in named if name in BY_LANGUAGE)
            if rates:
                made.append(Group(task=task, language=language, metrics=rates))
                if test_set.name in BY_GENDER:
                    made += [
                        Group(task=task, language=language, part=part, metrics=rates)
                        for part in ("male", "female")
                        if any(i.gender == part and i.language == language for i in test_set.items)
                    ]
    if test_set.name in OVERALL:
        made.append(Group(metrics=TASKS[tasks[0]].metrics))
    return made

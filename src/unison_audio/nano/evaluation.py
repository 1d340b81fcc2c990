"""Nano's evaluation: its own test sets against the bars, and sets of the paper's kinds."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from unison_audio.data.records import Clip
from unison_audio.data.shards import read_corpus, read_index
from unison_audio.errors import InputError
from unison_audio.evaluation.engine import fingerprint, real_time_factor
from unison_audio.evaluation.metrics.measure import Score
from unison_audio.evaluation.models.weights import require_packages
from unison_audio.evaluation.set_plans import EvaluationConfig, Results, SetPlan, run_plans
from unison_audio.evaluation.subsets import Subset
from unison_audio.evaluation.suite import plan_sets, write_results, write_set_report
from unison_audio.evaluation.systems import ModelChoice, choose_systems
from unison_audio.evaluation.test_sets.build import build_once, check_counts
from unison_audio.evaluation.test_sets.manifest import (
    RenderedItem,
    TestSet,
    TestSetAbout,
    file_hash,
)
from unison_audio.evaluation.test_sets.scenes import FLOOR_DBFS
from unison_audio.files import make_folder
from unison_audio.nano.bars import (
    EVERY_TASK,
    SIZE,
    SLOWEST,
    THRESHOLDS,
    BarRow,
    bars_table,
    print_rows,
    stored,
    verdict,
    with_thresholds,
)
from unison_audio.nano.corpus_name import require_nano_corpus
from unison_audio.nano.event_classifier import UNRANKED
from unison_audio.nano.event_classifier_training import ClassifierRecipe
from unison_audio.nano.event_model import classifier_folder, prepare_classifier, ranked_labels
from unison_audio.nano.held_out import NANO_COUNTS, held_out
from unison_audio.nano.items import SEQUENCES, build_items, render_items
from unison_audio.nano.metrics import NANO_METRICS
from unison_audio.nano.results import (
    MODEL,
    SOURCE,
    SOURCE_CODEC,
    SYSTEMS,
    SetScores,
    metrics_of,
    rows_of,
    set_of,
)
from unison_audio.tasks.table import TASKS

Tables = Literal["all", "bars", "sets"]

BY_CLASS = ("t2a", "t2a_mix", "t2as", "timed", "edit_add", "edit_replace", "speech_to_audio")
"""Tasks whose items hold only sounds of the classes that the event classifier ranks."""

SPEED = "computing per second of sound"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BarOptions:
    """The items of the table of bars."""

    items: int = 100
    """Items of each task; `SEQUENCES` has three times as many."""
    tasks: Sequence[str] | None = None
    """Tasks, ``codec`` or ``sequences``; None for all."""
    classifier: Path | None = None
    """Folder of the event classifier, trained there where it is missing; by default ``classifier``
    beside the evaluation's folder if that exists, else inside it."""
    recipe: ClassifierRecipe | None = None
    """How to train the classifier."""

    def __post_init__(self) -> None:
        """Validate the number of items.

        Raises:
            InputError: If it is below 1.
        """
        if self.items < 1:
            raise InputError(f"items is {self.items}; it must be at least 1.")


def evaluate_nano(
    config: EvaluationConfig,
    corpus: Path,
    *,
    tables: Tables = "all",
    options: BarOptions | None = None,
) -> dict[str, Any]:
    """Measures a model on nano's held-out clips and writes the report.

    Test sets, outputs and features stay in the folder of `config` and are not made again, so a
    killed run resumes. Runs of different tasks may share a folder, also at the same time; a last
    run of all tasks puts them together.

    Args:
        config: The evaluation; its metric models are those that come with packages.
        corpus: Folder that ``unison-audio data nano`` wrote.
        tables: The bars alone, the sets of the paper's kinds alone, or all.
        options: The items of the bars.

    Returns:
        What ``results.json`` holds: "rows" of the sets, and about "bars" the rows of the table.

    Raises:
        InputError: A task is unknown, a number is below 1, or a package or the corpus is missing.
    """
    options = options or BarOptions()
    chosen = _chosen(options.tasks)
    config.check()
    require_nano_corpus(corpus, "Measuring nano")
    make_folder(config.out)
    config = dataclasses.replace(
        config, metric_options=dataclasses.replace(config.metric_options, offline=True)
    )
    about: dict[str, Any] = {}
    if "score" in config.stages:
        config, about["models"] = _with_classifier(config, corpus, options, tables)
    plans: list[SetPlan] = []
    if tables != "sets":
        plans += _plan_bars(config, corpus, chosen, options.items)
    if tables != "bars":
        counts = {**NANO_COUNTS, **check_counts(config.counts)}
        about["counts"] = counts
        rate = config.choice.variant.sample_rate
        plans += plan_sets(config, lambda sets: held_out(corpus, rate), counts)
    results = run_plans(config, plans)
    if "score" not in config.stages:
        return {"about": about, "rows": []}
    extra = []
    if tables != "sets":
        bars = _bars(config, results, chosen, about_all=options.tasks is None)
        about |= {"items": options.items, "verdict": verdict(bars)}
        about |= {"bars": [stored(row) for row in bars], "fingerprint": _fingerprint(config)}
        extra.append(bars_table(bars, [about["verdict"], *_notes(config.choice, about)]))
        print_rows(bars)
        print(about["verdict"])
    write_results(config, results, about)
    write_set_report(config, results, "Nano on held-out clips", paper=False, extra=extra)
    return {"about": about, "rows": results.rows}


def _chosen(tasks: Sequence[str] | None) -> list[str]:
    known = ["codec", *TASKS, SEQUENCES]
    for name in tasks or ():
        if name not in known:
            raise InputError(f"There is no task {name!r} to evaluate; use {', '.join(known)}")
    return [name for name in known if tasks is None or name in tasks]


def _with_classifier(
    config: EvaluationConfig, corpus: Path, options: BarOptions, tables: Tables
) -> tuple[EvaluationConfig, dict[str, Any]]:
    """The config with the event classifier among its models, and the classifier's accuracy."""
    paths = config.metric_options.paths
    if tables == "sets" and {"clap", "classifier"} & {*paths}:
        return config, {}
    require_packages()
    folder = paths.get("classifier") or classifier_folder(config.out, options.classifier)
    rate = config.choice.variant.sample_rate
    about = prepare_classifier(corpus, rate, Path(folder), options.recipe)
    metric_options = dataclasses.replace(
        config.metric_options, paths={**paths, "classifier": Path(folder)}
    )
    return dataclasses.replace(config, metric_options=metric_options), about


def _plan_bars(
    config: EvaluationConfig, corpus: Path, chosen: Sequence[str], items: int
) -> list[SetPlan]:
    """One test set for each task."""
    variant = config.choice.variant
    systems = {system.name: system for system in choose_systems(SYSTEMS, {}, config.choice)}

    # Cached and lazy: a rerun whose test sets are on disk reads no corpus.
    @cache
    def clips() -> tuple[Clip, ...]:
        splits = (
            read_corpus(corpus, variant.sample_rate, split=split)
            for split in ("heldout", "speakers")
        )
        return tuple(clip for split in splits for clip in split)

    @cache
    def inputs() -> dict[str, str]:
        names = [name.decode() for name in read_index(corpus).names.tolist()]
        return {name: file_hash(corpus / name) for name in names}

    def builder(task: str) -> Callable[[Path], TestSet]:
        count = 3 * items if task == SEQUENCES else items

        def build(folder: Path) -> TestSet:
            labels = list(ranked_labels(clips())) if task in BY_CLASS else None
            name = set_of(task)

            def render() -> Iterator[RenderedItem]:
                chunks = build_items(task, clips(), variant, count, config.seed, labels)
                return render_items(name, chunks, variant.sample_rate)

            about = TestSetAbout(
                name=name,
                sample_rate=variant.sample_rate,
                seed=config.seed,
                settings={"count": count, "labels": labels, "hop": variant.hop},
                inputs=inputs(),
            )
            return build_once(folder, about, render)

        return build

    def plan(task: str) -> SetPlan:
        edits = TASKS["tts" if task == SEQUENCES else task].needs == ("source",)
        metrics = metrics_of(task)
        return SetPlan(
            name=set_of(task),
            build=builder(task),
            systems=tuple(
                system
                for name, system in systems.items()
                if edits or name not in (SOURCE, SOURCE_CODEC)
            ),
            subsets=lambda test_set: [Subset(metrics=metrics)],
            metrics=NANO_METRICS,
        )

    return [plan(t) for t in dict.fromkeys("tts" if t == "codec" else t for t in chosen)]


def _bars(
    config: EvaluationConfig, results: Results, chosen: Sequence[str], *, about_all: bool
) -> list[BarRow]:
    """The rows of the table of bars."""
    rows: list[BarRow] = []
    speeds: list[BarRow] = []
    for task in chosen:
        name = set_of(task)
        scores = SetScores(
            scores={
                row["system"]: {metric: Score(**score) for metric, score in row["scores"].items()}
                for row in results.rows
                if row["set"] == name
            },
            texts={item.id: item.text for item in results.test_sets[name].items},
        )
        rows += rows_of(task, scores)
        if task != "codec":
            made = results.made[MODEL, name]
            factor, count = real_time_factor(made), len(made.items)
            speeds.append(
                BarRow(task=task, measure=SPEED, items=count, value=factor, percent=False)
            )
            rows.append(speeds[-1])
    if about_all:
        rows += _rows_about_all(config.choice, speeds)
    return with_thresholds(rows, THRESHOLDS)


def _rows_about_all(choice: ModelChoice, speeds: Sequence[BarRow]) -> list[BarRow]:
    """The real-time factor of the slowest task, and the size of the weights."""
    unison = choice.open()
    numbers = sum(
        value.numel()
        for part in (unison.backbone, unison.codec)
        if isinstance(part, torch.nn.Module)
        for value in part.state_dict().values()
    )
    about: dict[str, Any] = {"task": EVERY_TASK, "percent": False}
    items, slowest = sum(row.items for row in speeds), max(row.value for row in speeds)
    return [
        BarRow(measure=SLOWEST, items=items, value=slowest, **about),
        # Two bytes a number: the weights are stored as float16, in megabytes here.
        BarRow(measure=SIZE, items=1, value=2e-6 * numbers, **about),
    ]


def _fingerprint(config: EvaluationConfig) -> str:
    return fingerprint(config.choice.open())


def _types(choice: ModelChoice) -> list[str]:
    """The computing type and the quantization, where they were asked for."""
    given = (str(choice.dtype).removeprefix("torch.") if choice.dtype else "", choice.quantize)
    return [kind for kind in given if kind]


def _notes(choice: ModelChoice, about: Mapping[str, Any]) -> list[str]:
    accuracy = about["models"]["classifier"]
    variant, asked = choice.variant, choice.options
    steps = asked.get("steps") or f"{variant.steps} (removal: {variant.removal_steps})"
    guidance = asked.get("guidance_scale") or (
        f"{variant.guidance_scale} (edits {variant.edit_guidance_scale}, removal "
        f"{variant.removal_guidance_scale})"
    )
    classes = "; ".join(
        f"{name} {100 * found['top3']:.0f} % of {found['clips']}"
        for name, found in accuracy["by_class"].items()
    )
    return [
        f"Variant {variant.name}, weights {about['fingerprint']}, {steps} steps of "
        f"{variant.solver}, guidance {guidance}. Speech: temperature "
        f"{variant.speech_temperature:g}, the best of {variant.speech_candidates} candidates by "
        f"denoising error. Seed {choice.seed}, torch {torch.__version__.split('+')[0]}"
        f"{''.join(f', {kind}' for kind in _types(choice))}.",
        "The tasks' own builders make every item from held-out texts, recordings and, in "
        f"zero_shot_tts, voices. White noise of {FLOOR_DBFS:.0f} dBFS lies under sources and "
        "targets. Sequences are tts of one to six random words and have three times the items of a "
        "task.",
        "Words: Whisper tiny.en transcribes sentences, pocketsphinx with nano's vocabulary "
        "transcribes sequences. Rates are means over utterances; homophones (to, two; are, our) "
        "count as equal. Half of the words count as said if either model finds them.",
        f"Sounds: a classifier of {accuracy['labels']} labels, trained on real training clips, "
        f"ranks {accuracy['classes']} classes; chance has a class in the top 3 in "
        f"{100 * min(1.0, 3 / accuracy['classes']):.0f} % of cases. Similar labels count as one "
        f"class. {len(UNRANKED)} labels that it cannot tell apart on real recordings are not asked "
        "for in tasks measured by class. An added event is measured in what the output has and "
        "the source lacks.",
        f"The classifier's own accuracy on {accuracy['clips']} held-out real clips: top 1 "
        f"{100 * accuracy['top1']:.0f} %, top 3 {100 * accuracy['top3']:.0f} % (as a mean over "
        f"classes {100 * accuracy['top1_by_class']:.0f} % and "
        f"{100 * accuracy['top3_by_class']:.0f} %). Top 3 by class: {classes}.",
        '"Nearer to the target than the source" compares with the source as it is, which is hard '
        "for anything that has been through the codec; the ground truth through it has a column of "
        "its own. The second row compares with the source through the codec, where only the edit "
        f"makes the difference. In LSD, what is softer than white noise of {FLOOR_DBFS + 6:.0f} "
        "dBFS counts as equally soft.",
    ]

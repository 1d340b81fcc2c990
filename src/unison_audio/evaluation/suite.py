"""The whole evaluation: builds the test sets, runs the systems, scores them and reports."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from unison_audio.errors import InputError
from unison_audio.evaluation.cluster import connected, spread
from unison_audio.evaluation.engine import Subset, generate_set, look_up, score_set, subsets_of
from unison_audio.evaluation.metrics.measure import Score
from unison_audio.evaluation.metrics.metric import Metric, MetricContext
from unison_audio.evaluation.systems import ModelChoice, SystemChoice, choose_systems
from unison_audio.evaluation.test_sets.build import (
    PAPER_COUNTS,
    SETS,
    build_test_set,
    check_counts,
    find_set,
)
from unison_audio.evaluation.test_sets.manifest import TestSet, read_test_set
from unison_audio.evaluation.test_sets.recordings import Recordings, published
from unison_audio.evaluation.test_sets.scenes import TestSetSpec

STAGES = ("build", "generate", "score")
"""What is done, in this order; each goes on from what is on disk."""

RESULTS = "results.json"

NANO_SYSTEMS = ("ground-truth", "through-codec", "copy-source", "sdedit", "zeta", "unison")


@dataclass(frozen=True, kw_only=True)
class MetricOptions:
    """Where judges' models come from."""

    paths: Mapping[str, Path] = field(default_factory=dict)
    """Local files by judge, as `measures.MetricContext` takes them."""
    device: str = "cpu"
    """Where they run."""
    offline: bool = False
    """Whether the judges are those that come with packages."""
    bootstrap: int = 1000
    """Draws for the intervals."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all stages share."""

    out: Path
    """Where everything goes."""
    systems: Sequence[SystemChoice]
    """The systems."""
    metric_options: MetricOptions
    """The judges."""
    metrics: Mapping[str, type[Metric]]
    """Those that are measured, by name."""
    seed: int
    """Of sets, noise and bootstrap."""
    batch: int
    """Items answered at once."""
    ray_address: str | None
    """As `sharding.spread` takes it."""
    workers: int
    """Likewise."""

    def spread(self, job: Callable[[Any], Any], tasks: Sequence[Any], device: str) -> list[Any]:
        """Do a job for each task, here or through Ray."""
        gpus = 1.0 if device.startswith("cuda") else 0.0
        how: dict[str, Any] = {"ray_address": self.ray_address, "workers": self.workers}
        return spread(job, tasks, gpus=gpus, **how)

    def folder(self, system: SystemChoice, test_set: TestSet) -> Path:
        """Where a system's outputs lie."""
        return self.out / "outputs" / system.name / test_set.name


def evaluate_paper(
    choice: ModelChoice, data: Path, out: Path, **options: Any
) -> list[dict[str, Any]]:
    """Evaluate on the paper's test sets (§4.2) and write the report.

    Args:
        choice: The model, which also tells the rate and the lengths of the test sets.
        data: Holds ``audiocaps/`` and ``seedtts_testset/`` as published (`material`).
        out: Where test sets, outputs, what judges heard, results and report go. A run that was
            killed goes on there.
        **options: As `evaluate_sets` takes them; the counts are the paper's by default.

    Returns:
        The rows of results.

    Raises:
        InputError: As `evaluate_sets`.
    """

    def material(sets: Sequence[str]) -> Recordings:
        kinds = [find_set(name) for name in sets]
        return published(
            data,
            choice.variant.sample_rate,
            sounds=any(kind.sounds for kind in kinds),
            voices=any(kind.voices for kind in kinds),
        )

    return evaluate_sets(
        choice,
        material,
        out,
        counts={**PAPER_COUNTS, **(options.pop("counts", None) or {})},
        title=f"{choice.variant.name} on the paper's test sets",
        paper=True,
        **options,
    )


def evaluate_sets(
    choice: ModelChoice,
    material: Callable[[Sequence[str]], Recordings],
    out: Path,
    *,
    title: str,
    paper: bool,
    counts: Mapping[str, int],
    sets: Sequence[str] | None = None,
    systems: Sequence[str] = NANO_SYSTEMS,
    outputs: Mapping[str, Path] | None = None,
    metrics: Sequence[str] | Mapping[str, type[Metric]] | None = None,
    metric_options: MetricOptions | None = None,
    seed: int = 0,
    batch: int = 8,
    ray_address: str | None = None,
    workers: int = 2,
    stages: Sequence[str] = STAGES,
) -> list[dict[str, Any]]:
    """Build test sets, run systems over them, score what came and write the report.

    Args:
        choice: The model.
        material: Given the names of the sets, what they are made from; asked when building.
        out: Where everything goes.
        title: Of the report.
        paper: Whether the paper's rows stand in the report.
        counts: Items of each set; sets of which none are asked for are left out.
        sets: Keys of `SETS`; all if None.
        systems: Keys of `systems.SYSTEMS`.
        outputs: Name -> folder of other systems' sounds, named by the items' ids.
        metrics: Those to measure, of the ones that the task table asks for; all if None.
        metric_options: The judges.
        seed: Of sets, noise and bootstrap.
        batch: Items answered at once.
        ray_address: Of a Ray cluster; None does everything in this process.
        workers: How many at once, through Ray.
        stages: Some of `STAGES`.

    Returns:
        The rows of results; none without the stage "score".

    Raises:
        InputError: A name is unknown, data or a judge is missing, or `out` holds something else.
    """
    for stage in stages:
        if stage not in STAGES:
            raise InputError(f"There is no stage {stage!r}; use {', '.join(STAGES)}.")
    if batch < 1 or workers < 1:
        raise InputError(f"batch is {batch} and workers is {workers}; both must be at least 1.")
    full = {**PAPER_COUNTS, **check_counts(counts)}
    wanted = [
        name
        for name in (SETS if sets is None else dict.fromkeys(sets))
        if any(full[key] for key in find_set(name).counts)
    ]
    out = out.resolve()
    run = Run(
        out=out,
        systems=choose_systems(tuple(systems), outputs or {}, choice),
        metric_options=metric_options or MetricOptions(),
        metrics=_chosen_metrics(metrics) if "score" in stages else {},
        seed=seed,
        batch=batch,
        ray_address=ray_address,
        workers=workers,
    )
    if "build" in stages:
        source, form = material(wanted), TestSetSpec.of(choice.variant)
        for name in wanted:
            build_test_set(name, source, out / "sets" / name, form, counts=full, seed=seed)
    test_sets = [read_test_set(out / "sets" / name, check_files=False) for name in wanted]
    with connected(ray_address, workers):
        if "generate" in stages:
            _generate_all(run, test_sets)
        if "score" not in stages:
            return []
        rows = _score_all(run, test_sets)
    _write_results(run, test_sets, choice, rows, title, paper, full)
    return rows


@dataclass(frozen=True, kw_only=True)
class _Generating:
    """One shard of a system's answers to a set."""

    system: SystemChoice
    test_set: Path
    out: Path
    batch: int
    shard: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class _Scoring:
    """One figure."""

    test_set: Path
    outputs: Path
    subset: Subset
    metric: type[Metric]
    metric_options: MetricOptions
    cache: Path
    seed: int


def _generate_all(run: Run, test_sets: Sequence[TestSet]) -> None:
    """All outputs of all systems."""
    shards = run.workers if run.ray_address is not None else 1
    tasks = [
        _Generating(
            system=system,
            test_set=test_set.folder,
            out=run.out / "outputs",
            batch=run.batch,
            shard=(shard, shards),
        )
        for system in run.systems
        for test_set in test_sets
        for shard in range(shards)
    ]
    run.spread(_generate, tasks, run.systems[0].choice.device if run.systems else "cpu")


def _generate(task: _Generating) -> None:
    test_set = read_test_set(task.test_set, check_files=False)
    generate_set(task.system.open(), test_set, task.out, batch=task.batch, shard=task.shard)


def _score_all(run: Run, test_sets: Sequence[TestSet]) -> list[dict[str, Any]]:
    """All figures, as rows."""
    rows: list[dict[str, Any]] = []
    tasks: list[_Scoring] = []
    places: list[tuple[int, str]] = []
    for test_set in test_sets:
        for system in run.systems:
            taken = look_up(run.folder(system, test_set), test_set).items
            for subset in subsets_of(test_set):
                names = [name for name in subset.metrics if name in run.metrics]
                if not names or not any(subset.has(item) for item in taken):
                    continue
                about = {"task": subset.task, "language": subset.language, "part": subset.part}
                rows.append({"system": system.name, "set": test_set.name, **about, "scores": {}})
                for name in names:
                    places.append((len(rows) - 1, name))
                    tasks.append(
                        _Scoring(
                            test_set=test_set.folder,
                            outputs=run.folder(system, test_set),
                            subset=subset,
                            metric=run.metrics[name],
                            metric_options=run.metric_options,
                            cache=run.out / "described",
                            seed=run.seed,
                        )
                    )
    scores = run.spread(_score, tasks, run.metric_options.device)
    for (row, name), score in zip(places, scores, strict=True):
        rows[row]["scores"][name] = dataclasses.asdict(score)
    return rows


def _score(task: _Scoring) -> Score:
    test_set = read_test_set(task.test_set, check_files=False)
    metric_options = task.metric_options
    paths = tuple(sorted((name, str(path)) for name, path in metric_options.paths.items()))
    context = _tools(paths, metric_options.device, metric_options.offline, task.cache)
    scores = score_set(
        test_set,
        look_up(task.outputs, test_set),
        [task.metric],
        context,
        keep=task.subset.has,
        bootstrap=metric_options.bootstrap,
        seed=task.seed,
    )
    return scores[task.metric.name]


@lru_cache(maxsize=1)
def _tools(
    paths: tuple[tuple[str, str], ...], device: str, offline: bool, cache: Path
) -> MetricContext:
    """The judges' models, loaded once a process."""
    return MetricContext(
        paths={name: Path(path) for name, path in paths},
        device=device,
        cache=cache,
        offline=offline,
    )


def _chosen_metrics(
    metrics: Sequence[str] | Mapping[str, type[Metric]] | None,
) -> dict[str, type[Metric]]:
    if isinstance(metrics, Mapping):
        return dict(metrics)
    from unison_audio.evaluation.metrics.table import METRICS

    for name in metrics or ():
        if name not in METRICS:
            raise InputError(f"There is no metric {name!r}; use {', '.join(METRICS)}.")
    return {name: METRICS[name] for name in METRICS if metrics is None or name in metrics}


def _write_results(
    run: Run,
    test_sets: Sequence[TestSet],
    choice: ModelChoice,
    rows: Sequence[dict[str, Any]],
    title: str,
    paper: bool,
    counts: Mapping[str, int],
) -> None:
    """Write ``results.json`` and the report."""
    from unison_audio.evaluation.report.figures import write_figures
    from unison_audio.evaluation.report.render import write_report
    from unison_audio.evaluation.report.tables import REFERENCES

    about = {
        "variant": choice.variant.name,
        "seed": run.seed,
        "batch": run.batch,
        "bootstrap": run.metric_options.bootstrap,
        "counts": dict(counts),
    }
    text = json.dumps(_finite({"about": about, "rows": list(rows)}), indent=1, ensure_ascii=False)
    partial_file = run.out / f"{RESULTS}.partial"
    partial_file.write_text(text + "\n", "utf-8")
    partial_file.replace(run.out / RESULTS)
    figures = [
        drawn
        for test_set in test_sets
        for system in run.systems
        if system.name not in REFERENCES
        for drawn in write_figures(
            test_set, run.folder(system, test_set), run.out / "figures", system=system.name
        )
    ]
    write_report(rows, run.out, title=title, paper=paper, figures=figures)


def _finite(value: Any) -> Any:
    """Replace NaN, which JSON lacks, by None."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""Runs an evaluation: builds the planned test sets, runs the systems on them and scores those."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from unison_audio.cluster import R, connected, spread
from unison_audio.errors import InputError
from unison_audio.evaluation.engine import Made, generate_set, look_up, score_set
from unison_audio.evaluation.metrics.measure import Score
from unison_audio.evaluation.metrics.metric import Metric, MetricContext
from unison_audio.evaluation.subsets import Subset
from unison_audio.evaluation.systems import (
    DEFAULT_SYSTEMS,
    ModelChoice,
    SystemChoice,
    choose_systems,
)
from unison_audio.evaluation.test_sets.build import check_counts, find_set
from unison_audio.evaluation.test_sets.manifest import TestSet, read_test_set
from unison_audio.values import check_seed

STAGES = ("build", "generate", "score")
"""The stages in their order; each resumes from the files on disk."""

FEATURES = "features"
"""Folder of the feature cache in the folder of an evaluation."""


@dataclass(frozen=True, kw_only=True)
class MetricOptions:
    """Source of the metric models, and settings of the figures."""

    paths: Mapping[str, Path] = field(default_factory=dict)
    """Model name -> local file, as in `MetricContext`."""
    device: str = "cpu"
    """Device of the models."""
    offline: bool = False
    """Whether models out of packages stand in for those that are not in `paths`."""
    bootstrap: int = 1000
    """Bootstrap resamples for the confidence intervals."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The settings of an evaluation."""

    choice: ModelChoice
    """The model, which also sets the sample rate and the lengths of the test sets."""
    out: Path
    """Folder of test sets, outputs, features, results and report. A rerun resumes there."""
    sets: Sequence[str] | None = None
    """Names of test sets; all if None."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Item counts that differ from the default; a set with count 0 is left out."""
    systems: Sequence[str] = DEFAULT_SYSTEMS
    """Keys of `systems.SYSTEMS`."""
    outputs: Mapping[str, Path] = field(default_factory=dict)
    """System name -> folder of its outputs, one file per item id."""
    metrics: Sequence[str] | Mapping[str, type[Metric]] | None = None
    """Names of `METRICS`, or metrics by name; None for what the task table asks for. A metric that
    no task asks for, such as a user's own, is measured on every task whose items have what it
    needs."""
    metric_options: MetricOptions = field(default_factory=MetricOptions)
    """Where the metrics' models come from."""
    seed: int = 0
    """Seed of test sets, noise and bootstrap."""
    batch: int = 8
    """Batch size."""
    ray_address: str | None = None
    """Address of a Ray cluster; None does everything in this process."""
    workers: int = 2
    """Concurrent Ray jobs."""
    stages: Sequence[str] = STAGES
    """Some of `STAGES`."""

    def check(self) -> None:
        """Validates the fields before any work.

        Raises:
            InputError: A name is unknown, a number is out of its range, or `out` is a file.
        """
        for stage in self.stages:
            if stage not in STAGES:
                raise InputError(f"There is no stage {stage!r}; use {', '.join(STAGES)}.")
        for name, value in (("batch", self.batch), ("workers", self.workers)):
            if value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1.")
        if self.metric_options.bootstrap < 0:
            raise InputError(
                f"bootstrap is {self.metric_options.bootstrap}; give 0 for no intervals, or more."
            )
        check_seed(self.seed)
        check_counts(self.counts)
        for name in self.sets or ():
            find_set(name)
        choose_systems(tuple(self.systems), self.outputs, self.choice)
        if not isinstance(self.metrics, Mapping) and self.metrics is not None:
            chosen_metrics(self.metrics)
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out} is a file; give the folder of the evaluation.")

    def spread(self, jobs: Sequence[Callable[[], R]], device: str) -> list[R]:
        """Run jobs in this process or through Ray."""
        gpus = 1.0 if device.startswith("cuda") else 0.0
        return spread(jobs, gpus=gpus, ray_address=self.ray_address, workers=self.workers)


@dataclass(frozen=True, kw_only=True)
class SetPlan:
    """One test set of an evaluation: how it is built, the systems and the metrics."""

    name: str
    """The set's name, and the name of its folder."""
    build: Callable[[Path], TestSet]
    """Builds the set in a folder, or reads the existing one."""
    systems: tuple[SystemChoice, ...]
    """Systems that run on it."""
    subsets: Callable[[TestSet], Sequence[Subset]]
    """Subsets with figures of their own, and the metrics of each."""
    metrics: Mapping[str, type[Metric]]
    """Metrics by name; no others are measured."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Results of an evaluation."""

    rows: list[dict[str, Any]]
    """One row for each system and subset: "system", "set", "task", "language", "part", "scores"."""
    test_sets: dict[str, TestSet]
    """Name -> test set."""
    made: dict[tuple[str, str], Made]
    """(system, set) -> outputs."""


def chosen_metrics(
    metrics: Sequence[str] | Mapping[str, type[Metric]] | None,
) -> dict[str, type[Metric]]:
    """The metrics that an evaluation names, by name; all of the table for None.

    Raises:
        InputError: A name is unknown.
    """
    if isinstance(metrics, Mapping):
        return dict(metrics)
    from unison_audio.evaluation.metrics.table import METRICS

    for name in metrics or ():
        if name not in METRICS:
            raise InputError(f"There is no metric {name!r}; use {', '.join(METRICS)}.")
    return {name: METRICS[name] for name in METRICS if metrics is None or name in metrics}


def run_plans(config: EvaluationConfig, plans: Sequence[SetPlan]) -> Results:
    """Build test sets, run the systems and score their outputs.

    Args:
        config: The evaluation.
        plans: The test sets.

    Returns:
        The results; they have no rows without the stage "score".

    Raises:
        InputError: Data or a metric's model is missing, or a folder holds something else.
    """
    config.check()
    out = config.out.resolve()
    if "build" in config.stages:
        for plan in plans:
            plan.build(out / "sets" / plan.name)
    test_sets = {
        plan.name: read_test_set(out / "sets" / plan.name, check_files=False) for plan in plans
    }
    results = Results(rows=[], test_sets=test_sets, made={})
    with connected(config.ray_address, config.workers):
        if "generate" in config.stages:
            _generate_all(config, plans, test_sets)
        if "score" in config.stages:
            _score_all(config, plans, results)
    return results


def _generate_all(
    config: EvaluationConfig, plans: Sequence[SetPlan], test_sets: Mapping[str, TestSet]
) -> None:
    """All outputs of all systems."""
    shards = config.workers if config.ray_address is not None else 1
    # The outer loop is over systems, so that a worker loads a model once for all test sets.
    systems = dict.fromkeys(system for plan in plans for system in plan.systems)
    jobs = [
        partial(
            _generate,
            system,
            test_sets[plan.name].folder,
            config.out.resolve() / "outputs",
            config.batch,
            (shard, shards),
        )
        for system in systems
        for plan in plans
        if system in plan.systems
        for shard in range(shards)
    ]
    config.spread(jobs, config.choice.device)


def _generate(
    system: SystemChoice, folder: Path, out: Path, batch: int, shard: tuple[int, int]
) -> None:
    """Make one shard of a system's outputs for a set."""
    test_set = read_test_set(folder, check_files=False)
    generate_set(system.open(), test_set, out, batch=batch, shard=shard)


def _score_all(config: EvaluationConfig, plans: Sequence[SetPlan], results: Results) -> None:
    """All figures, as rows of the results."""
    out = config.out.resolve()
    options = config.metric_options
    jobs: list[Callable[[], Score]] = []
    places: list[tuple[dict[str, Any], str]] = []
    for plan in plans:
        test_set = results.test_sets[plan.name]
        for system in plan.systems:
            folder = out / "outputs" / system.name / test_set.name
            made = results.made[system.name, plan.name] = look_up(folder, test_set)
            for subset in plan.subsets(test_set):
                names = [name for name in subset.metrics if name in plan.metrics]
                if not names or not any(subset.has(item) for item in made.items):
                    continue
                about = {"task": subset.task, "language": subset.language, "part": subset.part}
                row: dict[str, Any] = {"system": system.name, "set": test_set.name, **about}
                row["scores"] = {}
                results.rows.append(row)
                for name in names:
                    places.append((row, name))
                    jobs.append(
                        partial(
                            _score,
                            test_set.folder,
                            folder,
                            subset,
                            plan.metrics[name],
                            options,
                            out / FEATURES,
                            config.seed,
                        )
                    )
    # One job a figure, so that workers share the work evenly. Features come from the shared cache.
    scores = config.spread(jobs, options.device)
    for (row, name), score in zip(places, scores, strict=True):
        row["scores"][name] = dataclasses.asdict(score)


def _score(
    test_set_folder: Path,
    outputs: Path,
    subset: Subset,
    metric: type[Metric],
    options: MetricOptions,
    cache: Path,
    seed: int,
) -> Score:
    """Measure one figure."""
    test_set = read_test_set(test_set_folder, check_files=False)
    paths = tuple(sorted((name, str(path)) for name, path in options.paths.items()))
    context = _context(paths, options.device, options.offline, cache)
    made, bootstrap = look_up(outputs, test_set), options.bootstrap
    return score_set(
        test_set, made, metric, context, keep=subset.has, bootstrap=bootstrap, seed=seed
    )


# One entry: loaded models stay in memory as long as their context, and a second context would hold
# a second copy of each.
@lru_cache(maxsize=1)
def _context(
    paths: tuple[tuple[str, str], ...], device: str, offline: bool, cache: Path
) -> MetricContext:
    """The metric models, loaded once in a process."""
    return MetricContext(
        paths={name: Path(path) for name, path in paths},
        device=device,
        cache=cache,
        offline=offline,
    )

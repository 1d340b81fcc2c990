"""Evaluation on test sets of the paper's kinds: their plans, the results and the report."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from unison_audio.evaluation.report.figures import write_figures
from unison_audio.evaluation.report.render import PlainTable, write_report
from unison_audio.evaluation.report.tables import REFERENCES
from unison_audio.evaluation.set_plans import (
    EvaluationConfig,
    Results,
    SetPlan,
    chosen_metrics,
    run_plans,
)
from unison_audio.evaluation.subsets import subsets_of
from unison_audio.evaluation.systems import choose_systems
from unison_audio.evaluation.test_sets.build import (
    PAPER_COUNTS,
    SETS,
    build_test_set,
    check_counts,
    find_set,
    needed_languages,
)
from unison_audio.evaluation.test_sets.manifest import TestSet
from unison_audio.evaluation.test_sets.recordings import Recordings, published
from unison_audio.evaluation.test_sets.scenes import TestSetSpec
from unison_audio.files import write_whole

RESULTS = "results.json"


def evaluate_paper(config: EvaluationConfig, data: Path) -> list[dict[str, Any]]:
    """Evaluate on the paper's test sets (§4.2) and write the report.

    Args:
        config: What to evaluate; the counts are the paper's by default.
        data: Holds ``audiocaps/`` and ``seedtts_testset/`` as published (`recordings`).

    Returns:
        The rows of results; none without the stage "score".

    Raises:
        InputError: A name is unknown, data or a metric's model is missing, or the folder holds
            something else.
    """
    config.check()
    counts = {**PAPER_COUNTS, **check_counts(config.counts)}
    plans = plan_sets(
        config,
        lambda sets: published(
            data,
            config.choice.variant.sample_rate,
            sounds=any(find_set(name).sounds for name in sets),
            voices=any(find_set(name).voices for name in sets),
            languages=needed_languages(sets, counts),
        ),
        counts,
    )
    results = run_plans(config, plans)
    if "score" in config.stages:
        about = {"counts": counts}
        write_results(config, results, about)
        title = f"{config.choice.variant.name} on the paper's test sets"
        write_set_report(config, results, title, paper=True)
    return results.rows


def plan_sets(
    config: EvaluationConfig,
    recordings: Callable[[Sequence[str]], Recordings],
    counts: Mapping[str, int],
) -> list[SetPlan]:
    """The plans of test sets of the paper's kinds.

    Args:
        config: The evaluation.
        recordings: Given the names of the sets, what they are made from; asked when building.
        counts: Items of each set.

    Raises:
        InputError: A name is unknown.
    """
    wanted = [
        name
        for name in (SETS if config.sets is None else dict.fromkeys(config.sets))
        if any(counts[key] for key in find_set(name).counts)
    ]
    spec = TestSetSpec.of(config.choice.variant)
    source = lru_cache(maxsize=1)(lambda: recordings(wanted))

    def builder(name: str) -> Callable[[Path], TestSet]:
        return lambda folder: build_test_set(
            name, source(), folder, spec, counts=counts, seed=config.seed
        )

    metrics = chosen_metrics(config.metrics) if "score" in config.stages else {}
    explicit = None if config.metrics is None else metrics
    systems = tuple(choose_systems(tuple(config.systems), config.outputs, config.choice))
    return [
        SetPlan(
            name=name,
            build=builder(name),
            systems=systems,
            subsets=lambda test_set: subsets_of(test_set, explicit),
            metrics=metrics,
        )
        for name in wanted
    ]


def write_results(config: EvaluationConfig, results: Results, about: Mapping[str, Any]) -> None:
    """Write ``results.json``.

    Args:
        config: The evaluation.
        results: The results.
        about: Further values about the run; a key "rows" would hide the results.
    """
    settings = {
        "variant": config.choice.variant.name,
        "seed": config.seed,
        "batch": config.batch,
        "bootstrap": config.metric_options.bootstrap,
        **about,
    }
    text = json.dumps(
        _finite({"about": settings, "rows": results.rows}), indent=1, ensure_ascii=False
    )
    write_whole(config.out / RESULTS, text + "\n")


def write_set_report(
    config: EvaluationConfig,
    results: Results,
    title: str,
    *,
    paper: bool,
    extra: Sequence[PlainTable] = (),
) -> None:
    """Write the report on the test sets of the paper's kinds, with figures.

    Args:
        config: The evaluation.
        results: The results.
        title: Title of the page.
        paper: Whether the paper's rows stand in the tables.
        extra: Tables before the others.
    """
    kinds = [name for name in results.test_sets if name in SETS]
    figures = [
        drawn
        for name in kinds
        for (system, of), made in results.made.items()
        if of == name and system not in REFERENCES
        for drawn in write_figures(
            results.test_sets[name], made.folder, config.out / "figures", system=system
        )
    ]
    rows = [row for row in results.rows if row["set"] in kinds]
    write_report(rows, config.out, title=title, paper=paper, figures=figures, extra=extra)


def _finite(value: Any) -> Any:
    """Replace NaN, which JSON lacks, by None."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""Rows and table of the ablations' held-out errors."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unison_audio.training.ablation_table import Ablation

ResultRow = dict[str, Any]
"""A row of results in the format of the evaluation's tables."""


def error_table(rows: Sequence[ResultRow]) -> str:
    """The held-out errors as a Markdown table.

    The last column is the difference from the first variant, paired by batch: all variants see the
    same batches, so what makes a batch hard cancels out.

    Args:
        rows: Rows of `train_family`.
    """
    held = [row for row in rows if "error" in row["scores"]]
    systems = list(dict.fromkeys(row["system"] for row in held))
    tasks = list(dict.fromkeys(row["task"] for row in held))
    if not systems:
        return ""
    by = {(row["system"], row["task"]): row for row in held}
    head = ["variant", "conditioning", "architecture", "parameters", *tasks, "mean"]
    lines = [[*head, f"less {systems[0]}, paired"], ["---"] * (len(head) + 1)]
    batches = {
        system: [value for task in tasks for value in by[system, task]["scores"]["error"]["items"]]
        for system in systems
    }
    for system in systems:
        about = by[system, tasks[0]]["about"]
        values = [by[system, task]["scores"]["error"]["value"] for task in tasks]
        away = [a - b for a, b in zip(batches[system], batches[systems[0]], strict=True)]
        mean, error = mean_and_error(away)
        lines.append(
            [
                system,
                *(about[key] for key in ("conditioning", "architecture", "parameters")),
                *(f"{value:.4f}" for value in values),
                f"{sum(values) / len(values):.4f}",
                "" if system == systems[0] else f"{mean:+.4f} ± {error:.4f}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def held_out_rows(ablation: Ablation, errors: Mapping[str, Sequence[float]]) -> list[ResultRow]:
    """Rows of the held-out error.

    Args:
        ablation: The variant.
        errors: Task -> error of each held-out batch.
    """
    rows = []
    for task, values in errors.items():
        mean, error = mean_and_error(values)
        score = {
            "metric": "error",
            "value": mean,
            "low": mean - error,
            "high": mean + error,
            "count": len(values),
            "failed": [],
            "model": "velocity error of held-out batches with fixed noise",
            "items": list(values),
        }
        where = {"set": "held-out", "task": task, "language": ""}
        rows.append(
            {
                "system": ablation.name,
                **where,
                "about": ablation.about,
                "scores": {"error": score},
            }
        )
    return rows


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval (normal); the latter is NaN for one value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, 1.96 * math.sqrt(variance / len(values))

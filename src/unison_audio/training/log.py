"""What a run reports: losses by task, shares of the time, skipped clips, progress."""

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

LogRow = Mapping[str, float | str]
"""One batch in the log: its task, loss, gradient norm and number of items."""


class TimedBatch(Protocol):
    """A batch that knows how long its parts took to make."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Part -> seconds."""
        ...


class TimeShares:
    """Shares of a step's time: making its batches, and the backbone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def add(self, batches: Sequence[TimedBatch], backbone: float) -> None:
        """Adds the times of a step."""
        for batch in batches:
            for part, spent in batch.seconds.items():
                self.seconds[part] += spent
        self.seconds["backbone"] += backbone

    def take(self) -> dict[str, float]:
        """Returns each part's share since the last call, and starts anew."""
        total = sum(self.seconds.values()) or 1.0
        shares = {part: spent / total for part, spent in self.seconds.items()}
        self.seconds.clear()
        return shares


def tracker_values(
    rows: Sequence[LogRow], shares: Mapping[str, float], skipped: Counter[str], rate: float
) -> dict[str, float]:
    """The values that trackers receive for some steps.

    Args:
        rows: Log rows of the steps.
        shares: Share of the time by part.
        skipped: Number of skipped clips by reason, since the start.
        rate: Learning rate.
    """
    by_task: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        by_task[str(row["task"])].append(float(row["loss"]))
    return {
        **{f"loss/{task}": sum(found) / len(found) for task, found in by_task.items()},
        **{f"share/{part}": share for part, share in shares.items()},
        **{f"skipped/{reason}": count for reason, count in skipped.items()},
        "learning_rate": rate,
        "gradient_norm": float(rows[-1]["norm"]),
    }


def share_line(shares: Mapping[str, float], skipped: Counter[str]) -> str:
    """Time shares and skipped clips as text, for the line of progress."""
    parts = [f"{part} {share:.0%}" for part, share in shares.items()]
    if skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
        parts.append(f"skipped clips: {reasons}")
    return "  ".join(parts)


def log_validation(folder: Path, step: int, losses: Mapping[str, float]) -> None:
    """Appends a line to `validation.jsonl`."""
    with (folder / "validation.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **losses}) + "\n")


class LossLog:
    """`log.jsonl`: one line for each batch.

    Args:
        folder: The run's folder.
        step: The first step to come. A killed run logged steps after its last checkpoint; they
            are trained again, so their lines are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        text = self.path.read_text("utf-8", "replace") if self.path.exists() else ""
        lines = [line for line in text.split("\n") if line.strip()]
        kept = [line for line in lines if _step_of(line) < step]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(line + "\n" for line in kept))
        partial.replace(self.path)
        # Line buffering: a kill loses at most the line being written.
        self.file = self.path.open("a", buffering=1)

    def write(self, step: int, **values: float | str) -> None:
        """Appends the values of a batch."""
        self.file.write(json.dumps({"step": step, **values}) + "\n")


def _step_of(line: str) -> float:
    """The step of a line; infinity for one that is none, as a kill cuts the last one in two."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
    return step if isinstance(step, int | float) else math.inf


class RunProgress:
    """The speed of a run and the time that remains.

    Args:
        step: The first step of this process.
        total: Steps of the run.
    """

    def __init__(self, step: int, total: int) -> None:
        self.start, self.first, self.total = time.monotonic(), step, total

    def line(self, step: int, clips: int, **values: float) -> str:
        """Formats the step, some values, clips a second and the remaining time.

        Args:
            step: Steps done.
            clips: Clips in a step.
            **values: Values to show.
        """
        per_step = (time.monotonic() - self.start) / max(1, step - self.first)
        left = per_step * (self.total - step)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        return (
            f"step {step}/{self.total}  {shown}  {clips / per_step:.1f} clips/s  "
            f"{per_step:.2f} s/step  ETA {int(left // 3600)}:{int(left % 3600 // 60):02d} h"
        )

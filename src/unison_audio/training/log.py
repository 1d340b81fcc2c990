"""What a run tells while it goes: losses by task, where the time went, clips that were unusable."""

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from unison_audio.training.batches import Example

Row = Mapping[str, float | str]
"""The figures of one batch: its task, loss, gradient norm and number of items."""


class Shares:
    """Which part of a step goes into making its batches, and into the backbone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def add(self, examples: Sequence[Example], backbone: float) -> None:
        """Adds a step's times."""
        for example in examples:
            for part, spent in example.seconds.items():
                self.seconds[part] += spent
        self.seconds["backbone"] += backbone

    def taken(self) -> dict[str, float]:
        """Each part's share since the last call."""
        total = sum(self.seconds.values()) or 1.0
        shares = {part: spent / total for part, spent in self.seconds.items()}
        self.seconds.clear()
        return shares


def tracked(
    rows: Sequence[Row], shares: Mapping[str, float], skipped: Counter[str], rate: float
) -> dict[str, float]:
    """What trackers are told of some steps.

    Args:
        rows: Figures of their batches.
        shares: Share of the time by part.
        skipped: Clips that could not be used so far, by reason.
        rate: The learning rate.
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


def printed(shares: Mapping[str, float], skipped: Counter[str]) -> str:
    """The same shares and counts for people, behind the line of progress."""
    parts = [f"{part} {share:.0%}" for part, share in shares.items()]
    if skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
        parts.append(f"skipped clips: {reasons}")
    return "  ".join(parts)


def note_validation(folder: Path, step: int, figures: Mapping[str, float]) -> None:
    """Adds one line to ``validation.jsonl``."""
    with (folder / "validation.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **figures}) + "\n")


class LossLog:
    """``log.jsonl``: one line of figures a step; lines past the resumed step are dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        kept = [line for line in lines if _step_of(line) < step]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(line + "\n" for line in kept))
        partial.replace(self.path)
        self.file = self.path.open("a", buffering=1)

    def write(self, step: int, **figures: float | str) -> None:
        """Appends the figures of a step."""
        self.file.write(json.dumps({"step": step, **figures}) + "\n")


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):  # the line that a kill cut in two
        return math.inf


class Pace:
    """Says how fast a run goes and when it will be done."""

    def __init__(self, step: int, total: int) -> None:
        self.start, self.first, self.total = time.monotonic(), step, total

    def line(self, step: int, clips: int, **figures: float) -> str:
        """Formats progress: step, figures, clips per second, time to go."""
        per_step = (time.monotonic() - self.start) / max(1, step - self.first)
        left = per_step * (self.total - step)
        values = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
        return (
            f"step {step}/{self.total}  {values}  {clips / per_step:.1f} clips/s  "
            f"{per_step:.2f} s/step  ETA {int(left // 3600)}:{int(left % 3600 // 60):02d} h"
        )

"""What an ingest counts: clips and hours by group, removals by reason, broken files."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

from unison_audio.data.corpora.source import Skipped
from unison_audio.data.shards import ClipRecord

GROUPS: dict[str, Callable[[ClipRecord], str]] = {
    "language": lambda record: record.language,
    "kind": lambda record: record.kind,
    "split": lambda record: record.split,
    "sample_rate": lambda record: str(record.sample_rate),
    "zero_shot": lambda record: "yes" if record.zero_shot else "no",
}
"""Name -> what a clip counts under."""


@dataclasses.dataclass(kw_only=True)
class Tally:
    """Counts that can be added up."""

    groups: dict[str, dict[str, list[float]]] = dataclasses.field(
        default_factory=lambda: {name: {} for name in GROUPS}
    )
    """Name in ``GROUPS`` -> value -> [clips, seconds]."""

    removed: Counter[str] = dataclasses.field(default_factory=Counter)
    """Reason -> clips left out."""

    broken: list[list[str]] = dataclasses.field(default_factory=list)
    """[file, reason] of each damaged file."""

    cut: list[int] = dataclasses.field(default_factory=lambda: [0, 0])
    """[long sounds, pieces made of them]."""

    read: int = 0
    """Published clips that were looked at."""

    def add(self, record: ClipRecord) -> None:
        """Counts a clip that is kept."""
        for name, group_of in GROUPS.items():
            counts = self.groups[name].setdefault(group_of(record), [0, 0.0])
            counts[0] += 1
            counts[1] += record.seconds

    def skip(self, skipped: Skipped) -> None:
        """Counts what gives no clip."""
        if skipped.broken:
            self.broken.append([skipped.file, skipped.reason])
        else:
            self.removed[skipped.reason] += 1

    def pieces(self, count: int) -> None:
        """Counts a long sound that was cut into pieces."""
        self.cut = [self.cut[0] + 1, self.cut[1] + count]

    def merge(self, other: "Tally") -> None:
        """Adds another's counts, but not its list of broken files."""
        for name, groups in other.groups.items():
            for value, (clips, seconds) in groups.items():
                counts = self.groups[name].setdefault(value, [0, 0.0])
                counts[0] += clips
                counts[1] += seconds
        self.removed.update(other.removed)
        self.cut = [mine + theirs for mine, theirs in zip(self.cut, other.cut, strict=True)]
        self.read += other.read

    def to_json(self) -> dict[str, Any]:
        """Gives what ``Tally(**...)`` takes."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**fields, "removed": dict(self.removed)}

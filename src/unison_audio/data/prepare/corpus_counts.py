"""Counts of a corpus, made while it is written, and the content of its index."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unison_audio.data.corpora.source import Skipped
from unison_audio.data.records import ClipRecord
from unison_audio.data.shards import FORMAT

GROUPS: dict[str, Callable[[ClipRecord], str]] = {
    "language": lambda record: record.language,
    "kind": lambda record: record.kind,
    "split": lambda record: record.split,
    "sample_rate": lambda record: str(record.sample_rate),
    "zero_shot": lambda record: "yes" if record.zero_shot else "no",
}
"""Name of a count -> a clip's value in it."""


@dataclasses.dataclass(kw_only=True)
class CorpusCounts:
    """Counts of a corpus or of a part of it, which can be merged."""

    groups: dict[str, dict[str, list[float]]] = dataclasses.field(
        default_factory=lambda: {name: {} for name in GROUPS}
    )
    """Name in `GROUPS` -> value -> [clips, seconds]."""
    removed: Counter[str] = dataclasses.field(default_factory=Counter)
    """Reason -> number of clips left out."""
    broken: list[list[str]] = dataclasses.field(default_factory=list)
    """[file, reason] of each damaged file."""
    cut: list[int] = dataclasses.field(default_factory=lambda: [0, 0])
    """Number of long sounds, and of the pieces cut from them."""
    read: int = 0
    """Number of published clips that were read."""

    def add(self, record: ClipRecord) -> None:
        """Counts a clip that is kept."""
        for name, group_of in GROUPS.items():
            counts = self.groups[name].setdefault(group_of(record), [0, 0.0])
            counts[0] += 1
            counts[1] += record.seconds

    def skip(self, skipped: Skipped) -> None:
        """Counts an item that gives no clip."""
        if skipped.broken:
            self.broken.append([skipped.file, skipped.reason])
        else:
            self.removed[skipped.reason] += 1

    def pieces(self, count: int) -> None:
        """Counts a long sound that was cut into pieces."""
        self.cut = [self.cut[0] + 1, self.cut[1] + count]

    def merge(self, other: "CorpusCounts") -> None:
        """Adds other counts, but not their list of broken files, which goes into a file."""
        for name, groups in other.groups.items():
            for value, (clips, seconds) in groups.items():
                counts = self.groups[name].setdefault(value, [0, 0.0])
                counts[0] += clips
                counts[1] += seconds
        self.removed.update(other.removed)
        self.cut = [mine + theirs for mine, theirs in zip(self.cut, other.cut, strict=True)]
        self.read += other.read

    def to_json(self) -> dict[str, Any]:
        """Plain values; `CorpusCounts(**values)` restores the counts."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**fields, "removed": dict(self.removed)}


def index_of(
    corpus: str,
    licence: str,
    counts: CorpusCounts,
    shards: Sequence[Mapping[str, Any]],
    own: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of a corpus's `index.json`.

    Args:
        corpus: Name of the corpus.
        licence: License of its clips.
        counts: Counts of all its clips.
        shards: Entries of the shards, as from `shard_writer.shard_entry`.
        own: Further keys of this corpus.
    """
    groups = {
        field: {
            value: {"clips": int(clips), "hours": round(seconds / 3600, 4)}
            for value, (clips, seconds) in sorted(counts.groups[field].items())
        }
        for field in counts.groups
    }
    return {
        "format": FORMAT,
        "corpus": corpus,
        "licence": licence,
        "clips": sum(entry["clips"] for entry in shards),
        "hours": round(sum(entry["seconds"] for entry in shards) / 3600, 4),
        "by_language": groups["language"],
        "by_kind": groups["kind"],
        "by_split": groups["split"],
        "sample_rates": {rate: about["clips"] for rate, about in groups["sample_rate"].items()},
        "zero_shot": groups["zero_shot"].get("yes", {"clips": 0, "hours": 0.0}),
        "removed": {reason: n for reason, n in sorted(counts.removed.items()) if n},
        "cut": {"recordings": counts.cut[0], "pieces": counts.cut[1]},
        **own,
        "shards": list(shards),
    }

"""The plan of an ingest, on disk: the units of a corpus, their order, and their chunks.

The plan is made once, before the first clip is read, and kept until the ingest is done. The chunks
therefore stay the same if a run is killed or files are added to the corpus's folder, and a resumed
ingest gives the same bytes. The plan is a database, since a list of 36 million clips would need too
much memory.
"""

import dataclasses
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unison_audio.data.corpora.source import DUPLICATE, Corpus, Skipped, Unit

CHUNK_CLIPS = (500, 20_000)
"""Approximate least and most clips of a chunk; in between, a corpus gets `CHUNKS` chunks."""

CHUNKS = 64

_TABLES = """
create table rows (key text, row text);
create index rows_by_key on rows (key);
create table units (n integer primary key, key text unique, split text, weight real, payload text);
create table parts (name text primary key, split text, first integer, last integer, weight real);
create table broken (file text, reason text);
create table notes (name text primary key, value text);
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunk:
    """A run of units that one process works through."""

    name: str
    """Part of the names of its shards."""
    split: str
    """Split of all its units; empty if a unit has clips of several."""
    first: int
    """Number of the first unit."""
    last: int
    """Number of the last unit."""
    weight: float
    """Its share of the work, for the progress."""


class IngestPlan:
    """A plan on disk; also the corpus's `Rows`.

    Args:
        path: The file; created if missing.
    """

    def __init__(self, path: Path) -> None:
        fresh = not path.exists()
        self._connection = sqlite3.connect(path, isolation_level=None)
        # Much faster. A plan that a power cut has damaged is reported, see `worker.stopped`.
        self._connection.execute("pragma synchronous = off")
        self._connection.execute("pragma cache_size = -16384")  # 16 MB per process
        if fresh:
            # An unfinished plan is discarded, so that nothing need be rolled back.
            self._connection.execute("pragma journal_mode = off")
            self._connection.executescript(_TABLES)

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def put(self, key: str, row: list[Any]) -> None:
        """Adds a row under a key."""
        self._connection.execute("insert into rows values (?, ?)", (_plain(key), json.dumps(row)))

    def get(self, key: str) -> list[list[Any]]:
        """The rows of a key, in the order of their addition."""
        found = self._connection.execute(
            "select row from rows where key = ? order by rowid", (_plain(key),)
        ).fetchall()
        return [json.loads(row) for (row,) in found]

    def note(self, name: str, value: Any) -> None:
        """Stores a value under a name."""
        self._connection.execute(
            "insert or replace into notes values (?, ?)", (name, json.dumps(value))
        )

    def noted(self, name: str) -> Any:
        """The value under a name; None if there is none."""
        found = self._connection.execute(
            "select value from notes where name = ?", (name,)
        ).fetchone()
        return None if found is None else json.loads(found[0])

    def published(self) -> int:
        """Number of published clips: rows whose key has no prefix of a second index."""
        query = "select count(*) from rows where substr(key, 1, 1) not in ('#', '@')"
        return int(self._connection.execute(query).fetchone()[0])

    def broken(self) -> Iterator[tuple[str, str]]:
        """Yields (file, reason) of the items that could not be listed."""
        yield from self._connection.execute("select file, reason from broken order by rowid")

    def chunks(self) -> list[Chunk]:
        """Lists the chunks in their order."""
        found = self._connection.execute("select * from parts order by rowid")
        names = [field.name for field in dataclasses.fields(Chunk)]
        return [Chunk(**dict(zip(names, row, strict=True))) for row in found]

    def units(self, chunk: Chunk) -> Iterator[tuple[dict[str, Any], float]]:
        """Yields (payload, weight) of the units of a chunk in their order."""
        found = self._connection.execute(
            "select payload, weight from units where split = ? and n between ? and ? order by n",
            (chunk.split, chunk.first, chunk.last),
        )
        for payload, weight in found:
            yield json.loads(payload), weight

    def fill(self, corpus: Corpus, root: Path) -> None:
        """Lists a corpus and divides it into chunks."""
        # One transaction, since SQLite commits each statement otherwise.
        self._connection.execute("begin")
        removed: Counter[str] = Counter()
        count = 0
        for item in corpus.units(root, self):
            if isinstance(item, Skipped) and item.broken:
                entry = (_plain(item.file), _plain(item.reason))
                self._connection.execute("insert into broken values (?, ?)", entry)
            elif isinstance(item, Skipped):
                removed[item.reason] += 1
            elif self._add(item):
                count += 1
            else:
                removed[DUPLICATE] += 1
        self._connection.execute("create index units_by_split on units (split, n)")
        self._divide(count, corpus.clips_per_unit)
        self.note("removed", removed)
        self._connection.execute("commit")

    def _add(self, unit: Unit) -> bool:
        payload = json.dumps(unit.payload)
        # The unique key finds duplicates on disk; a set of 36 million keys would take gigabytes.
        cursor = self._connection.execute(
            "insert or ignore into units (key, split, weight, payload) values (?, ?, ?, ?)",
            (_plain(unit.key), unit.split, unit.weight, payload),
        )
        return cursor.rowcount == 1

    def _divide(self, units: int, clips_per_unit: int) -> None:
        least, most = CHUNK_CLIPS
        clips = min(max(least, units * clips_per_unit // CHUNKS), most)
        size = max(1, clips // clips_per_unit)
        # Training clips come first, so that a small limit is not used up by held-out clips. Each
        # split gets chunks of its own, so that a training run opens no held-out shard.
        found = self._connection.execute(
            "select n, split, weight from units order by split = 'train' desc, split, n"
        )
        chunk: list[Any] = []
        counts: dict[str, int] = {}
        inside = 0
        for n, split, weight in found:
            if not chunk or split != chunk[1] or inside == size:
                self._add_chunk(chunk)
                number = counts.get(split, 0)
                counts[split] = number + 1
                chunk, inside = [f"{split or 'all'}-{number:05d}", split, n, n, 0.0], 0
            chunk[3], chunk[4], inside = n, chunk[4] + weight, inside + 1
        self._add_chunk(chunk)

    def _add_chunk(self, chunk: list[Any]) -> None:
        if chunk:
            self._connection.execute("insert into parts values (?, ?, ?, ?, ?)", chunk)


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # lone surrogates cannot be stored

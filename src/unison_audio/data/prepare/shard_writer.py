"""Writes the files of a corpus so that each appears whole or not at all, also after a crash."""

import dataclasses
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from webdataset import TarWriter

from unison_audio.data.prepare.clip import EncodedClip

WORK = ".ingest"
"""Folder beside the shards with what an unfinished ingest needs to resume."""

_BLOCK = 512


class ShardWriter:
    """A shard being written; it appears under its name when it is complete.

    Args:
        out: Folder of the shards.
        name: File name.
    """

    def __init__(self, out: Path, name: str) -> None:
        self.path = out / name
        # With the process' number, a straggler of a killed run cannot write into this file.
        self._partial = out / WORK / f"{name}.{os.getpid()}.partial"
        self._file = self.open_partial()
        self._hash = hashlib.sha256()
        self._writer = TarWriter(self, mtime=0)
        self.clips, self.seconds, self.bytes = 0, 0.0, 0
        self.kinds: set[str] = set()
        self.splits: set[str] = set()

    def open_partial(self) -> IO[bytes]:
        """Opens the file that is to become the shard."""
        return self._partial.open("wb")

    def write(self, data: bytes) -> int:
        """Takes what the tar writer makes."""
        if self._file.closed:  # abandoned: the tar's end mark goes nowhere
            return len(data)
        self._hash.update(data)
        return self._file.write(data)

    def add(self, clip: EncodedClip) -> None:
        """Adds a clip."""
        record = clip.record
        fields = json.dumps(dataclasses.asdict(record)).encode()
        self._writer.write({"__key__": record.key, clip.suffix: clip.content, "json": fields})
        self.clips += 1
        self.seconds += record.seconds
        self.bytes += size_in_tar(clip)
        self.kinds.add(record.kind)
        self.splits.add(record.split)

    def finish(self) -> dict[str, Any]:
        """Moves the shard to its place.

        Returns:
            Its entry in the index.
        """
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        self._partial.replace(self.path)
        return {
            "name": self.path.name,
            "clips": self.clips,
            "seconds": round(self.seconds, 3),
            "bytes": size,
            "kinds": sorted(self.kinds),
            "splits": sorted(self.splits),
            "sha256": self._hash.hexdigest(),
        }

    def abandon(self) -> None:
        """Discards what was written."""
        with suppress(OSError):  # on a full disk, flushing what is left fails
            self._file.close()
        self._partial.unlink(missing_ok=True)


def size_in_tar(clip: EncodedClip) -> int:
    """Estimates the bytes of a clip in a tar: two headers, two contents in whole blocks."""
    return 4 * _BLOCK + -(-len(clip.content) // _BLOCK) * _BLOCK + _BLOCK


def write_durably(path: Path, text: str) -> None:
    """Writes a text file that appears whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)

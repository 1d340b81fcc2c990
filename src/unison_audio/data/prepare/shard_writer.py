"""Writes the files of a corpus so that each appears complete or not at all, also after a crash."""

import dataclasses
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import soundfile

from unison_audio.data.prepare.clip import EncodedClip
from unison_audio.data.records import Clip, ClipRecord

WORK = ".ingest"
"""Folder beside the shards with the files that an unfinished ingest resumes from."""

_BLOCK = 512


class ShardWriter:
    """A shard being written; the file appears under its name when it is complete.

    Args:
        out: Folder of the shards.
        name: File name.
    """

    def __init__(self, out: Path, name: str) -> None:
        self.path = out / name
        # The process id is in the name because a worker of a killed run may still be writing.
        self._partial = out / f"{name}.{os.getpid()}.partial"
        self._file = self.open_partial()
        self._hash = hashlib.sha256()
        # Imported here, since webdataset imports torch, which a refused ingest need not load.
        from webdataset import TarWriter

        # A fixed time stamp: the same clips give the same bytes.
        self._writer = TarWriter(self, mtime=0)
        self.records: list[ClipRecord] = []
        self.bytes = 0

    def open_partial(self) -> IO[bytes]:
        """Opens the file that is to become the shard."""
        return self._partial.open("wb")

    def write(self, data: bytes) -> int:
        """Writes and hashes bytes from the tar writer; large shards are not read again to hash."""
        # A tar writer that is deleted writes its end mark, also after `abandon`.
        if self._file.closed:
            return len(data)
        self._hash.update(data)
        return self._file.write(data)

    def add(self, clip: EncodedClip) -> None:
        """Adds a clip."""
        record = dataclasses.asdict(clip.record)
        self._writer.write({"__key__": clip.record.key, clip.suffix: clip.content, "json": record})
        self.records.append(clip.record)
        self.bytes += size_in_tar(clip)

    def finish(self) -> dict[str, Any]:
        """Moves the shard to its place.

        Returns:
            Its entry in the index.
        """
        self._writer.close()
        self._file.flush()
        # Before the rename: after a power cut, the name must not stand for an empty file.
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self.path)
        return shard_entry(self.path, self.records, self._hash.hexdigest())

    def abandon(self) -> None:
        """Discards an unfinished shard."""
        with suppress(OSError):  # on a full disk, the rest cannot be flushed
            self._file.close()
        self._partial.unlink(missing_ok=True)


def shard_entry(path: Path, records: Sequence[ClipRecord], sha256: str) -> dict[str, Any]:
    """The entry of a shard in the index of its corpus.

    Args:
        path: The shard.
        records: Records of its clips.
        sha256: Hash of the file.
    """
    return {
        "name": path.name,
        "clips": len(records),
        "seconds": round(sum(record.seconds for record in records), 3),
        "bytes": path.stat().st_size,
        "kinds": sorted({record.kind for record in records}),
        "splits": sorted({record.split for record in records}),
        "sha256": sha256,
    }


def write_shard(path: Path, clips: Iterable[Clip], sample_rate: int) -> list[ClipRecord]:
    """Writes decoded clips as a shard of 16-bit FLAC.

    Args:
        path: The `.tar` to write.
        clips: The clips.
        sample_rate: Sample rate of the waveforms in Hz.

    Returns:
        The records written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = ShardWriter(path.parent, path.name)
    try:
        for clip in clips:
            file = io.BytesIO()
            soundfile.write(file, clip.waveform.numpy(), sample_rate, "PCM_16", format="FLAC")
            content = file.getvalue()
            writer.add(EncodedClip(record=clip.record, suffix="flac", content=content))
        writer.finish()
    finally:
        writer.abandon()
    return writer.records


def size_in_tar(clip: EncodedClip) -> int:
    """Estimates the bytes of a clip in a tar: two headers, two contents in whole blocks."""
    return 4 * _BLOCK + -(-len(clip.content) // _BLOCK) * _BLOCK + _BLOCK


def remove_partials(folder: Path) -> None:
    """Deletes the unfinished files that a killed run left in a folder."""
    for partial in folder.glob("*.partial"):
        partial.unlink(missing_ok=True)


def write_durably(path: Path, text: str) -> None:
    """Writes a text file that appears complete or not at all, also after a power cut."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)

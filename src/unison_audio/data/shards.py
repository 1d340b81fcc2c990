"""WebDataset shards: written whole or not at all, read in order from any sample on.

An interrupted transfer is resumed; what cannot be read is reported as a number of lost clips.
"""

import io
import tarfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import soundfile
import webdataset
from webdataset.tariterators import base_plus_ext

from unison_audio.data.corpus_index import is_url, open_url
from unison_audio.data.records import Clip, ClipRecord

UNREADABLE = "shard cannot be read"

CUT_SHORT = "shard cut short"

RETRY_SECONDS = (0.5, 1.5)
"""Waits before a shard that failed is read again."""

_DRAIN = 1 << 16


@dataclass(frozen=True)
class Sample:
    """One clip as bytes, as it lies in a shard."""

    ordinal: int
    """Place in the shard, from 0."""
    files: dict[str, bytes]
    """Content by suffix, such as ``flac`` and ``json``; empty if the sample was not wanted."""

    @property
    def suffix(self) -> str:
        """Of the recording; empty if there is none."""
        return next((name for name in self.files if name != "json"), "")


class LostClipsError(Exception):
    """A shard, or the rest of one, that cannot be read."""

    def __init__(self, reason: str, first: int, detail: str) -> None:
        self.reason, self.first = reason, first
        super().__init__(detail)


def write_shard(path: Path, clips: Iterable[Clip], sample_rate: int) -> list[ClipRecord]:
    """Writes a shard of 16-bit FLAC and JSON pairs; the file appears only when it is complete.

    Args:
        path: The ``.tar`` to write.
        clips: What goes in.
        sample_rate: Of the waveforms, in Hz.

    Returns:
        The records written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    records = []
    with webdataset.TarWriter(str(partial), mtime=0) as writer:
        for clip in clips:
            sound = io.BytesIO()
            soundfile.write(sound, clip.waveform.numpy(), sample_rate, "PCM_16", format="FLAC")
            record = asdict(clip.record)
            writer.write({"__key__": clip.record.key, "flac": sound.getvalue(), "json": record})
            records.append(clip.record)
    partial.replace(path)
    return records


def read_samples(
    url: str, clips: int, *, first: int = 0, share: tuple[int, int] = (0, 1), patient: bool = True
) -> Iterator[Sample]:
    """Yields the samples of a shard in their order.

    Args:
        url: The shard.
        clips: How many it should hold.
        first: Ordinal of the first sample wanted.
        share: (i, n) for samples whose ordinal leaves i when divided by n; the others are
            skipped without reading them.
        patient: Whether to retry, after a wait, what cannot be read.

    Raises:
        LostClipsError: After the last whole sample, if some are missing.
    """
    reached = first
    waits = iter(RETRY_SECONDS if patient else ())
    while True:
        try:
            for sample in _walk(url, clips, reached, share):
                if sample.files:
                    yield sample
                    waits = iter(RETRY_SECONDS if patient else ())
                reached = sample.ordinal + 1
            if reached < clips:
                raise LostClipsError(
                    CUT_SHORT, reached, f"it ends after {reached} of {clips} clips"
                )
            return
        except tarfile.TarError as error:
            raise LostClipsError(CUT_SHORT, reached, str(error)) from error
        except OSError as error:
            wait = next(waits, None)
            if wait is None:
                raise LostClipsError(UNREADABLE, reached, str(error)) from error
            time.sleep(wait)


def _walk(url: str, clips: int, first: int, share: tuple[int, int]) -> Iterator[Sample]:
    """Reads a shard once; samples that are not wanted come without files."""
    source = open_url(url)
    try:
        stream = _Forward(source) if is_url(url) else source
        try:
            yield from _samples(stream, clips, first, share)
        except tarfile.TarError:
            if is_url(url):
                _finish(source)  # whether the transfer broke off rather than the shard
            raise
        if is_url(url):
            _finish(source)
    finally:
        with suppress(OSError):  # a fetching program whose output is no longer read fails
            source.close()


def _finish(source: IO[bytes]) -> None:
    """Reads to the end and has the program's success checked."""
    while source.read(_DRAIN):
        pass
    source.close()


def _samples(
    stream: "IO[bytes] | _Forward", clips: int, first: int, share: tuple[int, int]
) -> Iterator[Sample]:
    archive = tarfile.TarFile(fileobj=stream, tarinfo=_Member)  # type: ignore[arg-type]
    remainder, divisor = share
    ordinal, key = -1, None
    files: dict[str, bytes] = {}
    broken_off = None
    while True:
        try:
            member = archive.next()
        except tarfile.TarError as error:
            broken_off, member = error, None
        if member is None:
            break
        archive.members = []  # type: ignore[attr-defined]  # it would keep every header: memory grows with the shard
        prefix, suffix = base_plus_ext(member.name)
        if not member.isreg() or prefix is None:
            continue
        if prefix != key:
            if key is not None:
                yield Sample(ordinal, files)
            key, ordinal, files = prefix, ordinal + 1, {}
        if ordinal >= first and ordinal % divisor == remainder:
            content = stream.read(member.size)
            if len(content) < member.size:
                raise tarfile.ReadError(f"{member.name} has {len(content)} of {member.size} bytes")
            files[suffix.lower()] = content
    # If more should follow, the shard may be cut inside the last sample.
    if key is not None and (not files or _is_whole(files) or ordinal + 1 >= clips):
        yield Sample(ordinal, files)
    if broken_off is not None:
        raise broken_off


def _is_whole(files: dict[str, bytes]) -> bool:
    """Whether a sample has its record and its sound."""
    return "json" in files and len(files) > 1


class _Member(tarfile.TarInfo):
    """A header read three times as fast, where it is that of an ordinary file."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> "_Member":
        """Reads a header: all that `_samples` needs of an ordinary file's, any other as usual."""
        ordinary = len(buf) == tarfile.BLOCKSIZE and buf[257:262] == b"ustar"
        if ordinary and buf[156:157] == tarfile.REGTYPE and not buf[345]:
            checksum, size = buf[148:156], buf[124:136].rstrip(b"\0 ")
            expected = sum(buf) - sum(checksum) + 8 * ord(" ")
            if size.isdigit() and checksum.rstrip(b"\0 ") == b"%06o" % expected:
                member = cls(buf[:100].partition(b"\0")[0].decode(encoding or "utf-8", errors))
                member.size = int(size, 8)
                return member
        return super().frombuf(buf, encoding, errors)  # type: ignore[arg-type]


class _Forward:
    """A stream that can be read forwards only, with what ``tarfile`` needs to skip members."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source, self._position = source, 0

    def read(self, size: int) -> bytes:
        """Reads up to so many bytes."""
        content = self._source.read(size)
        self._position += len(content)
        return content

    def tell(self) -> int:
        """Bytes read so far."""
        return self._position

    def seek(self, position: int) -> None:
        """Reads on up to a position, or to the end."""
        assert position >= self._position, "a stream has no way back"
        while position > self._position and self.read(min(_DRAIN, position - self._position)):
            pass

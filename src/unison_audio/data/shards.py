"""Reads the shards of a corpus: in order, in the order of an epoch, or all into memory.

An epoch of a corpus is a permutation of its shards, partitioned among the workers of all processes;
if there are more workers than shards, several share one by sample number. Each worker shuffles in
blocks: a block is read in order and ends at its size or with the epoch. A full shuffle needs random
access to the shards, which object stores do not give, or a state as long as the corpus. With blocks
a place is five numbers for each corpus and worker, and a resume reads one block again.
"""

import tarfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np

from unison_audio.data.records import (
    BrokenClipError,
    Clip,
    CorpusIndex,
    find_corpus,
    is_url,
    open_url,
    read_record,
)
from unison_audio.device import available_memory
from unison_audio.errors import InputError

UNREADABLE, CUT_SHORT = "shard cannot be read", "shard cut short"
"""Why clips of a shard are lost."""

RETRY_SECONDS = (0.5, 1.5)
"""Waits before a failed shard is read again."""

_READ_BYTES = 1 << 16

BLOCK_CLIPS, BLOCK_BYTES = 1000, 64 << 20
"""Most clips and encoded bytes of a block; they bound the memory per corpus and worker."""

MOST_IN_A_ROW = {"shards": 32, "clips": 10_000}
"""So many shards without a clip, or unusable clips, one after the other, end a run."""

EPOCH, BLOCK, CORPUS, CROP = range(4)
"""What random numbers are drawn for; each has a sequence of its own."""

Units = np.ndarray
"""(U, 4) int64, the pieces of an epoch: shard, share i of n, first sample."""

Leftover = Mapping[int, Units]
"""Epoch -> the units that another number of workers left of it."""


class SkippedClipsWarning(UserWarning):
    """A shard with clips that cannot be used; one warning per shard."""


@dataclass(frozen=True)
class Sample:
    """One clip as bytes, as in a shard."""

    ordinal: int
    """Place in the shard, from 0."""
    files: dict[str, bytes]
    """Suffix, such as `flac` or `json`, -> content; empty if the sample is not wanted."""

    @property
    def suffix(self) -> str:
        """Suffix of the recording; empty if there is none."""
        return next((name for name in self.files if name != "json"), "")


class LostClipsError(Exception):
    """A shard that cannot be read from its sample `first` on."""

    def __init__(self, reason: str, first: int, detail: str) -> None:
        self.reason, self.first = reason, first
        super().__init__(detail)


class Place(NamedTuple):
    """Where a block of a corpus begins, and how many of its clips were given."""

    epoch: int = 0
    unit: int = 0
    """Number of the unit among the worker's units of the epoch."""
    ordinal: int = 0
    """Number of the next sample in the unit's shard."""
    block: int = 0
    """Number of blocks before this one."""
    delivered: int = 0
    """Clips of the block that were given."""


@dataclass(kw_only=True)
class CorpusReader:
    """A worker's endless reading of one corpus."""

    index: CorpusIndex
    number: int
    """The corpus's number in the stream."""
    seed: int
    worker: int
    """Number of this worker among those of all processes."""
    num_workers: int
    leftover: Leftover
    skipped: Counter[str]
    """Unusable clips of the worker by reason; what is lost is added to it."""
    lost: Counter[str] = field(default_factory=Counter)
    """Clips lost while the current block was read."""
    lost_shards: set[int] = field(default_factory=set)
    warned: set[int] = field(default_factory=set)
    in_a_row: Counter[str] = field(default_factory=Counter)

    def read(self, start: Place) -> Iterator[tuple[int, Sample, Place]]:
        """Yields the shard, a sample, and the place after it."""
        reads = self._read_in_order(start)
        begin, given = start._replace(delivered=0), start.delivered
        while True:
            block: list[tuple[int, Sample]] = []
            size = 0
            while len(block) < BLOCK_CLIPS and size < BLOCK_BYTES:
                end, shard, sample = next(reads)
                if sample is None:
                    break
                block.append((shard, sample))
                size += sum(map(len, sample.files.values()))
            if not given:  # else they were counted before the resume
                self.skipped.update(self.lost)
            self.lost.clear()
            generator = generator_of(self.seed, BLOCK, self.number, self.worker, begin.block)
            for count, chosen in enumerate(generator.permutation(len(block)).tolist(), 1):
                if count > given:
                    yield *block[chosen], begin._replace(delivered=count)
            begin, given = end._replace(block=begin.block + 1), 0

    def _read_in_order(self, start: Place) -> Iterator[tuple[Place, int, Sample | None]]:
        """Yields where the next sample is, the shard, and a sample; None at an epoch's end."""
        epoch, first_unit, ordinal = start[:3]
        while True:
            every = epoch_units(
                self.index, self.number, self.seed, epoch, self.num_workers, self.leftover
            )
            # A view would keep the units of all workers in memory for the whole epoch.
            units = every[self.worker :: self.num_workers].copy()
            del every
            for unit in range(first_unit, len(units)):
                shard, share, shares, first = units[unit].tolist()
                clips = int(self.index.clips[shard])
                try:
                    for sample in read_samples(
                        self.index.url(shard),
                        clips,
                        first=max(first, ordinal),
                        share=(share, shares),
                        # A shard that failed in an earlier epoch costs no more waits.
                        patient=shard not in self.lost_shards,
                    ):
                        self.in_a_row["shards"] = 0
                        yield Place(epoch, unit, sample.ordinal + 1), shard, sample
                except LostClipsError as error:
                    missing = sum(i % shares == share for i in range(error.first, clips))
                    self.lost[error.reason] += missing
                    self.lost_shards.add(shard)
                    self.warn(shard, f"{error.reason} ({error})")
                    self.count("shards", shard)
                ordinal = 0
            epoch, first_unit = epoch + 1, 0
            yield Place(epoch), 0, None

    def warn(self, shard: int, fault: str) -> None:
        """Warns of a shard's first fault: a damaged corpus must not flood the log."""
        if shard not in self.warned:
            self.warned.add(shard)
            text = f"{self.index.url(shard)}: {fault}; further skips there are only counted"
            warnings.warn(text, SkippedClipsWarning, stacklevel=2)

    def count(self, what: str, shard: int) -> None:
        """Counts a shard or a clip that was of no use, and ends the run after many in a row."""
        self.in_a_row[what] += 1
        if self.in_a_row[what] >= MOST_IN_A_ROW[what]:
            raise InputError(
                f"{MOST_IN_A_ROW[what]} {what} of the corpus {self.index.name} in a row, the last "
                f"in {self.index.url(shard)}, could not be used; see the warnings for the reasons, "
                "and repair the corpus or leave it out"
            )


def generator_of(seed: int, purpose: int, *where: int) -> np.random.Generator:
    """Makes the generator of one place: it has no state that a checkpoint would have to store."""
    return np.random.default_rng((seed, purpose, *where))


def epoch_units(
    index: CorpusIndex, number: int, seed: int, epoch: int, num_workers: int, leftover: Leftover
) -> Units:
    """Lists the units of an epoch; worker w reads units w, w + num_workers, ..."""
    if epoch in leftover:
        return leftover[epoch]
    # At least one unit per worker, also where a small corpus has fewer shards than workers.
    shares = -(-num_workers // len(index.names))
    order = generator_of(seed, EPOCH, number, epoch).permutation(len(index.names) * shares)
    share, zero = order % shares, np.zeros_like(order)
    return np.stack([order // shares, share, np.full_like(order, shares), zero], axis=1)


def read_samples(
    url: str, clips: int = 0, *, first: int = 0, share: tuple[int, int] = (0, 1), patient: bool
) -> Iterator[Sample]:
    """Yields the samples of a shard in order.

    Args:
        url: Path or URL of the shard.
        clips: Number of clips it should hold; 0 if unknown.
        first: Ordinal of the first sample wanted.
        share: (i, n) for the samples whose ordinal is i modulo n. The others are not read.
        patient: Whether to wait and retry if the shard cannot be read.

    Raises:
        LostClipsError: After the last complete sample, if some are missing.
    """
    reached, retries = first, RETRY_SECONDS if patient else ()
    waits = iter(retries)
    while True:
        try:
            for sample in _walk(url, clips, reached, share):
                if sample.files:
                    yield sample
                    waits = iter(retries)  # progress earns them: a transfer may break off often
                reached = sample.ordinal + 1
            if reached < clips:
                raise tarfile.ReadError(f"it ends after {reached} of {clips} clips")
            return
        except tarfile.TarError as error:
            raise LostClipsError(CUT_SHORT, reached, str(error)) from error
        except OSError as error:
            wait = next(waits, None)
            if wait is None:
                raise LostClipsError(UNREADABLE, reached, str(error)) from error
            time.sleep(wait)


def _walk(url: str, clips: int, first: int, share: tuple[int, int]) -> Iterator[Sample]:
    """Reads a shard once; unwanted samples come without files."""
    source = open_url(url)
    try:
        # The mode with "|" never seeks in the stream, which a transfer cannot do.
        mode: Literal["r|", "r:"] = "r|" if is_url(url) else "r:"
        with tarfile.open(fileobj=source, mode=mode, bufsize=_READ_BYTES) as archive:
            yield from _group(archive, clips, first, share)
        _end_transfer(url, source)
    except tarfile.TarError:
        _end_transfer(url, source)
        raise
    finally:
        with suppress(OSError):  # a fetching program fails if its output is not read to the end
            source.close()


def _end_transfer(url: str, source: IO[bytes]) -> None:
    """Raises OSError if a transfer broke off: then it is not the shard that ends early."""
    if is_url(url):
        while source.read(_READ_BYTES):
            pass
        source.close()


def _group(
    archive: tarfile.TarFile, clips: int, first: int, share: tuple[int, int]
) -> Iterator[Sample]:
    """Groups the members of a shard into samples."""
    ordinal, key, broken_off = -1, None, None
    files: dict[str, bytes] = {}
    while True:
        try:
            member = archive.next()
        except tarfile.TarError as error:
            broken_off, member = error, None
        if member is None:
            break
        # It would keep every header: memory would grow with the shard.
        archive.members = []  # type: ignore[attr-defined]
        folder, slash, name = member.name.rpartition("/")
        stem, dot, suffix = name.partition(".")
        if not member.isreg() or not stem or not dot:
            continue
        if folder + slash + stem != key:
            if key is not None:
                yield Sample(ordinal, files)
            key, ordinal, files = folder + slash + stem, ordinal + 1, {}
        if ordinal >= first and ordinal % share[1] == share[0]:
            # After `next`, the file stands at the member's content.
            content = archive.fileobj.read(member.size)
            if len(content) < member.size:
                raise tarfile.ReadError(f"{member.name} has {len(content)} of {member.size} bytes")
            files[suffix.lower()] = content
    # If more clips should follow, the shard may end between the files of the last sample.
    whole = not files or ("json" in files and len(files) > 1) or ordinal + 1 >= clips
    if key is not None and whole:
        yield Sample(ordinal, files)
    if broken_off is not None:
        raise broken_off


def read_corpus(
    folder: Path, sample_rate: int, *, kind: str | None = None, split: str | None = None
) -> list[Clip]:
    """Reads the clips of a corpus, shard by shard in the order of their names.

    Args:
        folder: A folder that `unison-audio data` wrote.
        sample_rate: Sample rate of the waveforms in Hz; other clips are resampled.
        kind: `speech` or `sound`; None for both.
        split: Split of the clips; None for all.

    Raises:
        InputError: If the folder is no complete corpus or has no such clips, if they do not fit
            into memory, or if a shard is damaged.
    """
    index = find_corpus(folder, kind=kind, split=split)
    needed = int(index.seconds * sample_rate * 4)  # bytes, as float32
    free = available_memory()
    if free is not None and needed > free:
        raise InputError(
            f"{folder} has {index.seconds / 3600:.0f} hours, which need {needed / 1e9:.1f} GB of "
            f"memory where {free / 1e9:.1f} GB are free; build a smaller corpus with "
            "unison-audio data --limit"
        )
    return [
        clip
        for shard in index.names.argsort().tolist()
        for clip in read_shard(
            Path(index.url(shard)),
            sample_rate,
            int(index.clips[shard]),
            kind=kind,
            split=split,
        )
    ]


def read_shard(
    path: Path,
    sample_rate: int,
    clips: int = 0,
    *,
    kind: str | None = None,
    split: str | None = None,
) -> Iterator[Clip]:
    """Reads the clips of a shard in order.

    Args:
        path: The shard.
        sample_rate: Sample rate of the waveforms in Hz; other clips are resampled.
        clips: Number of clips that it must hold; 0 if unknown.
        kind: `speech` or `sound`; None for both.
        split: Split of the clips; None for all.

    Raises:
        InputError: If the shard is damaged.
    """
    from unison_audio.data.recording import decode

    try:
        for sample in read_samples(str(path), clips, patient=False):
            record = read_record(sample.files.get("json", b""))
            if kind in (None, record.kind) and split in (None, record.split):
                content = sample.files.get(sample.suffix, b"")
                try:
                    waveform = decode(content, sample.suffix, sample_rate)
                except BrokenClipError as error:
                    detail = f"its clip {record.key}: {error.reason}, {error}"
                    raise BrokenClipError(error.reason, detail) from error
                yield Clip(record=record, waveform=waveform)
    except (LostClipsError, BrokenClipError) as error:
        raise InputError(
            f"The shard {path} is damaged ({error}); delete it and build the corpus again"
        ) from error

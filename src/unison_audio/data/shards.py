"""A corpus on disk or behind a URL: its index, and the clips in its shards.

A corpus is a folder with `index.json` and shards, tar files in the layout of webdataset. An index
is read without torch, so that a wrong folder is refused at once.
"""

import shlex
import shutil
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from unison_audio.data.records import (
    BROKEN_RECORD,
    BrokenClipError,
    Clip,
    ClipRecord,
    decode,
    in_split,
    read_record,
)
from unison_audio.errors import InputError
from unison_audio.json_files import parse_json, read_bounded
from unison_audio.values import as_whole, require_path, shown

if TYPE_CHECKING:
    from torch import Tensor

INDEX_FILE = "index.json"

OLD_INDEX_FILE = "manifest.json"
"""Index that `unison-audio data nano` wrote before all corpora had one format."""

FORMAT = 1

MOST_INDEX_BYTES = 1 << 29
"""Largest index: a million shards have 200 MB."""

MOST_CLIPS = 10_000_000
"""Most clips and seconds of one shard; `unison-audio data` writes 5,000."""

PROGRAMS = {"http": "curl", "https": "curl", "hf": "curl", "gs": "gsutil", "s3": "aws"}
"""Scheme of a URL -> the program that webdataset fetches it with."""

UNREADABLE, CUT_SHORT = "shard cannot be read", "shard cut short"
"""Why clips of a shard are lost."""

RETRY_SECONDS = (0.5, 1.5)
"""Waits before a failed shard is read again."""

_READ_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class CorpusIndex:
    """The shards of a corpus, in arrays that take a few dozen bytes per shard."""

    name: str
    """Name of the corpus."""
    base: str
    """Folder or URL of the shards."""
    names: np.ndarray
    """(S,) file names of the shards, as bytes of one length."""
    clips: np.ndarray
    """(S,) int64, number of clips in each shard."""
    seconds: float
    """Total length of the shards; 0 if the index does not state it."""

    def url(self, shard: int) -> str:
        """Path or URL of a shard."""
        return f"{self.base}/{self.names[shard].decode()}"


@dataclass(frozen=True)
class Sample:
    """One clip as bytes, as in a shard."""

    ordinal: int
    """Place in the shard, from 0."""
    files: dict[str, bytes]
    """Suffix, such as `flac` or `json`, -> content; empty if the sample is not wanted."""

    def record(self) -> ClipRecord:
        """Reads the record, as `read_record`."""
        return read_record(self.files.get("json", b""))

    def decode(self, sample_rate: int, **crop: Any) -> "Tensor":
        """Decodes the recording; the arguments are those of `records.decode`."""
        suffix = next((name for name in self.files if name != "json"), None)
        if suffix is None:
            raise BrokenClipError(BROKEN_RECORD, "it has no sound")
        return decode(self.files[suffix], suffix, sample_rate, **crop)


class LostClipsError(Exception):
    """A shard that cannot be read from its sample `first` on."""

    def __init__(self, reason: str, first: int, detail: str) -> None:
        self.reason, self.first = reason, first
        super().__init__(detail)


def is_url(location: str) -> bool:
    """Whether a location is a URL, which is fetched."""
    return "://" in location


def open_url(url: str) -> IO[bytes]:
    """Opens a local file or a URL.

    curl fetches `http(s)://` and `hf://`, gsutil fetches `gs://`. `aws s3 cp URL -` fetches
    `s3://`, for which webdataset has no opener, with the credentials of that program. A fetched
    stream can only be read forwards. Closing it raises `OSError` if the program failed.

    Raises:
        OSError: If it cannot be opened.
        InputError: If the scheme is unknown, or its program is missing.
    """
    if not is_url(url):
        return Path(url).open("rb")
    scheme = url.partition("://")[0]
    if scheme not in PROGRAMS:
        raise InputError(
            f"{url} has the scheme {scheme!r}; use a path or one of {', '.join(PROGRAMS)}"
        )
    if shutil.which(PROGRAMS[scheme]) is None:
        raise InputError(f"{url} is read with {PROGRAMS[scheme]}, which is missing; install it")
    # Imported here, since webdataset imports torch, and an index on disk needs neither.
    from webdataset.gopen import gopen

    # webdataset passes the command to a shell, hence the quotes.
    if scheme == "s3":
        url = f"pipe:aws s3 cp --only-show-errors {shlex.quote(url)} -"
    return gopen(url)


def read_index(
    location: str | Path, *, kind: str | None = None, split: str | None = None
) -> CorpusIndex:
    """Reads the index of a corpus that ``unison-audio data`` wrote.

    Args:
        location: The corpus' folder, its ``index.json``, or the URL of either.
        kind: Only shards with ``speech`` or with ``sound``; all if None.
        split: Only shards with clips of this split, as `in_split` takes it; all if None.

    Raises:
        InputError: If there is no index that can be read.
    """
    path = str(location).rstrip("/")
    if not path.endswith(".json"):
        path = f"{path}/{INDEX_FILE}"
    try:
        require_path(path, "The corpus")
        with open_url(path) as file:
            content = read_bounded(file, MOST_INDEX_BYTES)
    except OSError as error:
        if not is_url(path) and Path(path).with_name(OLD_INDEX_FILE).is_file():
            raise InputError(
                f"{location} holds a corpus in an earlier format (manifest.json); run "
                f"unison-audio data nano --out {location} again, which keeps the finished shards"
            ) from error
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "" if missing else f" that can be read ({error.strerror or error})"
        raise InputError(
            f"There is no index {path}{reason}; give the folder or the URL of a corpus that "
            "unison-audio data wrote."
        ) from error
    if len(content) > MOST_INDEX_BYTES:
        raise InputError(f"{path} holds more than {MOST_INDEX_BYTES:,} bytes, and is no index.")
    cure = "build the corpus again"
    index = parse_json(content, path, cure)
    names, counts, length = [], [], 0.0
    try:
        if index["format"] != FORMAT:
            raise InputError(
                f"{path} has the format {index['format']!r} where {FORMAT} is understood; {cure}"
            )
        for shard in index["shards"]:
            # Indexes of other tools need not name kinds and splits; their shards are all read.
            if kind not in (None, *shard.get("kinds", [kind])) or not any(
                in_split(one, split) for one in shard.get("splits", [split or ""])
            ):
                continue
            name, seconds = str(shard["name"]), float(shard.get("seconds", 0.0))
            clips = as_whole(shard["clips"])
            # An index may come from anywhere: it must not make this machine read other files.
            if "/" in name or "\\" in name:
                raise InputError(f"{path} names shards in other folders; {cure}")
            if clips is None or not 0 <= clips <= MOST_CLIPS or not 0 <= seconds <= MOST_CLIPS:
                raise InputError(
                    f"{path} claims {shown(shard['clips'])} clips and {seconds:g} s in the shard "
                    f"{name}, where whole clips and at most {MOST_CLIPS:,} of either fit; {cure}."
                )
            names.append(name.encode())
            counts.append(clips)
            length += seconds
        corpus = str(index["corpus"])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{path} is no index ({error!r}); {cure}") from error
    return CorpusIndex(
        name=corpus,
        base=path.rpartition("/")[0] or ".",
        names=np.array(names, dtype=bytes),
        clips=np.array(counts, dtype=np.int64),
        seconds=length,
    )


def find_corpora(
    locations: Sequence[str | Path], *, kind: str | None = None, split: str | None = None
) -> list[CorpusIndex]:
    """Reads the indexes of corpora, and leaves out those without clips of a kind and split.

    Raises:
        InputError: If an index cannot be read, or no corpus has such clips.
    """
    indexes = [read_index(location, kind=kind, split=split) for location in locations]
    found = [index for index in indexes if index.clips.sum()]
    if not found:
        what = f"no {kind}" if kind else "neither speech nor sound"
        of_split = "" if split is None else f" of the split {split!r}"
        named = ", ".join(map(str, locations)) or "no corpus"
        raise InputError(f"There is {what}{of_split} in {named}; add a corpus that has some")
    return found


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
    source, damage = open_url(url), None
    try:
        # The mode with "|" never seeks in the stream, which a transfer cannot do.
        mode: Literal["r|", "r:"] = "r|" if is_url(url) else "r:"
        try:
            with tarfile.open(fileobj=source, mode=mode, bufsize=_READ_BYTES) as archive:
                yield from _group(archive, clips, first, share)
        except tarfile.TarError as error:
            damage = error
        if is_url(url):
            # Raises OSError if the transfer broke off: then it is not the shard that ends early.
            while source.read(_READ_BYTES):
                pass
            source.close()
        if damage is not None:
            raise damage
    finally:
        with suppress(OSError):  # a fetching program fails if its output is not read to the end
            source.close()


def _group(
    archive: tarfile.TarFile, clips: int, first: int, share: tuple[int, int]
) -> Iterator[Sample]:
    """Groups the members of a shard into samples."""
    ordinal, key, damage = -1, None, None
    files: dict[str, bytes] = {}
    while True:
        try:
            member = archive.next()
        except tarfile.TarError as error:
            damage, member = error, None
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
    if damage is not None:
        raise damage


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
    from unison_audio.device import available_memory  # imports torch

    (index,) = find_corpora([folder], kind=kind, split=split)
    needed = int(index.seconds * sample_rate * 4)  # bytes, as float32
    free = available_memory()
    if free is not None and needed > free:
        raise InputError(
            f"{folder} has {index.seconds / 3600:.0f} hours, which need {needed / 1e9:.1f} GB of "
            f"memory where {free / 1e9:.1f} GB are free; build a smaller corpus with "
            "unison-audio data --limit"
        )
    found: list[Clip] = []
    for shard in index.names.argsort().tolist():
        path, clips = Path(index.url(shard)), int(index.clips[shard])
        found += read_shard(path, sample_rate, clips, kind=kind, split=split)
    return found


def read_shard(
    path: Path,
    sample_rate: int,
    clips: int = 0,
    *,
    kind: str | None = None,
    split: str | None = None,
) -> Iterator[Clip]:
    """Reads the clips of a shard in order, as `read_corpus`.

    Raises:
        InputError: If the shard is damaged, or has fewer than `clips` clips.
    """
    try:
        for sample in read_samples(str(path), clips, patient=False):
            record = sample.record()
            if kind in (None, record.kind) and split in (None, record.split):
                try:
                    waveform = sample.decode(sample_rate)
                except BrokenClipError as error:
                    detail = f"its clip {record.key}: {error.reason}, {error}"
                    raise BrokenClipError(error.reason, detail) from error
                yield Clip(record=record, waveform=waveform)
    except (LostClipsError, BrokenClipError) as error:
        raise InputError(
            f"The shard {path} is damaged ({error}); delete it and build the corpus again"
        ) from error

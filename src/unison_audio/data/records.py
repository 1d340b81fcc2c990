"""What a corpus tells of itself: the index of its shards, and the records of its clips.

A clip is a `shards.Sample` (bytes) in a shard, a `Clip` (waveform and record) in a pool, part of a
`TaskBatch` after a builder, and of an `EncodedBatch` in the trainer. An index is read without
torch, so that a wrong folder is refused at once.
"""

import json
import shlex
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from unison_audio.data.captions import plain_caption
from unison_audio.errors import InputError
from unison_audio.json_files import parse_json, read_bounded
from unison_audio.values import as_whole, require_path, shown

if TYPE_CHECKING:
    from torch import Tensor

ZERO_SHOT_SECONDS = 3.0
"""Speech at least this long can give a reference and a target (paper, appendix C)."""

BROKEN_RECORD = "broken record"

MAX_RECORD_BYTES = 1 << 20

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


class BrokenClipError(Exception):
    """A clip that cannot be used; `reason` is one of a few texts, the message has the details."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """Metadata of one recording; its fields are the JSON keys in a shard."""

    key: str
    """Name, unique in its corpus."""
    kind: str
    """`speech` or `sound`; `noise` for synthetic noise, which no corpus holds."""
    split: str
    """`train`, `heldout` (held-out texts or clips) or `speakers` (held-out speakers)."""
    seconds: float
    """Length in seconds."""
    licence: str
    """License of the recording or the voice."""
    source: str
    """Corpus or package with the path in it, or the synthetic voice."""
    text: str = ""
    """Transcript; empty if unknown."""
    speaker: str = ""
    """Speaker name, equal for equal voices."""
    gender: str = ""
    """`male`, `female` or empty."""
    label: str = ""
    """Event label that fits into "Add ..."."""
    caption: str = ""
    """A sentence that describes the sound."""
    language: str = ""
    """Language of the text or caption: `en`, `zh` or another code; empty if unknown."""
    sample_rate: int = 0
    """Sample rate of the recording in the shard in Hz; 0 in corpora of one rate, such as nano's."""
    channels: int = 1
    """Channels of the recording in the shard."""

    @property
    def zero_shot(self) -> bool:
        """Whether it is long enough to give a reference and a target (paper, appendix C)."""
        return self.kind == "speech" and bool(self.text) and self.seconds >= ZERO_SHOT_SECONDS


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A decoded recording with its record."""

    record: ClipRecord
    """Its metadata."""
    waveform: "Tensor"
    """(samples,) float32, mono."""


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


def in_split(split: str, wanted: str | None) -> bool:
    """Whether a selection includes the clips of a split.

    Args:
        split: Split of the clip.
        wanted: The selection: a split, where `heldout` includes `speakers`; None for all.
    """
    return wanted in (None, split) or (wanted == "heldout" and split == "speakers")


def label_of(record: ClipRecord) -> str:
    """The label of a sound, or its caption as a phrase if it has none."""
    return record.label or plain_caption(record.caption)


_TYPES = {field.name: (str,) for field in fields(ClipRecord)} | {
    "seconds": (float, int),
    "sample_rate": (int,),
    "channels": (int,),
}


def read_record(content: bytes) -> ClipRecord:
    """Reads the record of a clip; unknown keys are ignored.

    Raises:
        BrokenClipError: If it is no record, or a sound has neither label nor caption.
    """
    # No record is so long, and the parser would take many times its size in memory.
    if len(content) > MAX_RECORD_BYTES:
        raise BrokenClipError(BROKEN_RECORD, f"it has {len(content)} bytes")
    try:
        values = json.loads(content)
        record = ClipRecord(**{name: values[name] for name in _TYPES if name in values})
    except (ValueError, TypeError, RecursionError) as error:
        raise BrokenClipError(BROKEN_RECORD, str(error)) from error
    # A dataclass checks no types; a wrong one would fail much later, in a builder.
    for name, types in _TYPES.items():
        if not isinstance(getattr(record, name), types):
            raise BrokenClipError(BROKEN_RECORD, f"{name} is {getattr(record, name)!r:.80}")
    if record.kind == "sound" and not (record.label or record.caption):
        raise BrokenClipError(BROKEN_RECORD, "it has neither label nor caption")
    return record


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
    # Imported here, since webdataset imports torch and an index on disk needs neither.
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
    index = parse_json(content, path, "build the corpus again")
    try:
        if index["format"] != FORMAT:
            raise InputError(
                f"{path} has the format {index['format']!r} where {FORMAT} is understood; build "
                "the corpus again"
            )
        wanted = [
            (str(shard["name"]).encode(), _count(shard["clips"]), float(shard.get("seconds", 0.0)))
            for shard in index["shards"]
            # Indexes of other tools need not name kinds and splits; their shards are all read.
            if kind in (None, *shard.get("kinds", [kind]))
            and any(in_split(one, split) for one in shard.get("splits", [split or ""]))
        ]
        name = str(index["corpus"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no index ({error!r}); build the corpus again") from error
    for shard, clips, seconds in wanted:
        if not 0 <= clips <= MOST_CLIPS or not 0 <= seconds <= MOST_CLIPS:
            raise InputError(
                f"{path} claims {clips:,} clips and {seconds:g} s in the shard {shard.decode()}, "
                f"where at most {MOST_CLIPS:,} of either fit; build the corpus again."
            )
    # An index may come from anywhere: it must not make this machine read other files.
    names = [shard for shard, _, _ in wanted]
    if any(b"/" in shard or b"\\" in shard for shard in names):
        raise InputError(f"{path} names shards in other folders; build the corpus again")
    return CorpusIndex(
        name=name,
        base=path.rpartition("/")[0] or ".",
        names=np.array(names, dtype=bytes),
        clips=np.array([clips for _, clips, _ in wanted], dtype=np.int64),
        seconds=sum(seconds for _, _, seconds in wanted),
    )


def find_corpus(
    location: str | Path, *, kind: str | None = None, split: str | None = None
) -> CorpusIndex:
    """Reads the index of a corpus that must have clips of a kind and split.

    Args:
        location: As in `read_index`.
        kind: As in `read_index`.
        split: As in `read_index`.

    Raises:
        InputError: If there is no index that can be read, or it has no such clips.
    """
    index = read_index(location, kind=kind, split=split)
    if not index.clips.sum():
        raise InputError(
            f"{location} has no {kind or 'clip'} of the split {split!r}; use a corpus that has some"
        )
    return index


def _count(value: object) -> int:
    """A number of clips; 1.5 of them is no number."""
    number = as_whole(value)
    if number is None:
        raise TypeError(f"clips is {shown(value)}")
    return number

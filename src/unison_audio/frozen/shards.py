"""Tensors of a sharded safetensors checkpoint, read where they lie in the memory-mapped files."""

import hashlib
import json
import mmap
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from unison_audio.errors import InputError

INDEX_FILE = "model.safetensors.index.json"
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
"""Types of weights that are understood, by safetensors' names for them."""
SAMPLE_BYTES = 64
"""What of each tensor goes into the fingerprint."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a tensor lies."""

    shard: str
    """Name of the file."""
    dtype: torch.dtype
    """Type of its elements."""
    shape: tuple[int, ...]
    """Its shape."""
    start: int
    """Its first byte in the file."""
    nbytes: int
    """Its length."""


class Shards:
    """Tensors below one prefix of a sharded safetensors checkpoint.

    Nothing is copied: a tensor is a view of the mapped file, and its pages come into memory when
    they are read. `release` gives them back, so that walking through a checkpoint larger than the
    memory is possible. Shards that hold no tensor of the prefix need not exist.

    Args:
        folder: Where the shards and their index lie.
        prefix: Only tensors whose names begin with it are known, without it.

    Raises:
        InputError: If the index, a tensor of the prefix or its shard is missing or unreadable.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder = folder
        shards = shards_of(folder / INDEX_FILE, prefix)
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        if missing:
            raise InputError(
                f"{folder} lacks {', '.join(missing)}, which {INDEX_FILE} names; "
                "put all shards of the download there"
            )
        self._maps: dict[str, mmap.mmap] = {}
        self._places: dict[str, _Place] = {}
        for shard, names in shards.items():
            places = _read_header(folder / shard)
            for name in names:
                if name not in places:
                    raise InputError(
                        f"{folder / shard} has no tensor {name}, which {INDEX_FILE} says it has; "
                        "download both again"
                    )
                self._places[name.removeprefix(prefix)] = places[name]

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names, without the prefix."""
        return tuple(self._places)

    def tensor(self, name: str) -> Tensor:
        """The tensor as a view of its file; it must not be written to.

        Raises:
            InputError: If there is none of that name.
        """
        place = self._place(name)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable")
            flat = torch.frombuffer(
                self._mapped(place.shard),
                dtype=place.dtype,
                count=prod(place.shape),
                offset=place.start,
            )
        return flat.view(place.shape)

    def rows(self, name: str, indices: Sequence[int]) -> Tensor:
        """A copy of some rows; no other row is read."""
        picked = self.tensor(name)[torch.tensor(indices)]
        self.release([name])
        return picked

    def prefetch(self, names: Iterable[str]) -> None:
        """Lets the system begin to read these tensors from the disk."""
        self._advise("MADV_WILLNEED", names)

    def release(self, names: Iterable[str]) -> None:
        """Gives the memory of these tensors' pages back; they may be read again later."""
        self._advise("MADV_DONTNEED", names)

    def fingerprint(self) -> str:
        """A digest of all names, shapes and types, and of some bytes of each tensor."""
        digest = hashlib.sha256()
        for name in sorted(self._places):
            place = self._places[name]
            middle = place.start + place.nbytes // 2
            sample = self._mapped(place.shard)[middle : middle + SAMPLE_BYTES]
            digest.update(f"{name} {place.dtype} {place.shape} ".encode() + sample)
        self.release(self.names)
        return digest.hexdigest()

    def _place(self, name: str) -> _Place:
        if name not in self._places:
            raise InputError(f"{self.folder} has no tensor for {name}; it is not such a model")
        return self._places[name]

    def _mapped(self, shard: str) -> mmap.mmap:
        if shard not in self._maps:
            with (self.folder / shard).open("rb") as file:
                self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[shard]

    def _advise(self, advice: str, names: Iterable[str]) -> None:
        if not hasattr(mmap, advice):  # no such thing on Windows: the system decides by itself
            return
        for name in names:
            place = self._place(name)
            start = place.start - place.start % mmap.PAGESIZE
            length = place.start + place.nbytes - start
            self._mapped(place.shard).madvise(getattr(mmap, advice), start, length)


def shards_of(index: Path, prefix: str) -> dict[str, list[str]]:
    """Reads which shards hold the tensors whose names begin with a prefix.

    Args:
        index: The checkpoint's `model.safetensors.index.json`.
        prefix: What the names begin with.

    Returns:
        For each such shard the full names of its tensors of that prefix.

    Raises:
        InputError: If the index cannot be read or names no such tensor.
    """
    try:
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
    except OSError as error:
        raise InputError(
            f"{index} cannot be read ({error.strerror}); give the folder of the full download"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{index} is not an index of safetensors; download it again") from error
    shards: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        if name.startswith(prefix):
            shards.setdefault(shard, []).append(name)
    if not shards:
        raise InputError(f"{index} names no tensor {prefix}*; it belongs to another model")
    return shards


def _read_header(path: Path) -> dict[str, _Place]:
    """Where each tensor of a file lies; see https://github.com/huggingface/safetensors."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size:
                raise ValueError
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        ends = [entry["data_offsets"][1] for entry in header.values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a safetensors file; download it again") from error
    expected = 8 + length + max(ends, default=0)
    if size < expected:
        raise InputError(f"{path} has {size} bytes instead of {expected}; download it again")
    places = {}
    for name, entry in header.items():
        if entry["dtype"] in DTYPES:  # of others none is asked for, or its absence is told then
            start, end = entry["data_offsets"]
            places[name] = _Place(
                shard=path.name,
                dtype=DTYPES[entry["dtype"]],
                shape=tuple(entry["shape"]),
                start=8 + length + start,
                nbytes=end - start,
            )
    return places

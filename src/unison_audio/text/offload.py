"""Layers of a large model, filled from safetensors shards: all resident, or one at a time."""

import hashlib
import json
import mmap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from unison_audio.errors import InputError

INDEX_FILE = "model.safetensors.index.json"

DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "I8": torch.int8,
}
"""Supported weight types by their safetensors names."""

SAMPLE_BYTES = 64
"""Bytes of each tensor that go into the fingerprint."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Location of a tensor in a file."""

    shard: str
    """File name."""
    dtype: torch.dtype
    """Type of its elements."""
    shape: tuple[int, ...]
    """Shape."""
    start: int
    """Offset of its first byte in the file."""
    nbytes: int
    """Bytes."""


class Shards:
    """Tensors below one prefix of a sharded safetensors checkpoint.

    Nothing is copied: a tensor is a view of the memory-mapped file, and the system loads its pages
    when they are read. `release` frees them, so that a checkpoint larger than the memory can be
    read. Shards without a tensor of the prefix need not exist.

    Args:
        folder: Folder of the shards and their index.
        prefix: Tensors whose names begin with it are available, under the rest of their names.

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
        """Gives a tensor as a view of its file; it must not be written to.

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

    def dtype(self, name: str) -> torch.dtype:
        """Type of a tensor's elements in the file."""
        return self._place(name).dtype

    def rows(self, name: str, indices: Sequence[int]) -> Tensor:
        """Copies some rows; no other row is read from the disk."""
        picked = self.tensor(name)[torch.tensor(indices)]
        self.release([name])
        return picked

    def prefetch(self, names: Iterable[str]) -> None:
        """Asks the system to start reading these tensors from the disk."""
        self._advise("MADV_WILLNEED", names)

    def release(self, names: Iterable[str]) -> None:
        """Frees the memory of these tensors' pages; they can be read again later."""
        self._advise("MADV_DONTNEED", names)

    def fingerprint(self) -> str:
        """Digest of all names, shapes and types, and of some bytes of each tensor."""
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
            raise InputError(
                f"{self.folder} has no tensor for {name}; the download is incomplete or of another "
                "model"
            )
        return self._places[name]

    def _mapped(self, shard: str) -> mmap.mmap:
        if shard not in self._maps:
            with (self.folder / shard).open("rb") as file:
                self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[shard]

    def _advise(self, advice: str, names: Iterable[str]) -> None:
        if not hasattr(mmap, advice):  # Windows has no madvise
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
        prefix: Beginning of the names.

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
    """Reads where each tensor of a file is; see https://github.com/huggingface/safetensors."""
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
        if entry["dtype"] in DTYPES:  # another type is reported as missing if it is needed
            start, end = entry["data_offsets"]
            places[name] = _Place(
                shard=path.name,
                dtype=DTYPES[entry["dtype"]],
                shape=tuple(entry["shape"]),
                start=8 + length + start,
                nbytes=end - start,
            )
    return places


class Layers:
    """Equal layers, filled from shards at their first use, or at every use.

    Args:
        modules: The layers without weights, on the meta device, in their types on the device.
        shards: The weights; those of layer i are named ``layers.i.*``.
        device: Device of the layers.
        streamed: Whether no layer stays in memory. Then only one is there at a time, and while it
            runs the system reads the next from the disk. On the CPU, weights of the right type are
            used directly from the mapped file; others are converted into a buffer of one layer.

    Raises:
        InputError: If the shards lack a weight or have one of another shape.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        shards: Shards,
        device: torch.device,
        *,
        streamed: bool,
    ) -> None:
        self.shards, self.device, self.streamed = shards, device, streamed
        self.modules = [module.requires_grad_(False).eval() for module in modules]
        self.names = [
            {name: f"layers.{i}.{name}" for name, _ in module.named_parameters()}
            for i, module in enumerate(modules)
        ]
        for module, names in zip(self.modules, self.names, strict=True):
            check_shapes(module, names, shards)
        self._loaded = False

    def __iter__(self) -> Iterator[nn.Module]:
        """Yields the layers in order; a streamed one is valid until the next is taken."""
        if self.streamed:
            yield from self._stream()
            return
        if not self._loaded:
            for module, names in zip(self.modules, self.names, strict=True):
                fill(module.to_empty(device=self.device), names, self.shards)
            self._loaded = True
        yield from self.modules

    def _stream(self) -> Iterator[nn.Module]:
        buffers: dict[str, Tensor] = {}
        for i, (module, names) in enumerate(zip(self.modules, self.names, strict=True)):
            for ahead in self.names[i : i + 2] if i == 0 else self.names[i + 1 : i + 2]:
                self.shards.prefetch(ahead.values())
            for own, name in names.items():
                weight = self.shards.tensor(name)
                dtype = module.get_parameter(own).dtype
                if self.device.type != "cpu" or weight.dtype != dtype:
                    if own not in buffers:
                        buffers[own] = torch.empty(weight.shape, dtype=dtype, device=self.device)
                    weight = buffers[own].copy_(weight)
                    self.shards.release([name])
                parent, _, leaf = own.rpartition(".")
                parameter = nn.Parameter(weight, requires_grad=False)
                setattr(module.get_submodule(parent), leaf, parameter)
            yield module
            module.to("meta")
            self.shards.release(names.values())


def check_shapes(module: nn.Module, names: dict[str, str], shards: Shards) -> None:
    """Checks that the shards have all parameters of a module.

    Args:
        module: The module.
        names: The shards' name of each parameter.
        shards: The shards.

    Raises:
        InputError: If one is missing, has another shape, or is of integers where it must not.
    """
    for own, name in names.items():
        stored, parameter = shards.tensor(name), module.get_parameter(own)
        if (stored.dtype == torch.int8) != (parameter.dtype == torch.int8):
            raise InputError(
                f"{name} in {shards.folder} is {stored.dtype}, which this weight cannot be; "
                "take the files from one download"
            )
        found, expected = stored.shape, parameter.shape
        if found != expected:
            raise InputError(
                f"{name} in {shards.folder} has the shape {tuple(found)} where config.json asks "
                f"for {tuple(expected)}; take both from one download"
            )


def fill(module: nn.Module, names: dict[str, str], shards: Shards) -> None:
    """Copies a module's weights into its memory, and frees the file's pages one tensor at a time.

    Args:
        module: The module.
        names: The shards' name of each parameter.
        shards: The shards.
    """
    for own, name in names.items():
        module.get_parameter(own).copy_(shards.tensor(name))
        shards.release([name])


class SharedLayers:
    """Equal layers of which each process keeps one part of every weight.

    Iterating is collective. A layer is gathered from all processes (torch's FSDP2) before it is
    yielded, and freed when the next is taken. While it runs the next one is gathered, so that two
    are whole at a time. Each process reads only its own part from the disk.

    Args:
        layers: The layers, none of them loaded yet.
        mesh: The processes, in one dimension.
    """

    streamed = False

    def __init__(self, layers: Layers, mesh: DeviceMesh) -> None:
        self.mesh, self.device = mesh, layers.device
        self.modules = layers.modules
        for module, names in zip(layers.modules, layers.names, strict=True):
            fully_shard(module, mesh=mesh, reshard_after_forward=False)
            module.to_empty(device=layers.device)
            _fill_part(module, names, layers.shards, mesh)

    def needed_anywhere(self, here: bool) -> bool:
        """Whether any process needs the layers; a collective call of all processes."""
        found = torch.tensor(int(here), device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.mesh.get_group())
        return bool(found)

    def __iter__(self) -> Iterator[nn.Module]:
        """Yields the layers in order; one is valid until the next is taken."""
        modules = cast(list[FSDPModule], self.modules)
        handle = modules[0].unshard(async_op=True)
        for number, module in enumerate(modules):
            assert handle is not None
            handle.wait()
            if number + 1 < len(modules):
                handle = modules[number + 1].unshard(async_op=True)
            yield cast(nn.Module, module)
            module.reshard()


def _fill_part(module: nn.Module, names: dict[str, str], shards: Shards, mesh: DeviceMesh) -> None:
    """Reads this process' part of a module's weights: rows, divided as `torch.chunk` does."""
    rank, world = mesh.get_local_rank(), mesh.size()
    for own, name in names.items():
        local = cast(DTensor, module.get_parameter(own)).to_local()
        parts = shards.tensor(name).chunk(world)
        if rank < len(parts):
            local.copy_(parts[rank])
        shards.release([name])

"""Layers of a large frozen model spread over processes: each is put together while it runs."""

from collections.abc import Iterator
from typing import cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from unison_audio.frozen.shards import Shards
from unison_audio.frozen.streaming import Layers


class SharedLayers:
    """Equal layers of which each process keeps one part of every weight.

    Walking through them is done by all processes at once: a layer is gathered from all (torch's
    FSDP2) before it is given, and let go when the next is taken. While it runs the next one is on
    its way, so that two are whole at a time. Each process reads only its own part from the disk.

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

    def asked(self, wanted: bool) -> bool:
        """Whether any process wants to walk through; every process must ask."""
        found = torch.tensor(int(wanted), device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.mesh.get_group())
        return bool(found)

    def __iter__(self) -> Iterator[nn.Module]:
        """The layers in turn; one can be used until the next is taken."""
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
    """Reads this process' part of a module's weights: of the rows cut as `torch.chunk` does."""
    rank, world = mesh.get_local_rank(), mesh.size()
    for own, name in names.items():
        local = cast(DTensor, module.get_parameter(own)).to_local()
        parts = shards.tensor(name).chunk(world)
        if rank < len(parts):
            local.copy_(parts[rank])
        shards.release([name])

"""Layers of a large model that come from shards: all kept, or one at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from unison_audio.errors import InputError
from unison_audio.frozen.shards import Shards


class Layers:
    """Equal layers, filled from shards when they are first needed, or each time.

    Args:
        modules: The layers without weights, on the meta device.
        shards: Where the weights are, of layer i under the names ``layers.i.*``.
        device: Where the layers run.
        dtype: Type of their weights there.
        streamed: Whether to keep none. Then only one is in memory, and while it runs the system
            reads the next from the disk. On the CPU, weights of the right type are used where they
            lie in the file, and others are converted into one layer's worth of memory.

    Raises:
        InputError: If the shards lack a weight or have one of another shape.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        shards: Shards,
        device: torch.device,
        dtype: torch.dtype,
        *,
        streamed: bool,
    ) -> None:
        self.shards, self.device, self.dtype, self.streamed = shards, device, dtype, streamed
        self.modules = [module.requires_grad_(False).eval().to(dtype) for module in modules]
        self.names = [
            {name: f"layers.{i}.{name}" for name, _ in module.named_parameters()}
            for i, module in enumerate(modules)
        ]
        for module, names in zip(self.modules, self.names, strict=True):
            check_shapes(module, names, shards)
        self._loaded = False

    def __iter__(self) -> Iterator[nn.Module]:
        """The layers in turn; a streamed one can be used until the next is taken."""
        if self.streamed:
            yield from self._stream()
            return
        if not self._loaded:
            for module, names in zip(self.modules, self.names, strict=True):
                fill(module.to_empty(device=self.device), names, self.shards)
            self._loaded = True
        yield from self.modules

    def _stream(self) -> Iterator[nn.Module]:
        buffer: nn.Module | None = None
        for i, (module, names) in enumerate(zip(self.modules, self.names, strict=True)):
            for ahead in self.names[i : i + 2] if i == 0 else self.names[i + 1 : i + 2]:
                self.shards.prefetch(ahead.values())
            if self._usable_in_place(names):
                fill(module, names, self.shards, in_place=True)
                yield module
                module.to("meta")
                self.shards.release(names.values())
            else:
                buffer = buffer or module.to_empty(device=self.device)
                fill(buffer, names, self.shards)
                yield buffer
        if buffer is not None:
            buffer.to("meta")

    def _usable_in_place(self, names: dict[str, str]) -> bool:
        dtypes = {self.shards.tensor(name).dtype for name in names.values()}
        return self.device.type == "cpu" and dtypes == {self.dtype}


def check_shapes(module: nn.Module, names: dict[str, str], shards: Shards) -> None:
    """Checks that the shards have a module's parameters.

    Args:
        module: The module.
        names: The shards' name of each parameter.
        shards: The shards.

    Raises:
        InputError: If one is missing or has another shape.
    """
    for own, name in names.items():
        found, expected = shards.tensor(name).shape, module.get_parameter(own).shape
        if found != expected:
            raise InputError(
                f"{name} in {shards.folder} has the shape {tuple(found)} where config.json asks "
                f"for {tuple(expected)}; take both from one download"
            )


def fill(
    module: nn.Module, names: dict[str, str], shards: Shards, *, in_place: bool = False
) -> None:
    """Gives a module its weights.

    Args:
        module: The module; where weights are copied it has memory already.
        names: The shards' name of each parameter.
        shards: The shards.
        in_place: Whether the weights are used where they lie in the file. Else they are copied
            and the file's pages given back one by one.
    """
    for own, name in names.items():
        if in_place:
            parent, _, leaf = own.rpartition(".")
            weight = nn.Parameter(shards.tensor(name), requires_grad=False)
            setattr(module.get_submodule(parent), leaf, weight)
        else:
            module.get_parameter(own).copy_(shards.tensor(name))
            shards.release([name])

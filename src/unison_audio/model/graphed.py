"""A sampling run whose step is recorded once as a CUDA graph and then replayed.

A step of the backbone launches some thousand kernels, and on a fast GPU launching them takes longer
than small batches compute. A graph launches them all at once. It reads and writes fixed places, so
each step's input and modulations are copied there first.
"""

import copy
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from unison_audio.model.prepared import PreparedRun

Velocities: TypeAlias = tuple[Tensor, Tensor | None]

Record: TypeAlias = Callable[[Callable[[], Velocities]], tuple[Velocities, Callable[[], None]]]
"""Turns a call into the places of its results and a function that computes them anew."""


def record_cuda_graph(call: Callable[[], Velocities]) -> tuple[Velocities, Callable[[], None]]:
    """Record the kernels of a call on the current CUDA device."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries allocate their workspaces outside the graph
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        places = call()
    return places, graph.replay


class GraphedRun:
    """The velocity field of a prepared run, by replaying one step.

    Args:
        run: The prepared run.
        record: Records a step; a CUDA graph by default.
    """

    def __init__(self, run: PreparedRun, record: Record = record_cuda_graph) -> None:
        self.run, self.record = run, record
        # The recorded step: the same run with one set of modulations, which stays in its place.
        self.step = copy.copy(run)
        self.step.modulations = [
            [tuple(table.clone() for table in part) for part in run.modulations[0]]
        ]
        self.z_t: Tensor | None = None
        self.recorded: dict[bool, tuple[Velocities, Callable[[], None]]] = {}

    def velocities(self, z_t: Tensor, step: int, *, guided: bool) -> Velocities:
        """Predict velocities; see `PreparedRun.velocities`. All calls have one shape of z_t."""
        if self.z_t is None:
            self.z_t = torch.empty_like(z_t)
        place = self.z_t.copy_(z_t)
        torch._foreach_copy_(_flat(self.step.modulations[0]), _flat(self.run.modulations[step]))
        if guided not in self.recorded:
            self.recorded[guided] = self.record(
                lambda: self.step.velocities(place, 0, guided=guided)
            )
        (v1, v0), replay = self.recorded[guided]
        replay()
        # Copies: the next step writes to the same places, and a solver keeps several velocities.
        return v1.clone(), None if v0 is None else v0.clone()


def _flat(modulations: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    """List the tensors of all blocks."""
    return [table for part in modulations for table in part]

"""Training over one or many processes: wrapping, gathering, saving (accelerate).

`accelerate launch` or `torchrun` starts the processes; without them there is one. A backbone is
copied to every process (DDP) or sharded over them (FSDP). The saved state is whole in both cases,
so a run can resume with another number of processes or the other strategy.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.text.cache import CachingTextEncoder
from unison_audio.text.qwen import QwenEncoder
from unison_audio.text.states import TextEncoder

STRATEGIES = ("ddp", "fsdp")

TRACKERS = {"tensorboard": "tensorboardX", "wandb": "wandb"}
"""Tracker -> the package that it needs."""

PROJECT = "unison-audio"
"""Project name in the trackers."""


class Parallel:
    """The processes of a run and their collective operations.

    Args:
        strategy: "ddp" or "fsdp"; of no effect with one process.
        mixed_precision: "no" or "bf16": type of the matrix products.
        cpu: Whether to use the CPU even if there is a GPU.
        trackers: Names in `TRACKERS`.
        folder: The run's folder, where TensorBoard writes.

    Raises:
        InputError: If the strategy, the precision or a tracker is unknown, or a tracker is not
            installed.
    """

    def __init__(
        self,
        strategy: str = "ddp",
        *,
        mixed_precision: str = "no",
        cpu: bool = False,
        trackers: Sequence[str] = (),
        folder: str | None = None,
    ) -> None:
        if strategy not in STRATEGIES:
            raise InputError(f"The strategy is {strategy!r}; use one of {', '.join(STRATEGIES)}.")
        if mixed_precision not in ("no", "bf16"):
            raise InputError(f"mixed_precision is {mixed_precision!r}; use 'no' or 'bf16'.")
        for name in trackers:
            if name not in TRACKERS:
                raise InputError(f"There is no tracker {name!r}; use one of {', '.join(TRACKERS)}.")
        installed = {str(name) for name in get_available_trackers()}
        for name in trackers:
            if name not in installed:
                raise InputError(
                    f"The tracker {name} is not installed; install {TRACKERS[name]}, or leave the "
                    "tracker out."
                )
        if "tensorboard" in trackers and folder is None:
            raise InputError("TensorBoard needs a folder to write to; give the run's folder.")
        self.strategy, self.mixed_precision, self.folder = strategy, mixed_precision, folder
        self.accelerator = Accelerator(
            cpu=cpu or not torch.cuda.is_available(),
            log_with=list(trackers) or None,
            project_dir=folder,
        )
        self.device, self.main = self.accelerator.device, self.accelerator.is_main_process
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes

    def wrap(self, backbone: UnisonBackbone) -> nn.Module:
        """Distributes a backbone over the processes.

        Returns:
            The module to call in training.
        """
        backbone = backbone.to(self.device)
        if self.world == 1:
            return backbone
        if self.strategy == "fsdp":
            half = self.mixed_precision == "bf16"
            policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16 if half else None,
                reduce_dtype=torch.float32,
                cast_forward_inputs=False,  # flow times would lose their digits
            )
            mesh = self._mesh()
            # From the inside out: fully_shard takes the parameters that no inner call has taken.
            for part in _shard_units(backbone):
                fully_shard(part, mesh=mesh, mp_policy=policy)
            return backbone
        return self.accelerator.prepare_model(backbone)

    def share(self, encoder: TextEncoder) -> CachingTextEncoder:
        """The run's text encoder, with a cache of limited size.

        With "fsdp" a large language model is sharded over the processes. Encoding is then
        collective: every process must encode equally often, and none in a worker process.
        """
        if self.strategy == "fsdp" and self.world > 1 and isinstance(encoder, QwenEncoder):
            encoder.share(self._mesh())
            return CachingTextEncoder(encoder, shared=True)
        return CachingTextEncoder(encoder)

    def _mesh(self) -> DeviceMesh:
        """A mesh of one dimension over all processes."""
        return init_device_mesh(self.device.type, (self.world,))

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Matrix products in the run's precision; weights, sums and the loss stay in float32."""
        if self.mixed_precision == "no":
            yield
            return
        with torch.autocast(self.device.type, torch.bfloat16):
            yield

    @contextmanager
    def accumulating(self, model: nn.Module, last: bool) -> Iterator[None]:
        """Exchanges gradients among the processes only with the last batch of a step.

        The sum over a process' batches is exchanged once instead of once a batch.

        Args:
            model: What `wrap` returned.
            last: Whether the batch is the last of the step.
        """
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(last)
            yield
            return
        waiting = self.world > 1 and not last
        with model.no_sync() if waiting else nullcontext():  # type: ignore[operator]
            yield

    def gather(self, values: Tensor) -> Tensor:
        """Every process' values, (world, ...), on every process."""
        if self.world == 1:
            return values[None]
        gathered = [torch.empty_like(values) for _ in range(self.world)]
        dist.all_gather(gathered, values)
        return torch.stack(gathered)

    def gather_objects(self, value: Any) -> list[Any]:
        """Every process' object, on every process."""
        if self.world == 1:
            return [value]
        gathered: list[Any] = [None] * self.world
        dist.all_gather_object(gathered, value)
        return gathered

    def wait(self) -> None:
        """Waits until every process has called it."""
        self.accelerator.wait_for_everyone()

    @contextmanager
    def tracking(self, settings: Mapping[str, str | float]) -> Iterator[None]:
        """Opens the trackers with a run's settings, and closes them at its end."""
        if self.main:
            where = {"wandb": {"dir": self.folder}}
            self.accelerator.init_trackers(PROJECT, config=dict(settings), init_kwargs=where)
        try:
            yield
        finally:
            for tracker in self.accelerator.trackers:
                tracker.finish()
            self.accelerator.trackers = []

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Sends values to the trackers; on the first process alone."""
        for tracker in self.accelerator.trackers:
            tracker.log(dict(values), step=step)


def _shard_units(backbone: UnisonBackbone) -> list[nn.Module]:
    """The modules whose weights FSDP gathers at once: modulations, blocks, the rest.

    A unit's weights are gathered when its forward is called. The backbone calls a modulation
    apart from its block, so it must be a unit of its own.
    """
    units: list[nn.Module] = []
    for block in backbone.blocks:
        units += [part for name, part in block.named_modules() if name.endswith("modulation")]
        units.append(block)
    return [*units, backbone]


def unwrap(model: nn.Module) -> UnisonBackbone:
    """The backbone inside what `Parallel.wrap` returned."""
    found = getattr(model, "module", model)
    assert isinstance(found, UnisonBackbone)
    return found


def whole(value: Tensor) -> Tensor:
    """A tensor assembled from its shards, on the CPU. Collective: every process must call it."""
    value = value.full_tensor() if isinstance(value, DTensor) else value
    return value.detach().cpu()


def like(value: Tensor, model_value: Tensor) -> Tensor:
    """A whole tensor with the type, device and sharding of another one."""
    value = value.to(model_value.device, model_value.dtype)
    if isinstance(model_value, DTensor):
        return distribute_tensor(value, model_value.device_mesh, model_value.placements)
    return value


def gather_state(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Whole weights and optimizer state by name, on the CPU of the first process."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_state_dict(unwrap(model), optimizer, options=options)


def scatter_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    weights: dict[str, Any],
    optimizer_state: dict[str, Any],
) -> None:
    """Gives every process its shard of a state that each has read as a whole."""
    set_state_dict(
        unwrap(model),
        optimizer,
        model_state_dict=weights,
        optim_state_dict=optimizer_state,
        options=StateDictOptions(full_state_dict=True),
    )


def clip_gradients(parameters: Iterable[Tensor], largest: float) -> float:
    """Clips gradients to a norm over all processes.

    Returns:
        The norm before clipping.
    """
    norm = nn.utils.clip_grad_norm_(list(parameters), largest)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

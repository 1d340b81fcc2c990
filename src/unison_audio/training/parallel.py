"""One training step over one or many processes: wrapping, gathering, saving (accelerate).

Processes are started by ``accelerate launch`` or ``torchrun``; without them there is one. A
backbone is either copied to every process (DDP) or cut in pieces (FSDP); a saved state is whole in
both cases, so that a run can go on with another number of processes or the other way.
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
"""Where figures can go, and the package that it takes."""

PROJECT = "unison-audio"
"""What trackers know the runs under."""


class Parallel:
    """The processes of a run and what they do together.

    Args:
        strategy: "ddp" or "fsdp"; with one process the same.
        mixed_precision: "no" or "bf16".
        cpu: Whether to stay on the CPU where there is a GPU.
        trackers: Names out of `TRACKERS` that figures go to.
        folder: The run's folder, for TensorBoard.

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
            raise InputError("TensorBoard needs a folder for its figures; give the run's folder.")
        self.strategy, self.mixed_precision, self.folder = strategy, mixed_precision, folder
        self.accelerator = Accelerator(
            cpu=cpu or not torch.cuda.is_available(),
            log_with=list(trackers) or None,
            project_dir=folder,
        )
        self.device, self.main = self.accelerator.device, self.accelerator.is_main_process
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes

    def wrap(self, backbone: UnisonBackbone) -> nn.Module:
        """Spreads a backbone over the processes; gives what is to be called in training."""
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
            for part in _pieces(backbone):
                fully_shard(part, mesh=mesh, mp_policy=policy)
            return backbone
        return self.accelerator.prepare_model(backbone)

    def share(self, encoder: TextEncoder) -> CachingTextEncoder:
        """The text encoder as this run uses it: what it gave is kept within a budget.

        With "fsdp" a large language model is spread over the processes. Then every process must
        encode as often as the others, and none in a worker process.
        """
        if self.strategy == "fsdp" and self.world > 1 and isinstance(encoder, QwenEncoder):
            encoder.share(self._mesh())
            return CachingTextEncoder(encoder, shared=True)
        return CachingTextEncoder(encoder)

    def _mesh(self) -> DeviceMesh:
        """All processes, one beside the other."""
        return init_device_mesh(self.device.type, (self.world,))

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Products in the run's precision."""
        if self.mixed_precision == "no":
            yield
            return
        with torch.autocast(self.device.type, torch.bfloat16):
            yield

    @contextmanager
    def accumulating(self, model: nn.Module, last: bool) -> Iterator[None]:
        """Gradients are shared among the processes only with the last batch of a step."""
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(last)
            yield
            return
        waiting = self.world > 1 and not last
        with model.no_sync() if waiting else nullcontext():  # type: ignore[operator]
            yield

    def together(self, values: Tensor) -> Tensor:
        """Every process' values, (world, ...), on every process."""
        if self.world == 1:
            return values[None]
        gathered = [torch.empty_like(values) for _ in range(self.world)]
        dist.all_gather(gathered, values)
        return torch.stack(gathered)

    def objects(self, value: Any) -> list[Any]:
        """Every process' object, on every process."""
        if self.world == 1:
            return [value]
        gathered: list[Any] = [None] * self.world
        dist.all_gather_object(gathered, value)
        return gathered

    def wait(self) -> None:
        """Until every process is here."""
        self.accelerator.wait_for_everyone()

    @contextmanager
    def tracking(self, settings: Mapping[str, str | float]) -> Iterator[None]:
        """Trackers are told of a run with these settings, and of its end."""
        if self.main:
            where = {"wandb": {"dir": self.folder}}
            self.accelerator.init_trackers(PROJECT, config=dict(settings), init_kwargs=where)
        try:
            yield
        finally:
            for tracker in self.accelerator.trackers:
                tracker.finish()
            self.accelerator.trackers = []

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Sends figures to the trackers; for the first process alone."""
        for tracker in self.accelerator.trackers:
            tracker.log(dict(figures), step=step)


def _pieces(backbone: UnisonBackbone) -> list[nn.Module]:
    """What is gathered at once: modulations, which are computed by themselves, blocks, the rest."""
    pieces: list[nn.Module] = []
    for block in backbone.blocks:
        pieces += [part for name, part in block.named_modules() if name.endswith("modulation")]
        pieces.append(block)
    return [*pieces, backbone]


def bare(model: nn.Module) -> UnisonBackbone:
    """The backbone inside what `Parallel.wrap` gave."""
    found = getattr(model, "module", model)
    assert isinstance(found, UnisonBackbone)
    return found


def whole(value: Tensor) -> Tensor:
    """A tensor put together from its pieces, on the CPU; every process must ask for it."""
    value = value.full_tensor() if isinstance(value, DTensor) else value
    return value.detach().cpu()


def like(value: Tensor, model_value: Tensor) -> Tensor:
    """A whole tensor cut and placed as another one is."""
    value = value.to(model_value.device)
    if isinstance(model_value, DTensor):
        return distribute_tensor(value, model_value.device_mesh, model_value.placements)
    return value


def gather_state(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Whole weights and optimiser state by name, on the CPU of the first process."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_state_dict(bare(model), optimizer, options=options)


def scatter_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    weights: dict[str, Any],
    optimizer_state: dict[str, Any],
) -> None:
    """Gives every process its part of what `gather_state` gave; each has read the whole."""
    set_state_dict(
        bare(model),
        optimizer,
        model_state_dict=weights,
        optim_state_dict=optimizer_state,
        options=StateDictOptions(full_state_dict=True),
    )


def norm_of(gradients: Iterable[Tensor], largest: float) -> float:
    """Clips gradients to a norm over all processes; gives the norm they had."""
    norm = nn.utils.clip_grad_norm_(list(gradients), largest)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

"""The trainer of a backbone: one step (noise, masked loss, optimizer, average), and its state.

A step is the paper's (sections 3.5 and 3.7, Table 13). Any number of processes can take part. The
saved state is whole, so another number of processes can resume it.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.training.adapters import base_name
from unison_audio.training.batches import BatchStream, EncodedBatch
from unison_audio.training.checkpoints import Ema, step_generator
from unison_audio.training.objective import FlowMatching, Objective
from unison_audio.training.parallel import (
    Parallel,
    clip_gradients,
    gather_state,
    like,
    scatter_state,
    unwrap,
    whole,
)
from unison_audio.training.validation import write_samples


class BackboneTrainer:
    """A backbone in training, with everything that a checkpoint holds.

    Args:
        stream: The run's batches.
        parallel: The processes of the run; None for one process on the CPU.
        make: Makes the module to train; None for a fresh backbone of the variant. It is called
            again for each averaged copy, so it must give the same parameters each time.
        objective: The loss; None for flow matching.
    """

    def __init__(
        self,
        stream: BatchStream,
        parallel: Parallel | None = None,
        make: Callable[[], UnisonBackbone] | None = None,
        objective: Objective | None = None,
    ) -> None:
        self.stream, self.recipe = stream, stream.recipe
        self.parallel = parallel or Parallel(cpu=True)
        self.objective: Objective = objective or FlowMatching()
        torch.manual_seed(self.recipe.seed)
        self.make = make or (lambda: UnisonBackbone(stream.variant.backbone))
        backbone = self.make()
        backbone.recompute = self.recipe.gradient_checkpointing
        # The optimizer is made after wrapping: FSDP replaces the parameters by shards.
        self.model = self.parallel.wrap(backbone)
        trained = [p for p in self.backbone.parameters() if p.requires_grad]
        decay = self.recipe.weight_decay
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
                {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=self.recipe.peak_lr,
            betas=(0.9, 0.95),
            fused=True,
        )
        self.ema = Ema(self.backbone, self.recipe.ema_decay)
        self.sampler_state = stream.sampler.state_dict()
        self.redraws = 0

    @property
    def backbone(self) -> UnisonBackbone:
        """The backbone without the wrapper of several processes."""
        return unwrap(self.model)

    def state(self) -> dict[str, Any]:
        """The state that a resumed run needs, whole on the first process.

        Collective: every process must call it.
        """
        weights, optimizer = gather_state(self.model, self.optimizer)
        return {
            "backbone": weights,
            "ema": {name: whole(value) for name, value in self.ema.values.items()},
            "optimizer": optimizer,
            "sampler": self.sampler_state,
            "source": self.parallel.gather_objects(self.stream.source.state_dict()),
        }

    @property
    def skipped(self) -> Counter[str]:
        """Number of skipped clips of this process' corpora, by reason."""
        clips = Counter(self.stream.source.skipped)
        if self.redraws:
            clips["whole batches with an instruction that cannot be read"] = self.redraws
        return clips

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores a checkpoint, also of another number of processes."""
        scatter_state(self.model, self.optimizer, state["backbone"], state["optimizer"])
        self._set_average(state["ema"])
        self.sampler_state = state["sampler"]
        # The stream must be set before its first batch: workers copy it when they start.
        self.stream.sampler.load_state_dict(self.sampler_state)
        self.stream.first = state["step"]
        positions = [position for position in state.get("source", []) if position is not None]
        if positions:
            # Each process finds its own position. Where their number changed, the processes
            # partition what is left of the epoch.
            self.stream.source.load_state_dict(positions)

    def start_from(self, backbone: UnisonBackbone) -> None:
        """Copies the weights of a backbone without adapters; the optimizer starts fresh.

        Raises:
            InputError: If the backbone has another shape.
        """
        if backbone.config != self.backbone.config:
            raise InputError(
                f"The weights to start from are of {backbone.config}; this run trains "
                f"{self.backbone.config}, so choose a checkpoint of that shape."
            )
        weights = dict(backbone.named_parameters())
        with torch.no_grad():
            for name, parameter in self.backbone.named_parameters():
                source = base_name(name)
                if source is not None:
                    parameter.copy_(like(weights[source].detach(), parameter))
        self._set_average(dict(self.backbone.named_parameters()))

    def _set_average(self, values: Mapping[str, Tensor]) -> None:
        parameters = dict(self.backbone.named_parameters())
        self.ema.values = {
            name: like(value.detach().clone(), parameters[name]) for name, value in values.items()
        }

    def averaged(self) -> UnisonBackbone:
        """A whole copy of the backbone with averaged weights.

        Collective: every process must call it.
        """
        copy = self.make()
        copy.load_state_dict({name: whole(value) for name, value in self.ema.values.items()})
        return copy.to(self.parallel.device).eval().requires_grad_(False)

    def write_samples(self, folder: Path, step: int) -> None:
        """Writes samples of the averaged weights.

        Collective: every process must call it.

        Args:
            folder: Folder to which the first process writes.
            step: Steps done.
        """
        config = self.objective.sample_config(self.stream.variant)
        target = folder if self.parallel.main else None
        write_samples(self.averaged(), self.stream, target, step, config)
        self.parallel.wait()

    def loss(self, batch: EncodedBatch, generator: torch.Generator, step: int) -> Tensor:
        """The objective's loss of a batch."""
        return self.objective.loss(self.model, batch, generator, self.recipe, step)

    def step(self, step: int, batches: Sequence[EncodedBatch]) -> list[dict[str, float | str]]:
        """Does one training step with this process' batches.

        Returns:
            A log row for each batch.

        Raises:
            NotFiniteError: If a loss is not finite, before any weight changes.
        """
        recipe, parallel = self.recipe, self.parallel

        # 1. Forward and backward, batch by batch. Gradients add up in place, so accumulation needs
        #    no more memory than one batch; the processes exchange them with the last batch only.
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for number, batch in enumerate(batches):
            # The number of the batch in the whole run, not in this process: any number of
            # processes draws the same noise for it.
            index = step * recipe.batches_per_step + parallel.rank + number * parallel.world
            generator = step_generator(recipe.seed + 1, index)
            with parallel.accumulating(self.model, number == len(batches) - 1):
                with parallel.autocast():
                    loss = self.loss(batch, generator, step)
                (loss / len(batches)).backward()
            self.redraws += batch.redraws
            losses.append(loss.detach().float())

        # 2. Check the losses of all processes: all must stop together, or the others would wait
        #    for a process that has gone.
        mine = torch.stack(losses)
        if not parallel.gather(mine).isfinite().all():
            raise NotFiniteError(step, batches, mine.tolist())

        # 3. Clip the gradients and move the weights.
        norm = clip_gradients(self.backbone.parameters(), recipe.clip_norm)
        rate = recipe.lr(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()

        # 4. Move the average. It begins as the initial weights: a small decay forgets them within
        #    a few updates, where 0.999 would still keep a third of them after a thousand.
        if (step + 1) % recipe.ema_every == 0:
            updates = (step + 1) / recipe.ema_every
            self.ema.update(self.backbone, min(recipe.ema_decay, (1 + updates) / (10 + updates)))

        # 5. Keep the sampler's state after this step. The stream itself is ahead: workers have
        #    already drawn the tasks of later batches.
        self.sampler_state = batches[-1].sampler_state
        return [
            {"loss": float(loss), "task": batch.task, "norm": norm, "items": len(batch.z)}
            for loss, batch in zip(mine, batches, strict=True)
        ]


class NotFiniteError(InputError):
    """A loss that is not finite, with the batches behind it.

    Args:
        step: The training step.
        batches: This process' batches.
        losses: Their losses. All may be finite if the fault is on another process.
    """

    def __init__(self, step: int, batches: Sequence[EncodedBatch], losses: Sequence[float]) -> None:
        self.step, self.batches = step, batches
        found = ", ".join(
            f"{loss} ({batch.task})" for loss, batch in zip(losses, batches, strict=True)
        )
        cure = "resume from the last checkpoint with a lower learning rate"
        if all(map(math.isfinite, losses)):
            found += " here and not finite on another process"
        elif not all(map(_is_finite, batches)):
            # The weights are not to blame, so a lower learning rate would not help.
            cure = (
                "the output of the clips, the codec or the text encoder is not finite already; "
                "inspect the saved batch"
            )
        super().__init__(f"The loss is {found} at step {step}; {cure}.")

    def save(self, folder: Path, rank: int) -> Path:
        """Writes the batches for inspection; returns the file."""
        path = folder / f"not-finite-{self.step:08d}-{rank}.pt"
        batches = [
            {
                "task": batch.task,
                "z": batch.z.cpu(),
                **{
                    name: value.cpu()
                    for name, value in vars(batch.condition).items()
                    if value is not None
                },
                "hidden_states": batch.text.hidden_states.cpu(),
                "text_mask": batch.text.mask.cpu(),
            }
            for batch in self.batches
        ]
        torch.save(batches, path)
        return path


def _is_finite(batch: EncodedBatch) -> bool:
    """Whether the inputs of the backbone are finite."""
    parts = (batch.z, batch.condition.z_s, batch.text.hidden_states, batch.text.penultimate)
    return all(bool(part.isfinite().all()) for part in parts if part is not None)

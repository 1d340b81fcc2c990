"""Training the backbone: noising, masked loss, optimiser, averages, and the loop around them.

A step is the paper's (sections 3.5 and 3.7, Table 13). A run may have any number of processes; its
state is saved whole, and goes on exactly where it was.
"""

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.training.batches import Example, ExampleStream, velocity_error
from unison_audio.training.checkpoints import (
    Ema,
    StopRequest,
    full_disk_told,
    load_checkpoint,
    save_checkpoint,
    step_generator,
)
from unison_audio.training.log import LossLog, Pace, Shares, note_validation, printed, tracked
from unison_audio.training.parallel import (
    Parallel,
    bare,
    gather_state,
    like,
    norm_of,
    scatter_state,
    whole,
)
from unison_audio.training.validation import Validation, write_samples

PRINT_EVERY = 20


class BackboneTrainer:
    """A backbone in training, with all that a checkpoint holds.

    Args:
        stream: Where the batches come from.
        parallel: The processes of the run; one if None.
        make: Makes what is trained, where that is not a fresh backbone of the variant.
    """

    def __init__(
        self,
        stream: ExampleStream,
        parallel: Parallel | None = None,
        make: Callable[[], UnisonBackbone] | None = None,
    ) -> None:
        self.stream, self.recipe = stream, stream.recipe
        self.parallel = parallel or Parallel(cpu=True)
        torch.manual_seed(self.recipe.seed)
        self.make = make or (lambda: UnisonBackbone(stream.variant.backbone))
        backbone = self.make()
        backbone.recompute = self.recipe.gradient_checkpointing
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
        """The backbone, without what spreads it over processes."""
        return bare(self.model)

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs, whole on the first process; all must ask for it."""
        weights, optimizer = gather_state(self.model, self.optimizer)
        return {
            "backbone": weights,
            "ema": {name: whole(value) for name, value in self.ema.values.items()},
            "optimizer": optimizer,
            "sampler": self.sampler_state,
            "source": self.parallel.objects(self._source_state()),
        }

    def _source_state(self) -> Any:
        """Where this process is in its corpora; None where they are in memory."""
        saved = getattr(self.stream.source, "state_dict", None)
        return None if saved is None else saved()

    @property
    def skipped(self) -> Counter[str]:
        """What of this process' corpora could not be used, by reason."""
        clips = Counter(getattr(self.stream.source, "skipped", {}))
        if self.redraws:
            clips["whole batches with an instruction that cannot be read"] = self.redraws
        return clips

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up a checkpoint's state, also one of another number of processes."""
        scatter_state(self.model, self.optimizer, state["backbone"], state["optimizer"])
        self._set_average(state["ema"])
        self.sampler_state = state["sampler"]
        self.stream.sampler.load_state_dict(self.sampler_state)
        self.stream.first = state["step"]
        places = [place for place in state.get("source", []) if place is not None]
        if places:
            # Each process finds its own place, or shares what is left where their number changed.
            self.stream.source.load_state_dict(places)  # type: ignore[attr-defined]

    def start_from(self, backbone: UnisonBackbone) -> None:
        """Starts from other weights instead of fresh ones; the optimiser starts anew.

        Raises:
            InputError: If they are of another shape.
        """
        if backbone.config != self.backbone.config:
            raise InputError(
                f"The weights to start from are of {backbone.config}; this run trains "
                f"{self.backbone.config}, so choose a checkpoint of that"
            )
        weights = dict(backbone.named_parameters())
        with torch.no_grad():
            for name, parameter in self.backbone.named_parameters():
                parameter.copy_(like(weights[name].detach(), parameter))
        self._set_average(weights)

    def _set_average(self, values: Mapping[str, Tensor]) -> None:
        parameters = dict(self.backbone.named_parameters())
        self.ema.values = {
            name: like(value.detach().clone(), parameters[name]) for name, value in values.items()
        }

    def averaged(self) -> UnisonBackbone:
        """A copy of the backbone with averaged weights, whole; every process must ask for it."""
        copy = self.make()
        copy.load_state_dict({name: whole(value) for name, value in self.ema.values.items()})
        return copy.to(self.parallel.device).eval().requires_grad_(False)

    def write_samples(self, folder: Path, step: int) -> None:
        """Writes sounds made with the averaged weights; every process must take part.

        Args:
            folder: Where the first process writes.
            step: Steps done.
        """
        averaged = self.averaged()
        self._write_samples(averaged, folder if self.parallel.main else None, step)
        self.parallel.wait()

    def _write_samples(self, averaged: UnisonBackbone, folder: Path | None, step: int) -> None:
        write_samples(averaged, self.stream, folder, step)

    def loss(
        self,
        example: Example,
        generator: torch.Generator,
        text_dropout: float,
        t_mean: float = 0.0,
    ) -> Tensor:
        """Noises a batch and measures the velocity's masked error (paper Eq. 3)."""
        return velocity_error(self.model, example, generator, text_dropout, t_mean)

    def step(self, step: int, examples: Sequence[Example]) -> list[dict[str, float | str]]:
        """Does one step with this process' batches; gives each batch's figures for the log.

        Raises:
            NotFiniteError: If a loss is not finite, before anything is changed.
        """
        recipe, parallel = self.recipe, self.parallel
        phase = recipe.phase(step)
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for number, example in enumerate(examples):
            index = step * recipe.batches_per_step + parallel.rank + number * parallel.world
            generator = step_generator(recipe.seed + 1, index)
            with parallel.accumulating(self.model, number == len(examples) - 1):
                with parallel.computing():
                    t_mean = phase.t_mean_of(example.task)
                    loss = self.loss(example, generator, recipe.text_dropout, t_mean)
                (loss / len(examples)).backward()
            self.redraws += example.redraws
            losses.append(loss.detach().float())
        mine = torch.stack(losses)
        everyone = parallel.together(mine)
        if not everyone.isfinite().all():
            raise NotFiniteError(step, examples, mine.tolist())
        norm = norm_of(self.backbone.parameters(), recipe.clip_norm)
        rate = recipe.lr(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.sampler_state = examples[-1].sampler_state
        if (step + 1) % recipe.ema_every == 0:
            # While the run is young the average follows closely.
            updates = (step + 1) / recipe.ema_every
            self.ema.update(self.backbone, min(recipe.ema_decay, (1 + updates) / (10 + updates)))
        return [
            {"loss": float(loss), "task": example.task, "norm": norm, "items": len(example.z)}
            for loss, example in zip(mine, examples, strict=True)
        ]


class NotFiniteError(InputError):
    """A loss that is not finite, with the batches behind it.

    Args:
        step: At which.
        examples: This process' batches.
        losses: Their losses; they may all be finite where another process' are not.
    """

    def __init__(self, step: int, examples: Sequence[Example], losses: Sequence[float]) -> None:
        self.step, self.examples = step, examples
        found = ", ".join(
            f"{loss} ({example.task})" for loss, example in zip(losses, examples, strict=True)
        )
        cure = "go on from the last checkpoint with a lower learning rate"
        if all(map(math.isfinite, losses)):
            found += " here and not finite on another process"
        elif not all(map(_finite, examples)):
            cure = (
                "what the clips, the codec or the text encoder gave is not finite already; look "
                "into the saved batch"
            )
        super().__init__(f"The loss is {found} at step {step}; {cure}")

    def save(self, folder: Path, rank: int) -> Path:
        """Writes the batches for inspection; gives the file."""
        path = folder / f"not-finite-{self.step:08d}-{rank}.pt"
        batches = [
            {
                "task": example.task,
                "z": example.z.cpu(),
                **{name: value.cpu() for name, value in vars(example.condition).items()},
                "hidden_states": example.text.hidden_states.cpu(),
                "text_mask": example.text.mask.cpu(),
            }
            for example in self.examples
        ]
        torch.save(batches, path)
        return path


def _finite(example: Example) -> bool:
    """Whether what a batch gives the backbone is finite."""
    parts = (example.z, example.condition.z_s, example.text.hidden_states, example.text.penultimate)
    return all(bool(part.isfinite().all()) for part in parts if part is not None)


def train_backbone(
    trainer: BackboneTrainer,
    folder: Path,
    workers: int = 0,
    validation: Validation | None = None,
) -> UnisonBackbone:
    """Trains, or goes on with a run that was cut off, up to the recipe's last step.

    Args:
        trainer: A fresh trainer.
        folder: The run's folder: checkpoints, ``log.jsonl``, samples.
        workers: Processes that make batches ahead; 0 makes them in between. The result is the
            same.
        validation: Held-out batches whose loss is followed.

    Returns:
        The backbone with averaged weights.

    Raises:
        KeyboardInterrupt: If the run was asked to stop (SIGINT, SIGTERM), after it saved.
        NotFiniteError: If a loss is not finite; the batches are then in the run's folder.
        InputError: If the disk is full; the checkpoints before are as they were.
    """
    torch.set_flush_denormal(True)
    folder.mkdir(parents=True, exist_ok=True)
    plain = (bool, int, float, str)
    settings = {k: v for k, v in dataclasses.asdict(trainer.recipe).items() if type(v) in plain}
    with full_disk_told(folder), trainer.parallel.tracking(settings):
        _train(trainer, folder, workers, validation)
    return trainer.averaged()


def _train(
    trainer: BackboneTrainer, folder: Path, workers: int, validation: Validation | None
) -> None:
    """The loop of `train_backbone`."""
    recipe, parallel = trainer.recipe, trainer.parallel
    state = load_checkpoint(folder)
    first = 0
    if state is not None:
        trainer.load_state(state)
        first = state["step"]
    log = LossLog(folder, first) if parallel.main else None
    pace, stop = Pace(first, recipe.steps), StopRequest()
    examples = iter(
        DataLoader(
            trainer.stream,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
        )
    )
    recent: list[float] = []
    untold: list[dict[str, float | str]] = []
    clips = 0
    mine = recipe.batches_per_step // parallel.world
    shares = Shares()
    try:
        for step in range(first, recipe.steps):
            batches = [next(examples) for _ in range(mine)]
            began = time.perf_counter()
            try:
                rows = trainer.step(step, batches)
            except NotFiniteError as error:
                error.save(folder, parallel.rank)
                raise
            shares.add(batches, time.perf_counter() - began)
            everyone = [row for some in parallel.objects(rows) for row in some]
            done = step + 1
            recent = [*recent[-99:], *(float(row["loss"]) for row in everyone)]
            untold += everyone
            clips += sum(int(row["items"]) for row in everyone)
            if log is not None:
                for row in everyone:
                    log.write(step, **row)
            if done % PRINT_EVERY == 0:
                skipped = sum(parallel.objects(trainer.skipped), Counter[str]())
                taken, mean, norm = shares.taken(), sum(recent) / len(recent), rows[0]["norm"]
                if parallel.main:
                    line = pace.line(done, clips // (done - first), loss=mean, norm=float(norm))
                    print(f"{line}  {printed(taken, skipped)}", flush=True)
                    parallel.log(tracked(untold, taken, skipped, recipe.lr(step)), done)
                untold = []
            asked = any(parallel.objects(stop.asked)) if parallel.world > 1 else stop.asked
            last = done == recipe.steps
            scheduled = done % recipe.sample_every == 0
            if scheduled:  # before saving, since it draws from the pools: a resumed run does not
                trainer.write_samples(folder / "samples", done)
            if done % recipe.checkpoint_every == 0 or last or asked:
                _save(trainer, folder, done)
            if asked:
                raise KeyboardInterrupt(f"saved at step {done}")
            if validation is not None and (done % recipe.validate_every == 0 or last):
                figures = validation.losses(trainer.averaged())
                if log is not None:
                    note_validation(folder, done, figures)
                    parallel.log({f"validation/{k}": v for k, v in figures.items()}, done)
            if last and not scheduled:  # after saving: a longer run would not have drawn here
                trainer.write_samples(folder / "samples", done)
    finally:
        stop.restore()


def _save(trainer: BackboneTrainer, folder: Path, step: int) -> None:
    """Writes a checkpoint; what goes wrong with it does so on every process."""
    state, failure = trainer.state(), None
    if trainer.parallel.main:
        try:
            save_checkpoint(folder, step, state, trainer.recipe.keep_checkpoints)
        except OSError as error:
            failure = error
    for each in trainer.parallel.objects(failure):
        if each is not None:
            raise each

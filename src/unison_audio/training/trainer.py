"""Training the backbone: one task a batch, built, encoded and noised as the paper says.

A step walks the path that inference walks: builder, codec, text encoder, noising, backbone, masked
loss (paper sections 3.5 to 3.7). Everything a step draws comes from a generator of its own, so
that a run that was killed goes on to the bit.
"""

import math
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from unison_audio.audio import save
from unison_audio.data.pools import MemoryPools
from unison_audio.data.shards import Clip
from unison_audio.errors import InputError
from unison_audio.frozen.codec import AudioCodec
from unison_audio.frozen.text import TextEncoder, TextStates
from unison_audio.model import flow, sampling
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.tasks.builders import BuilderConfig
from unison_audio.tasks.latents import Condition, condition
from unison_audio.tasks.sampler import Stage, TaskSampler
from unison_audio.tasks.table import TASKS, TaskBatch
from unison_audio.training.runs import (
    Ema,
    LossLog,
    Pace,
    learning_rate,
    load_checkpoint,
    save_checkpoint,
    step_generator,
)
from unison_audio.variants import Variant


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training: which tasks, how long the clips, how many words."""

    until_step: int | None
    """First step that is no longer part of it; None for the last phase."""
    probabilities: Mapping[str, float]
    """Probability of each task."""
    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Clip lengths by task, drawn evenly; the entry ``""`` serves tasks not named."""
    max_words: int | None = None
    """Longest text in words."""
    t_mean: float = 0.0
    """Mean of logit(t); above 0 the noisy end, where words are decided, is seen more often."""


@dataclass(frozen=True, kw_only=True)
class BackboneRecipe:
    """How a backbone is trained (paper Table 13 for the full size)."""

    phases: tuple[Phase, ...]
    """The curriculum."""
    frames_per_batch: int
    """Latent frames in a batch; the number of items follows from their length."""
    steps: int
    """Steps in all."""
    peak_lr: float = 1e-4
    """Highest learning rate."""
    warmup: int = 2000
    """Warm-up steps."""
    cooldown: int | None = None
    """Steps of a linear decay to zero at the end, constant before; None for the cosine."""
    weight_decay: float = 0.01
    """On matrices only."""
    clip_norm: float = 1.0
    """Gradients are clipped to this norm."""
    ema_decay: float = 0.999
    """Decay of the moving average of the weights."""
    ema_every: int = 10
    """Steps between two updates of the average."""
    text_dropout: float = 0.1
    """Probability of training an item without its text."""
    first_template_probability: float = 0.5
    """Probability of the paper's own wording."""
    seed: int = 0
    """Seed of everything that is drawn."""
    checkpoint_every: int = 200
    """Steps between two checkpoints."""
    sample_every: int = 1000
    """Steps between two sets of samples on disk."""

    def phase(self, step: int) -> Phase:
        """The phase a step belongs to."""
        for phase in self.phases:
            if phase.until_step is None or step < phase.until_step:
                return phase
        return self.phases[-1]

    def lr(self, step: int) -> float:
        """Learning rate of a step."""
        if self.cooldown is None:
            return learning_rate(step, peak=self.peak_lr, warmup=self.warmup, total=self.steps)
        rising = min(1.0, (step + 1) / self.warmup)
        falling = min(1.0, max(0.0, (self.steps - step) / self.cooldown))
        return self.peak_lr * rising * falling


@dataclass(frozen=True, kw_only=True)
class Example:
    """A batch ready for the backbone."""

    z: Tensor
    """(B, C, T') clean latents."""
    condition: Condition
    """z_s, m and M_loss."""
    text: TextStates
    """Hidden states (B, D, N, text_dim) and mask (B, N)."""
    task: str
    """The batch's task."""
    sampler_state: dict[str, Any]
    """State of the task sampler behind this batch."""


class ExampleStream(IterableDataset[Example]):
    """Makes the batches of a run in their order, also from several worker processes.

    Every step is made from its own generator; only the task sampler runs through all steps. A
    worker draws the tasks of all steps and builds its own ones.

    Args:
        variant: What is trained.
        recipe: How.
        clips: Training clips.
        codec: The variant's codec.
        text_encoder: The variant's text encoder.
    """

    def __init__(
        self,
        variant: Variant,
        recipe: BackboneRecipe,
        clips: Sequence[Clip],
        codec: AudioCodec,
        text_encoder: TextEncoder,
    ) -> None:
        self.variant, self.recipe = variant, recipe
        self.codec, self.text_encoder = codec, text_encoder
        self.clips = clips
        self.pools: dict[int | None, MemoryPools] = {}
        stages = tuple(
            Stage(until_step=phase.until_step, probabilities=dict(phase.probabilities))
            for phase in recipe.phases
        )
        self.sampler = TaskSampler(stages, recipe.seed)
        self.first = 0

    def __iter__(self) -> Iterator[Example]:
        """Yields the examples of the steps from ``first`` on."""
        worker = get_worker_info()
        index, count = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker:
            os.nice(5)
            torch.set_flush_denormal(True)
        for step in range(self.first, self.recipe.steps):
            task = self.sampler.draw(step)
            if (step - self.first) % count == index:
                yield self.encode(self.build(step, task))

    def build(self, step: int, task: str) -> TaskBatch:
        """Builds a step's batch of waveforms."""
        generator = step_generator(self.recipe.seed, step)
        phase = self.recipe.phase(step)
        choices = phase.seconds.get(task, phase.seconds.get("", (self.variant.max_seconds,)))
        seconds = choices[int(torch.randint(len(choices), (1,), generator=generator))]
        batch = max(1, self.recipe.frames_per_batch // self.codec.frames(seconds))
        if phase.max_words not in self.pools:
            self.pools[phase.max_words] = MemoryPools(
                self.clips, self.codec.sample_rate, phase.max_words
            )
        return TASKS[task].build(
            self.pools[phase.max_words],
            batch,
            seconds,
            self.codec.sample_rate,
            generator,
            config=self.builder_config(),
        )

    def builder_config(self) -> BuilderConfig:
        """What the builders draw from."""
        return BuilderConfig(
            hop=self.codec.hop, first_template_probability=self.recipe.first_template_probability
        )

    @torch.no_grad()
    def encode(self, batch: TaskBatch) -> Example:
        """Brings a batch of waveforms and instructions to latents and hidden states."""
        z = self.codec.encode(batch.target)
        given = condition(
            self.codec,
            TASKS[batch.task],
            z.shape[-1],
            z.shape[0],
            batch.source,
            batch.reference_samples,
        )
        return Example(
            z=z,
            condition=given,
            text=self.text_encoder.encode(batch.instructions),
            task=batch.task,
            sampler_state=self.sampler.state_dict(),
        )


class BackboneTrainer:
    """A backbone in training, with all that a checkpoint holds.

    Args:
        stream: Where the batches come from.
    """

    def __init__(self, stream: ExampleStream) -> None:
        self.stream, self.recipe = stream, stream.recipe
        torch.manual_seed(self.recipe.seed)
        self.backbone = UnisonBackbone(stream.variant.backbone)
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

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {
            "backbone": self.backbone.state_dict(),
            "ema": self.ema.values,
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler_state,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up a checkpoint's state."""
        self.backbone.load_state_dict(state["backbone"])
        self.ema.values = state["ema"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.sampler_state = state["sampler"]
        self.stream.sampler.load_state_dict(self.sampler_state)
        self.stream.first = state["step"]

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
        self.backbone.load_state_dict(backbone.state_dict())
        self.ema = Ema(self.backbone, self.recipe.ema_decay)

    def loss(
        self,
        example: Example,
        generator: torch.Generator,
        text_dropout: float,
        t_mean: float = 0.0,
    ) -> Tensor:
        """Noises a batch and measures the velocity's masked error (paper Eq. 3)."""
        z, given = example.z, example.condition
        eps = torch.randn(z.shape, generator=generator)
        t = flow.sample_t(z.shape[0], generator, mean=t_mean)
        hidden_states, mask = flow.drop_text(
            example.text.hidden_states, example.text.mask, generator, text_dropout
        )
        x = torch.cat((flow.add_noise(z, eps, t), given.z_s, given.m), dim=1)  # (B, 2C+1, T')
        v = self.backbone(x, t, hidden_states, mask)
        return flow.flow_loss(v, z, eps, given.loss_mask)

    def step(self, step: int, example: Example) -> dict[str, float | str]:
        """Does one step; gives the figures for the log.

        Raises:
            InputError: If the loss is not finite.
        """
        generator = step_generator(self.recipe.seed + 1, step)
        t_mean = self.recipe.phase(step).t_mean
        loss = self.loss(example, generator, self.recipe.text_dropout, t_mean)
        if not math.isfinite(loss.item()):
            raise InputError(
                f"The loss is {loss.item()} at step {step} ({example.task}); go on from the last "
                "checkpoint with a lower learning rate"
            )
        rate = self.recipe.lr(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.backbone.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.sampler_state = example.sampler_state
        if (step + 1) % self.recipe.ema_every == 0:
            # While the run is young the average follows closely.
            updates = (step + 1) / self.recipe.ema_every
            self.ema.update(
                self.backbone, min(self.recipe.ema_decay, (1 + updates) / (10 + updates))
            )
        return {
            "loss": loss.item(),
            "task": example.task,
            "norm": float(norm),
            "items": len(example.z),
        }

    @torch.no_grad()
    def write_samples(self, folder: Path, step: int, count: int = 2) -> None:
        """Writes what the averaged weights make of a few instructions, one task after the other."""
        folder.mkdir(parents=True, exist_ok=True)
        stream = self.stream
        averaged = UnisonBackbone(stream.variant.backbone)
        averaged.load_state_dict(self.backbone.state_dict())
        self.ema.copy_to(averaged)
        averaged.eval()
        generator = step_generator(self.recipe.seed + 2, 0)
        rate = stream.codec.sample_rate
        pools = MemoryPools(stream.clips, rate)
        for task in [name for name, p in self.recipe.phase(step).probabilities.items() if p > 0]:
            config = stream.builder_config()
            batch = TASKS[task].build(
                pools, count, 0.75 * stream.variant.max_seconds, rate, generator, config=config
            )
            example = stream.encode(batch)
            z = sampling.sample(
                averaged,
                example.condition.z_s,
                example.condition.m,
                example.text.hidden_states,
                example.text.mask,
                noise=torch.randn(example.z.shape, generator=generator),
                steps=16,
                guidance=sampling.Guidance(scale=3.0),
            )
            waveform = stream.codec.decode(z).reshape(-1)
            waveform = waveform / max(1.0, float(waveform.abs().max()))
            save(folder / f"{step:08d}-{task}.wav", waveform, rate)
            text = folder / f"{step:08d}-{task}.txt"
            text.write_text("\n".join(batch.instructions) + "\n")


class _StopRequest:
    """Notes SIGTERM and SIGINT, so that a run saves before it ends."""

    def __init__(self) -> None:
        self.asked = False
        self.before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def train_backbone(trainer: BackboneTrainer, folder: Path, workers: int = 0) -> UnisonBackbone:
    """Trains, or goes on with a run that was cut off, up to the recipe's last step.

    Args:
        trainer: A fresh trainer.
        folder: The run's folder: checkpoints, ``log.jsonl``, samples.
        workers: Processes that make batches ahead; 0 makes them in between. The result is the
            same.

    Returns:
        The backbone with averaged weights.

    Raises:
        KeyboardInterrupt: If the run was asked to stop (SIGINT, SIGTERM), after it saved.
    """
    torch.set_flush_denormal(True)
    recipe = trainer.recipe
    state = load_checkpoint(folder)
    first = 0
    if state is not None:
        trainer.load_state(state)
        first = state["step"]
    log, pace, stop = LossLog(folder, first), Pace(first, recipe.steps), _StopRequest()
    examples = DataLoader(
        trainer.stream,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    recent: list[float] = []
    clips = 0
    try:
        for step, example in zip(range(first, recipe.steps), examples, strict=False):
            figures = trainer.step(step, example)
            log.write(step, **figures)
            recent = [*recent[-99:], float(figures["loss"])]
            clips += int(figures["items"])
            done = step + 1
            if done % 20 == 0:
                mean = sum(recent) / len(recent)
                each = clips // (done - first)
                print(pace.line(done, each, loss=mean, norm=float(figures["norm"])), flush=True)
            if done % recipe.checkpoint_every == 0 or done == recipe.steps or stop.asked:
                save_checkpoint(folder, done, trainer.state())
            if stop.asked:
                raise KeyboardInterrupt(f"saved at step {done}")
            if done % recipe.sample_every == 0 or done == recipe.steps:
                trainer.write_samples(folder / "samples", done)
    finally:
        stop.restore()
    trainer.ema.copy_to(trainer.backbone)
    return trainer.backbone.eval()

"""The batches of a run: which task, built from which clips, encoded for the backbone.

A batch walks the path that inference walks: builder, codec, text encoder (paper sections 3.6, 3.7).
Everything it draws comes from a generator of its own, so that a run that was killed goes on to the
bit, and any number of processes makes the same batches.
"""

import dataclasses
import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from unison_audio.codecs.table import AudioCodec
from unison_audio.data.pools import MemoryPools, VariedPools, label_of
from unison_audio.data.records import Clip
from unison_audio.errors import InputError, TextError
from unison_audio.model import flow
from unison_audio.tasks.clips import Pools
from unison_audio.tasks.conditioning import Condition, condition
from unison_audio.tasks.curriculum import Stage, TaskSampler
from unison_audio.tasks.draw import BuilderConfig
from unison_audio.tasks.table import TASKS, TaskBatch
from unison_audio.text.states import TextEncoder, TextStates
from unison_audio.training.checkpoints import step_generator
from unison_audio.training.recipes import BackboneRecipe
from unison_audio.variants import Variant


@dataclass(frozen=True, kw_only=True)
class Example:
    """A batch ready for the backbone."""

    z: Tensor
    """(B, C, T') clean latents."""
    condition: Condition
    """z_s, m and M_loss."""
    text: TextStates
    """Hidden states (B, D, N, text_dim), mask (B, N), and penultimate states where wanted."""
    task: str
    """The batch's task."""
    sampler_state: dict[str, Any]
    """State of the task sampler behind the step that this batch belongs to."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time that synthesis, codec and text encoder took."""
    redraws: int = 0
    """Batches thrown away before this one, because an instruction could not be read."""


class PoolSource(Protocol):
    """Gives the clips that batches are built from."""

    def pools(self, max_words: int | None) -> Pools:
        """Pools whose texts have at most so many words."""
        ...


REDRAWS = 10
"""Batches built at most until each of one's instructions can be read."""

REDRAW_SEEDS = 7919
"""Between the seeds of two attempts at a batch."""


def buildable_tasks(clips: Sequence[Clip]) -> set[str]:
    """Names of the tasks whose batches the builders can make from some clips."""
    labels = {label_of(clip.record) for clip in clips if clip.record.kind == "sound"}
    spoken = [clip.record for clip in clips if clip.record.text]
    speakers = [record.speaker for record in spoken if record.speaker]
    repeated = len(speakers) > len(set(speakers))
    return {
        name
        for name, task in TASKS.items()
        if task.sounds <= len(labels)
        and task.utterances <= len(spoken)
        and (repeated or not task.same_speaker)
    }


def buildable_shares(
    shares: Mapping[str, float], clips: Sequence[Clip], corpus: object
) -> dict[str, float]:
    """Limits the shares of tasks to those that a corpus has clips for.

    Tasks that are left out are named in a warning.

    Args:
        shares: Task -> share of the batches.
        clips: The clips to build from.
        corpus: What to call them in a message.

    Returns:
        The same shares where every task can be built, else the others scaled to sum to 1.

    Raises:
        InputError: If none can be built.
    """
    can = buildable_tasks(clips)
    missing = [name for name, share in shares.items() if share > 0 and name not in can]
    if not missing:
        return dict(shares)
    kept = {name: share for name, share in shares.items() if share > 0 and name in can}
    if not kept:
        raise InputError(
            f"{corpus} has no clips for any of {', '.join(missing)}; add speech with its text, or "
            "sounds with labels"
        )
    warnings.warn(
        f"{corpus} has no clips for {', '.join(missing)}; these tasks are left out of the training",
        stacklevel=2,
    )
    return {name: share / math.fsum(kept.values()) for name, share in kept.items()}


class CorpusInMemory:
    """Pools over a corpus that fits into memory.

    Args:
        clips: The clips.
        sample_rate: Of the clips, in Hz.
        label_weights: How often each label of a sound is drawn, relatively; evenly if None.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        sample_rate: int,
        label_weights: Mapping[str, float] | None = None,
    ) -> None:
        self.clips, self.sample_rate, self.label_weights = clips, sample_rate, label_weights
        self.made: dict[int | None, MemoryPools] = {}

    def pools(self, max_words: int | None) -> MemoryPools:
        """As in `PoolSource`."""
        if max_words not in self.made:
            self.made[max_words] = MemoryPools(
                self.clips, self.sample_rate, max_words, self.label_weights
            )
        return self.made[max_words]


class ExampleStream(IterableDataset[Example]):
    """Makes one process' batches of a run in their order, also from several worker processes.

    A step has `batches_per_step` batches; process r of w makes those number r, r + w, ... Every
    batch is made from its own generator; only the task sampler runs through all of them.

    Args:
        variant: What is trained.
        recipe: How.
        source: Where the clips come from.
        codec: The variant's codec.
        text_encoder: The variant's text encoder.
        device: Where batches are mixed and encoded.
        rank: Number of this process.
        world: Processes in all.

    Raises:
        InputError: If the batches of a step cannot be shared evenly among the processes.
    """

    def __init__(
        self,
        variant: Variant,
        recipe: BackboneRecipe,
        source: PoolSource,
        codec: AudioCodec,
        text_encoder: TextEncoder,
        *,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if recipe.batches_per_step % world:
            raise InputError(
                f"{recipe.batches_per_step} batches a step cannot be shared by {world} processes; "
                "choose a multiple of the processes"
            )
        self.variant, self.recipe, self.source = variant, recipe, source
        self.codec, self.text_encoder, self.device = codec, text_encoder, torch.device(device)
        self.rank, self.world = rank, world
        stages = tuple(
            Stage(until_step=phase.until_step, probabilities=dict(phase.probabilities))
            for phase in recipe.phases
        )
        self.sampler = TaskSampler(stages, recipe.seed)
        self.first = 0

    def __iter__(self) -> Iterator[Example]:
        """Yields this process' examples of the steps from ``first`` on."""
        worker = get_worker_info()
        index, count = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker:
            os.nice(5)
            torch.set_flush_denormal(True)
        made = 0
        for step in range(self.first, self.recipe.steps):
            tasks = self.draw_tasks(step)
            for number in range(self.rank, len(tasks), self.world):
                if made % count == index:
                    yield self.make(step, number, tasks[number])
                made += 1

    def draw_tasks(self, step: int) -> list[str]:
        """Draws the tasks of a step's batches, those of other processes too."""
        return [self.sampler.draw(step) for _ in range(self.recipe.batches_per_step)]

    def make(self, step: int, number: int, task: str) -> Example:
        """Builds and encodes batch `number` of a step.

        A batch with an instruction that the text encoder cannot read, such as one with a very long
        caption, is built anew from another draw.

        Raises:
            InputError: If `REDRAWS` batches in a row had such an instruction.
        """
        for attempt in range(REDRAWS):
            began = time.perf_counter()
            batch = self.build(step, task, number, attempt)
            self._wait()
            synthesis = time.perf_counter() - began
            try:
                example = self.encode(batch, {"synthesis": synthesis})
                return dataclasses.replace(example, redraws=attempt)
            except TextError as error:
                last = error
        raise InputError(
            f"{REDRAWS} batches of {task} in a row had an instruction that the text encoder cannot "
            f"read; filter the captions of the corpus ({last})"
        )

    def build(self, step: int, task: str, number: int = 0, attempt: int = 0) -> TaskBatch:
        """Builds a batch of waveforms; each attempt is another draw."""
        seed_step = step * self.recipe.batches_per_step + number
        generator = step_generator(self.recipe.seed + REDRAW_SEEDS * attempt, seed_step)
        phase = self.recipe.phase(step)
        choices = phase.seconds.get(task, phase.seconds.get("", (self.variant.max_seconds,)))
        seconds = choices[int(torch.randint(len(choices), (1,), generator=generator))]
        pools = self.source.pools(phase.max_words)
        if self.recipe.speed is not None:
            pools = VariedPools(pools, self.codec.sample_rate, self.recipe.speed)
        return TASKS[task].build(
            pools,
            max(1, self.recipe.frames_per_batch // self.codec.frames(seconds)),
            seconds,
            self.codec.sample_rate,
            generator,
            device=self.device,
            config=self.builder_config(),
        )

    def builder_config(self) -> BuilderConfig:
        """What the builders draw from."""
        return BuilderConfig(
            hop=self.codec.hop,
            first_template_probability=self.recipe.first_template_probability,
            noise_floor_dbfs=self.recipe.floor_dbfs,
        )

    @torch.no_grad()
    def encode(self, batch: TaskBatch, seconds: dict[str, float] | None = None) -> Example:
        """Brings a batch of waveforms and instructions to latents and hidden states."""
        began = time.perf_counter()
        z = self.codec.encode(batch.target)
        given = condition(
            self.codec,
            TASKS[batch.task],
            z.shape[-1],
            z.shape[0],
            batch.source,
            batch.reference_samples,
        )
        self._wait()
        encoded = time.perf_counter()
        text = self.text_encoder.encode(batch.instructions)
        self._wait()
        return Example(
            z=z,
            condition=given.to(z.device),
            text=text,
            task=batch.task,
            sampler_state=self.sampler.state_dict(),
            seconds={
                **(seconds or {}),
                "codec": encoded - began,
                "text": time.perf_counter() - encoded,
            },
        )

    def _wait(self) -> None:
        """Lets a GPU finish, so that times are those of the work and not of its launch."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def velocity_error(
    model: torch.nn.Module,
    example: Example,
    generator: torch.Generator,
    text_dropout: float,
    t_mean: float = 0.0,
) -> Tensor:
    """The loss of one batch (paper Eq. 3): training and validation both call this.

    Args:
        model: The backbone, or what spreads it over processes.
        example: The batch.
        generator: Of the noise, the times and the dropout.
        text_dropout: Probability that an item loses its text.
        t_mean: Mean of logit(t).

    Returns:
        A scalar.
    """
    z, given, text = example.z, example.condition, example.text
    device = z.device
    eps = torch.randn(z.shape, generator=generator).to(device)
    t = flow.sample_t(z.shape[0], generator, mean=t_mean).to(device)
    dropped = flow.draw_dropped(z.shape[0], generator, text_dropout)
    mask = text.mask.to(device)
    states, kept = flow.remove_text(dropped, text.hidden_states.to(device), mask)
    penultimate = None
    if text.penultimate is not None:
        penultimate, _ = flow.remove_text(dropped, text.penultimate.to(device), mask)
    x = torch.cat((flow.add_noise(z, eps, t), given.z_s, given.m), dim=1)  # (B, 2C+1, T')
    v = model(x, t, states if states.shape[1] else None, kept, penultimate)
    return flow.flow_loss(v, z, eps, given.loss_mask)

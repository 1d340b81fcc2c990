"""The batches of a run: which task, built from which clips, encoded for the backbone.

A batch goes through the same builder, codec and text encoder as in inference (paper sections 3.6
and 3.7). Each batch draws from a generator of its own, seeded by its number. A resumed run thus
continues bit-identically, and any number of processes makes the same batches.
"""

import dataclasses
import math
import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from unison_audio.codecs.table import AudioCodec
from unison_audio.data.pools import MemoryPools, VariedPools
from unison_audio.data.records import Clip, label_of
from unison_audio.errors import InputError, TextError
from unison_audio.release_inputs import training_waveforms
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
class EncodedBatch:
    """A batch ready for the backbone."""

    z: Tensor
    """(B, C, T') clean latents."""
    condition: Condition
    """z_s, m and M_loss."""
    text: TextStates
    """Hidden states (B, D, N, text_dim), mask (B, N), and penultimate states where wanted."""
    task: str
    """Name of the task."""
    sampler_state: dict[str, Any]
    """State of the task sampler after the step of this batch."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time that synthesis, codec and text encoder took."""
    redraws: int = 0
    """Batches discarded before this one because the text encoder could not read them."""


class PoolSource(Protocol):
    """Source of the clips that batches are built from."""

    def pools(self, max_words: int | None) -> Pools:
        """Pools whose texts have at most `max_words` words; None for no limit."""
        ...

    @property
    def skipped(self) -> Mapping[str, int]:
        """Number of clips that could not be used, by reason."""
        ...

    def state_dict(self) -> Any:
        """The position in the corpora; None where there is none."""
        ...

    def load_state_dict(self, states: Sequence[Any], /) -> None:
        """Restores the positions of all processes."""
        ...

    def close(self) -> None:
        """Ends worker processes."""
        ...


REDRAWS = 10
"""Attempts at a batch whose instructions the text encoder can read."""

REDRAW_SEEDS = 7919
"""Distance between the seeds of two attempts at a batch, far from the offsets 1 to 3 that noise,
samples and validation add to the run's seed."""


def buildable_tasks(clips: Sequence[Clip]) -> set[str]:
    """Names of the tasks that the builders can make from these clips."""
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
    """Keeps the tasks that a corpus has clips for; a warning names the others.

    Args:
        shares: Task -> share of the batches.
        clips: The clips to build from.
        corpus: Name of the clips in messages.

    Returns:
        The shares of the kept tasks, scaled to sum to 1.

    Raises:
        InputError: If no task can be built.
    """
    can = buildable_tasks(clips)
    missing = [name for name, share in shares.items() if share > 0 and name not in can]
    if not missing:
        return dict(shares)
    kept = {name: share for name, share in shares.items() if share > 0 and name in can}
    if not kept:
        raise InputError(
            f"{corpus} has no clips for any of {', '.join(missing)}; add speech with its text, or "
            "sounds with labels."
        )
    warnings.warn(
        f"{corpus} has no clips for {', '.join(missing)}; these tasks are left out of the "
        "training.",
        stacklevel=2,
    )
    return {name: share / math.fsum(kept.values()) for name, share in kept.items()}


class CorpusInMemory:
    """Pools over a corpus that fits into memory.

    Args:
        clips: The clips.
        sample_rate: Sample rate of the clips in Hz.
        label_weights: Relative frequency of each sound label; None for equal frequencies.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        sample_rate: int,
        label_weights: Mapping[str, float] | None = None,
    ) -> None:
        self.clips, self.sample_rate, self.label_weights = clips, sample_rate, label_weights
        self.made: dict[int | None, MemoryPools] = {}
        self.skipped: Counter[str] = Counter()  # clips in memory have all been decoded

    def pools(self, max_words: int | None) -> MemoryPools:
        """As in `PoolSource`."""
        if max_words not in self.made:
            self.made[max_words] = MemoryPools(
                self.clips, self.sample_rate, max_words, self.label_weights
            )
        return self.made[max_words]

    def state_dict(self) -> None:
        """Nothing: each batch draws from all clips, by its own generator."""

    def load_state_dict(self, states: Sequence[Any], /) -> None:
        """Does nothing, as in `state_dict`."""

    def close(self) -> None:
        """Does nothing: there are no worker processes."""


class BatchStream(IterableDataset[EncodedBatch]):
    """One process' batches of a run in order, made by any number of worker processes.

    A step has `batches_per_step` batches; process r of w makes the batches r, r + w, ... Every
    batch has its own generator. Only the task sampler is sequential: each worker draws the tasks
    of all batches, also of those that it does not make.

    Args:
        variant: The variant to train.
        recipe: How it is trained.
        source: Source of the clips.
        codec: The variant's codec.
        text_encoder: The variant's text encoder.
        device: Device on which batches are mixed and encoded.
        rank: Number of this process.
        world: Number of processes.

    Raises:
        InputError: If the processes do not divide the batches of a step.
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
                "choose a multiple of the processes."
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

    def __iter__(self) -> Iterator[EncodedBatch]:
        """Yields this process' batches from step `first` on."""
        worker = get_worker_info()
        index, count = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker:
            os.nice(5)  # on few cores the backbone's step would wait for its own batch makers
            # The setting is per process. Decaying filters and fades end in denormal numbers, which
            # the CPU handles many times slower than zeros.
            torch.set_flush_denormal(True)
        made = 0
        for step in range(self.first, self.recipe.steps):
            tasks = self.draw_tasks(step)
            for number in range(self.rank, len(tasks), self.world):
                if made % count == index:
                    yield self.make(step, number, tasks[number])
                made += 1

    def draw_tasks(self, step: int) -> list[str]:
        """Draws the tasks of all batches of a step, also of other processes."""
        return [self.sampler.draw(step) for _ in range(self.recipe.batches_per_step)]

    def make(self, step: int, number: int, task: str) -> EncodedBatch:
        """Builds and encodes batch `number` of a step.

        If the text encoder cannot read an instruction, such as a very long caption, the batch is
        built again from another seed.

        Raises:
            InputError: If `REDRAWS` attempts failed.
        """
        for attempt in range(REDRAWS):
            began = time.perf_counter()
            batch = self.build(step, task, number, attempt)
            self._wait()
            synthesis = time.perf_counter() - began
            try:
                seed = self._dither_seed(step, number)
                encoded = self.encode(batch, {"synthesis": synthesis}, seed=seed)
                return dataclasses.replace(encoded, redraws=attempt)
            except TextError as error:
                last = error
        raise InputError(
            f"{REDRAWS} batches of {task} in a row had an instruction that the text encoder cannot "
            f"read; filter the captions of the corpus ({last})."
        )

    def build(self, step: int, task: str, number: int = 0, attempt: int = 0) -> TaskBatch:
        """Builds a batch of waveforms; each attempt has another seed."""
        seed_step = step * self.recipe.batches_per_step + number
        generator = step_generator(self.recipe.seed + REDRAW_SEEDS * attempt, seed_step)
        phase = self.recipe.phase(step)
        choices = phase.seconds.get(task, phase.seconds.get("", (self.variant.max_seconds,)))
        seconds = choices[int(torch.randint(len(choices), (1,), generator=generator))]
        seconds = self.variant.sample_seconds or seconds
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

    def sample_batch(
        self, task: str, count: int, seconds: float, generator: torch.Generator
    ) -> TaskBatch:
        """Builds the items of a task that samples are made of.

        Args:
            task: A task of the recipe.
            count: Number of items.
            seconds: Their length.
            generator: A CPU generator.
        """
        return TASKS[task].build(
            self.source.pools(None),
            count,
            seconds,
            self.codec.sample_rate,
            generator,
            device=self.device,
            config=self.builder_config(),
        )

    def builder_config(self) -> BuilderConfig:
        """Settings of the task builders."""
        return BuilderConfig(
            hop=self.codec.hop,
            first_template_probability=self.recipe.first_template_probability,
            wording=self.variant.wording,
            noise_floor_dbfs=self.recipe.noise_floor_dbfs,
            edit_speech_probability=self.recipe.edit_speech_probability,
            absent_target_probability=self.recipe.absent_target_probability,
        )

    @torch.no_grad()
    def encode(
        self, batch: TaskBatch, seconds: dict[str, float] | None = None, *, seed: int = 0
    ) -> EncodedBatch:
        """Encodes waveforms to latents and instructions to hidden states.

        Args:
            batch: The waveforms and instructions.
            seconds: Time that other parts took.
            seed: Seed of the dither, where the variant has any.
        """
        began = time.perf_counter()
        source, target = training_waveforms(self.variant, batch, seed)
        z = self.codec.encode(target)
        given = condition(
            self.codec,
            TASKS[batch.task],
            z.shape[-1],
            z.shape[0],
            source,
            batch.reference_samples,
        )
        self._wait()
        encoded = time.perf_counter()
        text = self.text_encoder.encode(batch.instructions)
        self._wait()
        return EncodedBatch(
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

    def _dither_seed(self, step: int, number: int) -> int:
        """Seed of the first item of a batch; batches have fewer than 2^16 items."""
        return self.recipe.seed + ((step * self.recipe.batches_per_step + number) << 16)

    def _wait(self) -> None:
        """Waits for the GPU: kernels run asynchronously, so a time without it is of the launch."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

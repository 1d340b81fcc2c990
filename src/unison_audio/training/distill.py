"""Distilling a checkpoint: a student takes in one step what its guided teacher takes in several.

As progressive distillation does (Salimans and Ho 2022, arXiv 2202.00512), from the teacher's many
steps to the student's few at once, and with the guidance distilled too (Meng et al. 2023, arXiv
2210.03142): a student of N steps asks for N velocities in all, where its teacher of S steps asks
for 2 S. It is an ordinary checkpoint whose settings are those N steps without guidance.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from unison_audio.data.whole_corpus import read_corpus
from unison_audio.errors import InputError
from unison_audio.loading import LoadOptions, open_models
from unison_audio.model import flow
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.guidance import Guidance
from unison_audio.model.solvers import Solver
from unison_audio.nano import recipe as nano_recipe
from unison_audio.sampling_params import Pace, Sampling, sampling_for
from unison_audio.tasks.table import REFERENCE, TASKS
from unison_audio.training import recipes
from unison_audio.training.batches import CorpusInMemory, Example, ExampleStream, buildable_shares
from unison_audio.training.parallel import Parallel
from unison_audio.training.recipes import BackboneRecipe
from unison_audio.training.run import disk_type, save_weights
from unison_audio.training.trainer import BackboneTrainer, train_backbone
from unison_audio.training.validation import write_samples
from unison_audio.variants import Variant

SOLVER = "euler-even"
"""The student's: Euler with steps that are equally long."""


def student_of(variant: Variant, steps: int) -> Variant:
    """The variant of a student: its teacher's but for the settings of sampling.

    Args:
        variant: The teacher's.
        steps: Velocities that the student asks for in all.
    """
    return dataclasses.replace(
        variant,
        name=f"{variant.name}-{steps}-step",
        steps=steps,
        solver=SOLVER,
        fast_steps=steps,
        fast_solver=SOLVER,
        guidance_scale=1.0,
        edit_guidance_scale=1.0,
        removal_guidance_scale=1.0,
        removal_steps=steps,
        speech_candidates=1,
    )


class Teacher:
    """A guided model, followed for a stretch of time.

    Args:
        backbone: The model.
        sampling: How each task is guided.
        substeps: Euler steps of a stretch.
        hold_reference: Whether a reference's frames go straight to what they are known to be, as
            in sampling (`Variant.hold_reference`).
    """

    def __init__(
        self,
        backbone: UnisonBackbone,
        sampling: Sampling,
        substeps: int,
        *,
        hold_reference: bool = False,
    ) -> None:
        self.backbone = backbone.eval().requires_grad_(False)
        self.sampling, self.substeps = sampling, substeps
        self.hold_reference = hold_reference

    @torch.no_grad()
    def mean_velocity(self, z: Tensor, example: Example, start: float, end: float) -> Tensor:
        """By which velocity, were it constant, the teacher comes from one time to another.

        Args:
            z: Where it starts, (B, C, T').
            example: Source, tags and text of the batch.
            start: Flow time of z.
            end: A lower flow time.

        Returns:
            (B, C, T').
        """
        guidance = self.sampling.pace(TASKS[example.task]).guidance
        length = (start - end) / self.substeps
        given = example.condition
        held = (given.m == REFERENCE) & self.hold_reference  # (B, 1, T')
        straight = (z - given.z_s) / start  # (B, C, T'), to data at time 0
        now = z
        for k in range(self.substeps):
            v = self._velocity(now, example, start - k * length, guidance)
            now = now - length * torch.where(held, straight, v)
        return (z - now) / (start - end)

    def _velocity(self, z: Tensor, example: Example, t: float, guidance: Guidance) -> Tensor:
        v1 = velocity(self.backbone, z, example, t)
        if not guidance.at(t):
            return v1
        v0 = velocity(self.backbone, z, example, t, with_text=False)
        return guidance.combine(v1, v0, example.condition.loss_mask.bool())


def velocity(
    model: torch.nn.Module, z: Tensor, example: Example, t: float, *, with_text: bool = True
) -> Tensor:
    """A model's velocity at one time, (B, C, T').

    Args:
        model: The backbone, or what spreads it over processes.
        z: Where, (B, C, T').
        example: Source, tags and text of the batch.
        t: Flow time.
        with_text: Whether the text is given.
    """
    text, given = example.text, example.condition
    states, penultimate, mask = text.hidden_states, text.penultimate, text.mask
    if not with_text:  # one masked token is as good as many
        rows = torch.ones(len(z), dtype=torch.bool)
        states, mask = flow.remove_text(rows, states[:, :, :1], mask[:, :1])
        if penultimate is not None:
            penultimate, _ = flow.remove_text(rows, penultimate[:, :1], mask)
    x = torch.cat((z, given.z_s, given.m), dim=1)  # (B, 2C+1, T')
    return model(
        x,
        torch.full((len(z),), t, device=z.device),
        states.to(z.device) if states.shape[1] else None,
        mask.to(z.device),
        None if penultimate is None else penultimate.to(z.device),
    )


class DistillingTrainer(BackboneTrainer):
    """A student in training; begins as a copy of its teacher.

    Args:
        stream: Where the batches come from; its variant is the student's.
        teacher: What is learnt from.
        parallel: The processes of the run; one if None.
    """

    def __init__(
        self, stream: ExampleStream, teacher: Teacher, parallel: Parallel | None = None
    ) -> None:
        self.teacher = teacher

        def make() -> UnisonBackbone:
            backbone = UnisonBackbone(teacher.backbone.config)
            backbone.load_state_dict(teacher.backbone.state_dict())
            return backbone

        super().__init__(stream, parallel, make)
        solver = Solver(stream.variant.solver, stream.variant.steps)
        self.times: list[float] = [*solver.times.tolist(), 0.0]

    def loss(
        self,
        example: Example,
        generator: torch.Generator,
        text_dropout: float,
        t_mean: float = 0.0,
    ) -> Tensor:
        """The student's error in one of its steps, from noised data on.

        Args:
            example: The batch.
            generator: Of the noise and the step.
            text_dropout: Unused: a student knows no guidance, and so no absence of text.
            t_mean: Unused: the times are those of the student's steps.

        Returns:
            A scalar.
        """
        del text_dropout, t_mean
        z = example.z
        # What sampling comes through has less noise where it starts from less.
        temperature = self.teacher.sampling.pace(TASKS[example.task]).temperature
        noise = temperature * torch.randn(z.shape, generator=generator).to(z.device)
        step = int(torch.randint(len(self.times) - 1, (), generator=generator))
        start, end = self.times[step], self.times[step + 1]
        z_t = flow.add_noise(z, noise, torch.full((len(z),), start, device=z.device))
        aim = self.teacher.mean_velocity(z_t, example, start, end)
        v = velocity(self.model, z_t, example, start)
        return flow.flow_loss(v, torch.zeros_like(aim), aim, example.condition.loss_mask)

    def _write_samples(self, averaged: UnisonBackbone, folder: Path | None, step: int) -> None:
        variant = self.stream.variant
        pace = Pace(steps=variant.steps, guidance=Guidance(scale=1.0))
        write_samples(averaged, self.stream, folder, step, pace=pace, solver=variant.solver)


def distill(
    name_or_path: str,
    corpus: Path,
    run: Path,
    *,
    steps: int = 4,
    substeps: int = 4,
    updates: int = 2000,
    learning_rate: float = 2e-4,
    parallel: Parallel | None = None,
    workers: int = 0,
    dtype: str = "float32",
) -> Path:
    """Distills; the result, an ordinary checkpoint, is ``run/weights``.

    Args:
        name_or_path: The teacher: a variant's name, a checkpoint's folder, or the hub's.
        corpus: What ``unison-audio data`` wrote; its clips are held in memory.
        run: Folder of the run; one that was cut off is gone on with.
        steps: Velocities that the student asks for in all.
        substeps: Steps of the teacher in one of the student's.
        updates: Of the student's weights.
        learning_rate: The highest.
        parallel: The processes of the run; one if None.
        workers: Processes that make batches ahead.
        dtype: Type of the stored weights.

    Raises:
        InputError: If something cannot be used.
    """
    disk_type(dtype)
    for name, value in (("steps", steps), ("substeps", substeps), ("updates", updates)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1.")
    parallel = parallel or Parallel(cpu=True)
    parts = open_models(name_or_path, LoadOptions(device=parallel.device, low_memory=False))
    variant, codec = parts.variant, parts.codec.get()
    clips = read_corpus(corpus, variant.sample_rate, split="train")
    recipe = distillation_recipe(variant, codec.frames, updates, learning_rate, parallel.world)
    (phase,) = recipe.phases
    shares = buildable_shares(phase.probabilities, clips, corpus)
    phase = dataclasses.replace(phase, probabilities=shares)
    stream = ExampleStream(
        student_of(variant, steps),
        dataclasses.replace(recipe, phases=(phase,)),
        CorpusInMemory(clips, variant.sample_rate),
        codec,
        parallel.share(parts.text_encoder.get()),
        device=parallel.device,
        rank=parallel.rank,
        world=parallel.world,
    )
    teacher = Teacher(
        parts.backbone.get(),
        sampling_for(variant),
        substeps,
        hold_reference=variant.hold_reference,
    )
    student = train_backbone(DistillingTrainer(stream, teacher, parallel), run, workers)
    if parallel.main:
        save_weights(run / "weights", stream.variant, student, codec, dtype)
    parallel.wait()
    return run / "weights"


def distillation_recipe(
    variant: Variant,
    frames: Callable[[float], int],
    updates: int,
    learning_rate: float,
    processes: int = 1,
) -> BackboneRecipe:
    """Every task as in the last phase of the teacher's own training, at a rate that falls to zero.

    Args:
        variant: The teacher's.
        frames: Latent frames of so many seconds.
        updates: Of the student's weights.
        learning_rate: The highest.
        processes: Of the run; each makes one batch of a step.
    """
    own = nano_recipe.NANO if variant.codec == "nano" else recipes.base_recipe(variant, frames)
    return dataclasses.replace(
        own,
        phases=(own.phases[-1],),
        batches_per_step=processes,
        steps=updates,
        peak_lr=learning_rate,
        warmup=max(1, updates // 20),
        cooldown=max(1, updates // 2),
        ema_decay=0.98,
        ema_every=1,
        checkpoint_every=100,
        sample_every=updates + 1,
    )

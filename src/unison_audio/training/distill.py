"""Distilling a checkpoint: one step of the student replaces several guided steps of the teacher.

The method is progressive distillation (Salimans and Ho 2022, arXiv 2202.00512) in a single round,
with the guidance distilled too (Meng et al. 2023, arXiv 2210.03142). A student of N steps needs N
velocities; its teacher of S steps needs 2 S. The student is an ordinary checkpoint whose settings
are N steps without guidance.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from unison_audio.checkpoint_files import content_hash
from unison_audio.data.shards import read_corpus
from unison_audio.model import flow
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.guidance import Guidance
from unison_audio.model.solvers import Solver
from unison_audio.nano import recipe as nano_recipe
from unison_audio.sampling_params import ResolvedSampling, resolve_sampling
from unison_audio.tasks.table import REFERENCE, TASKS
from unison_audio.training import recipes
from unison_audio.training.batches import EncodedBatch, buildable_shares
from unison_audio.training.configs import DistillConfig
from unison_audio.training.objective import SampleConfig
from unison_audio.training.parallel import Parallel
from unison_audio.training.recipes import BackboneRecipe
from unison_audio.training.run import (
    ModelInit,
    RunConfig,
    RunData,
    RunOutput,
    open_for_training,
    run,
)
from unison_audio.training.run_settings import corpus_hash
from unison_audio.variants import Variant

SOLVER = "euler-even"
"""Solver of the student: Euler with steps of equal length."""


def student_of(variant: Variant, steps: int) -> Variant:
    """The student's variant: the teacher's with other sampling settings.

    Args:
        variant: The teacher's variant.
        steps: Sampling steps of the student.
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
    """A guided model that is integrated over an interval of time.

    Args:
        backbone: The model.
        sampling: The guidance of each task.
        substeps: Euler steps in an interval.
        hold_reference: Whether the frames of a reference go straight to their known latents, as
            in sampling (`Variant.hold_reference`).
    """

    def __init__(
        self,
        backbone: UnisonBackbone,
        sampling: ResolvedSampling,
        substeps: int,
        *,
        hold_reference: bool = False,
    ) -> None:
        self.backbone = backbone.eval().requires_grad_(False)
        self.sampling, self.substeps = sampling, substeps
        self.hold_reference = hold_reference

    @torch.no_grad()
    def mean_velocity(self, z: Tensor, batch: EncodedBatch, start: float, end: float) -> Tensor:
        """The constant velocity that leads where the teacher's steps lead.

        Args:
            z: Latents at the start, (B, C, T').
            batch: Source, tags and text.
            start: Flow time of z.
            end: A lower flow time.

        Returns:
            (B, C, T').
        """
        guidance = self.sampling.for_task(TASKS[batch.task]).guidance
        length = (start - end) / self.substeps
        given = batch.condition
        fixed = (given.m == REFERENCE) & self.hold_reference  # (B, 1, T')
        straight = (z - given.z_s) / start  # (B, C, T'), to data at time 0
        now = z
        for k in range(self.substeps):
            v = self._velocity(now, batch, start - k * length, guidance)
            now = now - length * torch.where(fixed, straight, v)
        return (z - now) / (start - end)

    def _velocity(self, z: Tensor, batch: EncodedBatch, t: float, guidance: Guidance) -> Tensor:
        v1 = velocity(self.backbone, z, batch, t)
        if not guidance.at(t):
            return v1
        v0 = velocity(self.backbone, z, batch, t, with_text=False)
        return guidance.combine(v1, v0, batch.condition.loss_mask.bool())


def velocity(
    model: torch.nn.Module, z: Tensor, batch: EncodedBatch, t: float, *, with_text: bool = True
) -> Tensor:
    """A model's velocity at one time, (B, C, T').

    Args:
        model: The backbone, or its wrapper over several processes.
        z: Latents, (B, C, T').
        batch: Source, tags and text.
        t: Flow time.
        with_text: Whether the model reads the text.
    """
    text, given = batch.text, batch.condition
    states, penultimate, mask = text.hidden_states, text.penultimate, text.mask
    if not with_text:  # all tokens are masked, so one is enough
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


class Distillation:
    """The objective of a student: the teacher's mean velocity over one of the student's steps.

    Args:
        teacher: The teacher.
        student: The student's variant.
    """

    def __init__(self, teacher: Teacher, student: Variant) -> None:
        self.teacher = teacher
        solver = Solver(student.solver, student.steps)
        self.times: list[float] = [*solver.times.tolist(), 0.0]

    def loss(
        self,
        model: nn.Module,
        batch: EncodedBatch,
        generator: torch.Generator,
        recipe: BackboneRecipe,
        step: int,
    ) -> Tensor:
        """As in `Objective`.

        The text is never dropped: a student has no guidance, so it is never asked without text.
        The flow times are those of its own steps.
        """
        z = batch.z
        # Sampling starts from noise of this strength, so training must see the same.
        temperature = self.teacher.sampling.for_task(TASKS[batch.task]).temperature
        noise = temperature * torch.randn(z.shape, generator=generator).to(z.device)
        number = int(torch.randint(len(self.times) - 1, (), generator=generator))
        start, end = self.times[number], self.times[number + 1]
        z_t = flow.add_noise(z, noise, torch.full((len(z),), start, device=z.device))
        target = self.teacher.mean_velocity(z_t, batch, start, end)
        v = velocity(model, z_t, batch, start)
        # flow_loss compares v with eps - z, so zeros for z make it compare with the target.
        return flow.flow_loss(v, torch.zeros_like(target), target, batch.condition.loss_mask)

    def sample_config(self, variant: Variant) -> SampleConfig:
        """The student's own settings."""
        return SampleConfig(
            steps=variant.steps, guidance=Guidance(scale=1.0), solver=variant.solver
        )


def distill(
    name_or_path: str,
    corpus: Path,
    output: RunOutput,
    *,
    config: DistillConfig | None = None,
    parallel: Parallel | None = None,
    workers: int = 0,
) -> Path:
    """Distills a checkpoint, or resumes the run; the result is an ordinary checkpoint.

    Args:
        name_or_path: The teacher: a variant's name, a checkpoint's folder, or `owner/name` on the
            hub.
        corpus: A prepared corpus; its clips are kept in memory.
        output: Where the run goes.
        config: How to distill; None for the defaults.
        parallel: The processes of the run; None for one process on the CPU.
        workers: Processes that make batches ahead.

    Returns:
        Folder of the resulting checkpoint.

    Raises:
        InputError: If something cannot be used.
    """
    config = config or DistillConfig()
    config.check()
    parallel = parallel or Parallel(cpu=True)
    opened, parts = open_for_training(name_or_path, parallel)
    variant, codec = parts.variant, parts.codec.get()
    clips = read_corpus(corpus, variant.sample_rate, split="train")
    recipe = distillation_recipe(variant, codec.frames, config, parallel.world)
    (phase,) = recipe.phases
    if all(clip.record.kind != "speech" for clip in clips):  # none to put behind the edits
        recipe = dataclasses.replace(recipe, edit_speech_probability=0.0)
    shares = buildable_shares(phase.probabilities, clips, corpus)
    phases = (dataclasses.replace(phase, probabilities=shares),)
    student = student_of(variant, config.steps)
    teacher = Teacher(
        parts.backbone.get(),
        resolve_sampling(variant),
        config.substeps,
        hold_reference=variant.hold_reference,
    )
    run(
        RunConfig(
            model=ModelInit(
                variant=student,
                codec=codec,
                text_encoder=parts.text_encoder.get(),
                start=parts.backbone.get,  # the student begins as a copy of its teacher
            ),
            data=RunData(clips=clips, workers=workers),
            recipe=dataclasses.replace(recipe, phases=phases),
            output=output,
            parallel=parallel,
            objective=Distillation(teacher, student),
            settings={
                "teacher": content_hash(opened.folder),
                "corpus": corpus_hash(corpus),
                "steps": config.steps,
                "substeps": config.substeps,
                "learning_rate": config.learning_rate,
            },
        )
    )
    return output.weights


def distillation_recipe(
    variant: Variant,
    frames: Callable[[float], int],
    config: DistillConfig,
    processes: int = 1,
) -> BackboneRecipe:
    """The last phase of the teacher's own recipe, with a learning rate that falls to zero.

    Args:
        variant: The teacher's variant.
        frames: Seconds -> latent frames.
        config: How to distill.
        processes: Number of processes; each makes one batch of a step.
    """
    own = nano_recipe.NANO if variant.codec == "nano" else recipes.base_recipe(variant, frames)
    return dataclasses.replace(
        own,
        phases=(own.phases[-1],),
        batches_per_step=processes,
        steps=config.updates,
        peak_lr=config.learning_rate,
        warmup=max(1, config.updates // 20),
        cooldown=max(1, config.updates // 2),
        ema_decay=0.98,
        ema_every=1,
        checkpoint_every=100,
        sample_every=config.updates + 1,
    )

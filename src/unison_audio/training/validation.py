"""Held-out loss during training, and samples to listen to."""

from collections.abc import Sequence
from pathlib import Path

import torch

from unison_audio.audio import save
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.sampling import ModelInputs, sample
from unison_audio.tasks.table import REFERENCE
from unison_audio.training.batches import BatchStream, EncodedBatch, PoolSource
from unison_audio.training.checkpoints import step_generator
from unison_audio.training.objective import SampleConfig, velocity_error

SAMPLES_PER_TASK = 2

SAMPLE_SECONDS = 0.75
"""Length of a sample, as a share of the variant's longest sound."""


class Validation:
    """Batches of held-out clips for each task, with fixed noise.

    The code that makes training batches makes these too. Clips, noise and flow times stay the
    same, so a change of the loss comes from the weights alone.

    Args:
        stream: The run's batches: how they are built and encoded.
        source: Source of the held-out clips.
        batches: Batches of each task.
        tasks: Names of the tasks; None for those of the recipe's last phase.
    """

    def __init__(
        self,
        stream: BatchStream,
        source: PoolSource,
        *,
        batches: int = 2,
        tasks: Sequence[str] | None = None,
    ) -> None:
        last = stream.recipe.phases[-1].probabilities
        names = [name for name, share in last.items() if share > 0] if tasks is None else tasks
        self.recipe = stream.recipe
        held_out = BatchStream(
            stream.variant,
            stream.recipe,
            source,
            stream.codec,
            stream.text_encoder,
            device=stream.device,
            world=1,
        )
        step = stream.recipe.steps  # the last phase's lengths and words
        self.batches: dict[str, list[EncodedBatch]] = {
            name: [
                held_out.encode(held_out.build(step + i, name), seed=step + i)
                for i in range(batches)
            ]
            for name in names
        }

    @torch.no_grad()
    def losses_by_batch(self, backbone: UnisonBackbone) -> dict[str, list[float]]:
        """The loss of each batch by task; text is never dropped."""
        return {
            name: [
                float(
                    velocity_error(
                        backbone, batch, step_generator(self.recipe.seed + 3, number), 0.0
                    )
                )
                for number, batch in enumerate(batches)
            ]
            for name, batches in self.batches.items()
        }

    def losses(self, backbone: UnisonBackbone) -> dict[str, float]:
        """Mean loss by task, and their mean as `mean`."""
        found = {
            name: sum(losses) / len(losses)
            for name, losses in self.losses_by_batch(backbone).items()
        }
        return {**found, "mean": sum(found.values()) / len(found)}


@torch.no_grad()
def write_samples(
    backbone: UnisonBackbone,
    stream: BatchStream,
    folder: Path | None,
    step: int,
    config: SampleConfig,
) -> None:
    """Writes one file for each task of the step's phase: a few samples in a row.

    Args:
        backbone: The backbone with averaged weights.
        stream: The run's batches: how they are built and encoded.
        folder: Folder to write to. None for processes that only encode: the text encoder may be
            sharded, and then every process must take part in encoding.
        step: Steps done.
        config: How to sample.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    generator = step_generator(stream.recipe.seed + 2, 0)
    rate = stream.codec.sample_rate
    for task in [name for name, p in stream.recipe.phase(step).probabilities.items() if p > 0]:
        least = stream.recipe.sample_seconds
        seconds = stream.variant.sample_seconds or max(
            SAMPLE_SECONDS * stream.variant.max_seconds, least.get(task, least.get("", 0.0))
        )
        batch = stream.sample_batch(task, SAMPLES_PER_TASK, seconds, generator)
        encoded = stream.encode(batch)
        if folder is None:
            continue
        text, given = encoded.text.to(stream.device), encoded.condition
        z = sample(
            backbone,
            ModelInputs(
                z_s=given.z_s,
                m=given.m,
                hidden_states=text.hidden_states if text.hidden_states.shape[1] else None,
                text_mask=text.mask,
                penultimate=text.penultimate,
            ),
            noise=torch.randn(encoded.z.shape, generator=generator).to(stream.device),
            steps=config.steps,
            solver=config.solver,
            guidance=config.guidance,
            fixed=(given.m == REFERENCE) & stream.variant.hold_reference,
        )
        waveform = stream.codec.decode(z).float().cpu().reshape(-1)
        waveform = waveform / max(1.0, float(waveform.abs().max()))
        save(folder / f"{step:08d}-{task}.wav", waveform, rate)
        (folder / f"{step:08d}-{task}.txt").write_text("\n".join(batch.instructions) + "\n")

"""Held-out batches whose loss is followed in training, and samples to listen to."""

from collections.abc import Sequence
from pathlib import Path

import torch

from unison_audio.audio import save
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.guidance import Guidance
from unison_audio.model.sampling import ModelInputs, sample
from unison_audio.sampling_params import GroupSettings
from unison_audio.tasks.table import REFERENCE, TASKS
from unison_audio.training.batches import Example, ExampleStream, PoolSource, velocity_error
from unison_audio.training.checkpoints import step_generator

SAMPLE_STEPS = 16

SAMPLE_GUIDANCE = 3.0

SAMPLE_SECONDS = 0.75
"""Share of the variant's longest sound."""


class Validation:
    """Batches of held-out clips, one or more a task, with noise that never changes.

    They are built, encoded and noised by the code that training uses.

    Args:
        stream: The run's batches, for how they are made.
        source: Where held-out clips come from.
        batches: Batches of each task.
        tasks: Which tasks; those of the recipe's last phase if None.
    """

    def __init__(
        self,
        stream: ExampleStream,
        source: PoolSource,
        *,
        batches: int = 2,
        tasks: Sequence[str] | None = None,
    ) -> None:
        last = stream.recipe.phases[-1].probabilities
        names = [name for name, share in last.items() if share > 0] if tasks is None else tasks
        self.recipe = stream.recipe
        held_out = ExampleStream(
            stream.variant,
            stream.recipe,
            source,
            stream.codec,
            stream.text_encoder,
            device=stream.device,
            world=1,
        )
        step = stream.recipe.steps  # the last phase's lengths and words
        self.examples: dict[str, list[Example]] = {
            name: [held_out.encode(held_out.build(step + i, name)) for i in range(batches)]
            for name in names
        }

    @torch.no_grad()
    def losses(self, backbone: UnisonBackbone) -> dict[str, float]:
        """Mean loss by task, and over all tasks as ``mean``; text is never dropped."""
        found = {}
        for name, examples in self.examples.items():
            total = 0.0
            for number, example in enumerate(examples):
                generator = step_generator(self.recipe.seed + 3, number)
                total += float(velocity_error(backbone, example, generator, 0.0))
            found[name] = total / len(examples)
        return {**found, "mean": sum(found.values()) / len(found)}


@torch.no_grad()
def write_samples(
    backbone: UnisonBackbone,
    stream: ExampleStream,
    folder: Path | None,
    step: int,
    *,
    settings: GroupSettings | None = None,
    count: int = 2,
) -> None:
    """Writes what averaged weights make of a few instructions, one task after the other.

    Args:
        backbone: With averaged weights.
        stream: The run's batches, for how they are made.
        folder: Where to write; None for processes that only take part in the encoding of texts,
            since the text encoder may be spread over all of them.
        step: Steps done.
        settings: Steps, solver and guidance; Euler with the usual steps and guidance if None.
        count: Sounds of each task.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    settings = settings or GroupSettings(
        steps=SAMPLE_STEPS, guidance=Guidance(scale=SAMPLE_GUIDANCE)
    )
    generator = step_generator(stream.recipe.seed + 2, 0)
    rate = stream.codec.sample_rate
    pools = stream.source.pools(None)
    for task in [name for name, p in stream.recipe.phase(step).probabilities.items() if p > 0]:
        batch = TASKS[task].build(
            pools,
            count,
            SAMPLE_SECONDS * stream.variant.max_seconds,
            rate,
            generator,
            device=stream.device,
            config=stream.builder_config(),
        )
        example = stream.encode(batch)
        if folder is None:
            continue
        text = example.text.to(stream.device)
        z = sample(
            backbone,
            ModelInputs(
                z_s=example.condition.z_s,
                m=example.condition.m,
                hidden_states=text.hidden_states if text.hidden_states.shape[1] else None,
                text_mask=text.mask,
                penultimate=text.penultimate,
            ),
            noise=torch.randn(example.z.shape, generator=generator).to(stream.device),
            steps=settings.steps,
            solver=settings.solver,
            guidance=settings.guidance,
            fixed=(example.condition.m == REFERENCE) & stream.variant.hold_reference,
        )
        waveform = stream.codec.decode(z).float().cpu().reshape(-1)
        waveform = waveform / max(1.0, float(waveform.abs().max()))
        save(folder / f"{step:08d}-{task}.wav", waveform, rate)
        (folder / f"{step:08d}-{task}.txt").write_text("\n".join(batch.instructions) + "\n")

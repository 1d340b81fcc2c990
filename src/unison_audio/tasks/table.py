"""The task table: group, tag, inputs, templates, probabilities, builder and metrics of every task.

Training, the command line, the input checks, the sampler and the evaluation read the rows. A new
task needs three things: a row here, a builder, and a template pool. `register_task` adds a task
from outside the package.

The rows follow the paper's Table 10. The last two are this project's reading of the paper's "other
editing variants" (Table 12).
"""

from __future__ import annotations

import dataclasses
import string
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, get_args

from unison_audio.errors import InputError
from unison_audio.tasks import templates as template_pools

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import Tensor

    from unison_audio.tasks.clips import Pools
    from unison_audio.tasks.draw import BuilderConfig, Built, Draw

# Values of the mask m (paper section 3.3). 0 marks frames to generate. m is one input channel, so
# the model reads these numbers as magnitudes; their order is the paper's and weights depend on it.
EDITING = 1
"""Tag of all frames of an edit."""

REFERENCE = 2
"""Tag of the reference's frames in zero-shot speech; the frames to generate keep 0."""

Group = Literal["speech", "sound", "mixed", "add", "add_speech", "remove"]
"""How a task is sampled. The first three groups generate: speech, sounds, or both together. The
others edit: `add` inserts a sound, `add_speech` inserts words, `remove` inserts nothing."""

GROUPS: tuple[Group, ...] = get_args(Group)

GENERATING_GROUPS: tuple[Group, ...] = ("speech", "sound", "mixed")
"""Groups without a recording to edit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskBatch:
    """Instructions and waveforms of one task."""

    task: str
    """Name of the task; every batch has one task only (paper section 3.7)."""

    instructions: list[str]
    """One instruction per item, with tags spelled `[Edit][Audio]`."""

    target: Tensor
    """(B, samples): the sound that the instruction asks for."""

    source: Tensor | None
    """(B, samples): the recording to edit, or zero-shot's reference followed by zeros."""

    reference_samples: Tensor | None
    """(B,) zero-shot: samples of the reference at the start of the target, whole latent frames."""

    details: list[dict]
    """Everything drawn per item: texts, labels, SNRs in dB, windows in seconds, gain."""

    leveled: bool = False
    """Whether the source is at the level of the weights' training already."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One row of the table."""

    name: str
    """Name of the task."""

    group: Group
    """Selects steps, guidance, candidates and source handling (`resolve_sampling`)."""

    tag: int
    """Value of m on the frames of the given audio: 0, `EDITING` or `REFERENCE`."""

    needs: tuple[str, ...]
    """Inputs besides the instruction: "source", or "reference" and "reference_text"."""

    stage1: bool
    """Whether the first training stage includes it."""

    stage2_probability: float
    """Its share of the batches in the second stage, relative to the other rows."""

    builder: str | Callable[[Draw], Built]
    """Makes its waveforms: a function, or the dotted name of one such as "package.module.function".
    The rows below use names, so that reading the table imports no torch."""

    source_rms: float = 0.1
    """Typical RMS of its training sources, to which a user's source is scaled."""

    metrics: tuple[str, ...]
    """Names of its metrics (paper section 4.2)."""

    removes: bool = True
    """Whether its sources contain something that its targets lack."""

    clears_speech: bool = False
    """Whether that is speech or the noise around it, rather than a sound."""

    sounds: int = 0
    """Sounds with different labels that its builder draws for an item."""

    utterances: int = 0
    """Utterances with known words that its builder draws for an item."""

    same_speaker: bool = False
    """Whether two of its utterances must have one speaker."""

    def __post_init__(self) -> None:
        """Validate the group and its agreement with the tag.

        Raises:
            InputError: The group is unknown, or only one of group and tag is that of an edit.
        """
        if self.group not in GROUPS:
            raise InputError(
                f"The task {self.name} has the group {self.group!r}; use one of "
                f"{', '.join(GROUPS)}."
            )
        if (self.tag == EDITING) == (self.group in GENERATING_GROUPS):
            raise InputError(
                f"The task {self.name} has the group {self.group!r} and the tag {self.tag}; "
                f"{', '.join(GENERATING_GROUPS)} generate, and the other groups need the tag "
                f"{EDITING}."
            )

    @property
    def adds(self) -> bool:
        """Whether its targets contain something that its sources lack."""
        return self.group != "remove"

    @property
    def templates(self) -> tuple[str, ...]:
        """Its instruction templates, the paper's first."""
        return template_pools.TEMPLATES[self.name]

    def load_builder(self) -> Callable[[Draw], Built]:
        """Return the function that `builder` is or names.

        Raises:
            InputError: The name cannot be imported.
        """
        if not isinstance(self.builder, str):
            return self.builder
        module, _, name = self.builder.rpartition(".")
        try:
            function: Callable[[Draw], Built] = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(
                f"The task {self.name} has the builder {self.builder!r}, which cannot be imported "
                f"({error}); give a function or a name such as 'package.module.function'."
            ) from error
        return function

    def build(
        self,
        pools: Pools,
        batch: int,
        seconds: float,
        sample_rate: int,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        config: BuilderConfig | None = None,
    ) -> TaskBatch:
        """Build a batch of this task (paper section 3.6).

        Args:
            pools: Raw clips at `sample_rate`.
            batch: Number of items.
            seconds: Length of the clips.
            sample_rate: Samples per second.
            generator: A CPU generator; equal states give equal batches.
            device: Device that mixes and holds the waveforms.
            config: Ranges to draw from; the defaults are those of training.
        """
        from unison_audio.tasks import draw as drawing

        config = config or drawing.BuilderConfig()
        draw = drawing.Draw(
            pools=pools,
            batch=batch,
            seconds=seconds,
            sample_rate=sample_rate,
            generator=generator,
            device=device,
            config=config,
        )
        # The order of these three draws from one generator is part of what a seed means.
        built = self.load_builder()(draw)
        if self.tag == EDITING and config.noise_floor_dbfs is not None:
            built = drawing.add_noise_floor(built, draw)
        pool = template_pools.pool_of(self.name, config.wording)
        chosen = template_pools.choose(pool, config.first_template_probability, batch, generator)
        return TaskBatch(
            task=self.name,
            instructions=[
                template_pools.render(template, fields)
                for template, fields in zip(chosen, built.fields, strict=True)
            ],
            target=built.target,
            source=built.source,
            reference_samples=built.reference_samples,
            details=built.details,
        )


def register_task(task: Task, templates: Sequence[str]) -> None:
    """Add a task to the table from outside the package.

    Instructions that match a template then select the task. Training recipes copy the table's
    shares when `training.recipes` is imported, so register a task before that. Worker processes
    that are started anew have to import the module that registers.

    Args:
        task: The row.
        templates: Its instruction templates; training uses the first one half of the time. All
            need the same placeholders, which the builder's fields replace.

    Raises:
        InputError: The name is taken, or the templates are missing or do not agree.
    """
    if task.name in TASKS:
        raise InputError(f"A task named {task.name!r} exists already; choose another name.")
    pool = (templates,) if isinstance(templates, str) else tuple(templates)
    placeholders = {
        frozenset(name.lower() for _, name, _, _ in string.Formatter().parse(template) if name)
        for template in pool
    }
    if len(placeholders) != 1 or not all(template.startswith("[") for template in pool):
        raise InputError(
            f"The task {task.name} has the templates {list(pool)}; give at least one, each "
            "beginning with a tag such as [Audio], and all with the same placeholders."
        )
    TASKS[task.name] = task
    template_pools.TEMPLATES[task.name] = pool


def _generation(
    name: str, group: Group, probability: float, metrics: tuple[str, ...], **row: Any
) -> Task:
    """Fill in what all generation tasks share; `row` has the other fields."""
    return Task(
        name=name,
        group=group,
        tag=0,
        needs=(),
        stage1=True,
        stage2_probability=probability,
        builder=f"unison_audio.tasks.generation.{name}",
        metrics=metrics,
        **row,
    )


def _edit(
    name: str, group: Group, probability: float, metrics: tuple[str, ...], **row: Any
) -> Task:
    """Fill in what all editing tasks share; `row` has the other fields."""
    return Task(
        name=name,
        group=group,
        tag=EDITING,
        needs=("source",),
        stage1=False,
        stage2_probability=probability,
        builder=f"unison_audio.tasks.editing.{name}",
        metrics=metrics,
        **row,
    )


_SOUND = ("fad", "fd", "kl", "is", "clap")

_EDIT = ("fd", "lsd", "clap")

_SPOKEN = ("wer", "lsd", "clap")

_CLEARED = ("clap", "lsd", "removal")

# In scenes the speech has RMS 0.1 and the background lies 5 to 15 dB below it. A source without
# speech thus has about 0.032 (-10 dB). With an event of -3 to 3 dB over the background it has
# 0.045.
_BACKGROUND_RMS, _EVENT_SCENE_RMS = 0.032, 0.045

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        # Generation, 0.70 of stage 2; stage 1 trains these six rows alone (paper section 3.7).
        _generation("tts", "speech", 0.15, ("wer", "gender"), utterances=1),
        Task(
            name="zero_shot_tts",
            group="speech",
            tag=REFERENCE,
            needs=("reference", "reference_text"),
            stage1=True,
            stage2_probability=0.25,
            builder="unison_audio.tasks.generation.zero_shot_tts",
            metrics=("wer",),
            utterances=2,
            same_speaker=True,
        ),
        _generation("t2a", "sound", 0.10, _SOUND, sounds=1),
        _generation("t2a_mix", "sound", 0.08, _SOUND, sounds=3),
        _generation("t2as", "mixed", 0.08, ("wer", "clap", "lsd"), sounds=1, utterances=1),
        _generation("timed", "sound", 0.04, ("segment_clap", "clap"), sounds=3),
        # Editing, 0.30 of stage 2.
        _edit("edit_add", "add", 0.04, _EDIT, removes=False, sounds=2),
        _edit("edit_remove", "remove", 0.04, _EDIT, sounds=2),
        _edit("edit_replace", "add", 0.03, _EDIT, sounds=3),
        _edit(
            "speech_insert",
            "add_speech",
            0.04,
            _SPOKEN,
            source_rms=_BACKGROUND_RMS,
            removes=False,
            sounds=1,
            utterances=1,
        ),
        _edit(
            "speech_delete",
            "remove",
            0.03,
            _CLEARED,
            clears_speech=True,
            sounds=1,
            utterances=1,
        ),
        _edit(
            "speech_rewrite",
            "add_speech",
            0.04,
            _SPOKEN,
            clears_speech=True,
            sounds=1,
            utterances=2,
        ),
        _edit("denoise", "remove", 0.04, ("wer", "lsd"), clears_speech=True, utterances=1),
        _edit(
            "audio_to_speech",
            "add_speech",
            0.02,
            _SPOKEN,
            source_rms=_EVENT_SCENE_RMS,
            sounds=2,
            utterances=1,
        ),
        _edit(
            "speech_to_audio",
            "add",
            0.02,
            _CLEARED,
            clears_speech=True,
            sounds=2,
            utterances=1,
        ),
    )
}
"""Name -> row, in the order of the paper's Table 10."""

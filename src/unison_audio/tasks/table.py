"""The task table: group, tag, inputs, wordings, probabilities, builder and metrics of every task.

Everything that depends on the task is derived from it: the sampler, the command line, the checks
of the pipeline and the evaluation (paper Table 10; the last two rows are this project's reading of
the paper's "other editing variants").
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import TYPE_CHECKING, Literal, get_args

from unison_audio.errors import InputError
from unison_audio.tasks import templates

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from unison_audio.tasks.clips import Pools
    from unison_audio.tasks.draw import BuilderConfig, Built, Draw

EDITING = 1
"""The tag of edits."""

REFERENCE = 2
"""The tag of the frames of a voice's reference."""

Group = Literal["speech", "sound", "mixed", "add", "add_speech", "remove"]
"""How a task is sampled. The first three generate: speech alone, sounds alone, or both together.
The others edit: `add` puts in a sound, `add_speech` puts in words, `remove` puts in nothing."""

GROUPS: tuple[Group, ...] = get_args(Group)

GENERATING_GROUPS: tuple[Group, ...] = ("speech", "sound", "mixed")
"""The groups without a recording to edit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskBatch:
    """A batch of one task: instructions and waveforms."""

    task: str
    """Its name."""

    instructions: list[str]
    """One an item, tags spelled `[Edit][Audio]`."""

    target: Tensor
    """(B, samples): what the instruction asks for."""

    source: Tensor | None
    """(B, samples): the recording to edit, or zero-shot's reference and zeros; None otherwise."""

    reference_samples: Tensor | None
    """(B,) zero-shot: samples of the reference at the head of the target, whole frames."""

    details: list[dict]
    """Per item what was drawn: texts, labels, SNRs in dB, windows in seconds, gain."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One row of the table."""

    name: str
    """The task's name."""

    group: Group
    """Selects steps, guidance, candidates and source handling (`resolve_sampling`)."""

    tag: int
    """What m holds on the frames of this task's given audio: 0 generation, 1 editing, 2 zero-shot
    (on the reference's frames; 0 on those to be made)."""

    needs: tuple[str, ...]
    """The inputs besides the instruction: "source", or "reference" and "reference_text"."""

    stage1: bool
    """Whether the first training stage has it."""

    stage2_probability: float
    """Its share of the batches of the second stage."""

    builder: str
    """Makes its waveforms: a function, named by its module in `unison_audio.tasks` and its own
    name, so that whoever reads the table alone imports no torch."""

    source_rms: float = 0.1
    """The typical RMS of its training sources, to which a user's source is brought."""

    metrics: tuple[str, ...]
    """What it is judged by (paper §4.2)."""

    removes: bool = True
    """Whether its sources hold something that its targets lack."""

    clears_speech: bool = False
    """Whether that is speech, or noise around it, in place of a sound."""

    def __post_init__(self) -> None:
        """Check that the group and the tag agree.

        Raises:
            InputError: The group is unknown, or edits while the tag does not, or the reverse.
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
        """Whether its targets hold something that its sources lack."""
        return self.group != "remove"

    @property
    def templates(self) -> tuple[str, ...]:
        """Its wordings, the paper's first."""
        return templates.TEMPLATES[self.name]

    def load_builder(self) -> Callable[[Draw], Built]:
        """The function that `builder` names."""
        module, name = self.builder.split(".")
        function: Callable[[Draw], Built] = getattr(
            import_module(f"unison_audio.tasks.{module}"), name
        )
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
        """Make a batch of this task (paper §3.6).

        Args:
            pools: Raw clips at `sample_rate`.
            batch: Items.
            seconds: Length of the clips.
            sample_rate: Samples per second.
            generator: A CPU generator; the same state gives the same batch.
            device: Where the waveforms are mixed and returned.
            config: The ranges to draw from; the defaults are those of training.
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
        built = self.load_builder()(draw)
        if self.tag == EDITING and config.floor_dbfs is not None:
            built = drawing.with_floor(built, draw)
        wordings = templates.choose(
            self.templates, config.first_template_probability, batch, generator
        )
        return TaskBatch(
            task=self.name,
            instructions=[
                templates.render(wording, fields)
                for wording, fields in zip(wordings, built.fields, strict=True)
            ],
            target=built.target,
            source=built.source,
            reference_samples=built.reference_samples,
            details=built.details,
        )


def _generation(
    name: str,
    group: Group,
    probability: float,
    builder: str,
    metrics: tuple[str, ...],
) -> Task:
    return Task(
        name=name,
        group=group,
        tag=0,
        needs=(),
        stage1=True,
        stage2_probability=probability,
        builder=builder,
        metrics=metrics,
    )


def _edit(
    name: str,
    group: Group,
    probability: float,
    builder: str,
    metrics: tuple[str, ...],
    source_rms: float = 0.1,
    removes: bool = True,
    clears_speech: bool = False,
) -> Task:
    return Task(
        name=name,
        group=group,
        tag=EDITING,
        needs=("source",),
        stage1=False,
        stage2_probability=probability,
        builder=builder,
        metrics=metrics,
        source_rms=source_rms,
        removes=removes,
        clears_speech=clears_speech,
    )


_SOUND = ("fad", "fd", "kl", "is", "clap")

_EDIT = ("fd", "lsd", "clap")

_SPOKEN = ("wer", "lsd", "clap")

# Beside speech of RMS 0.1 a background is 10 dB lower; with an event in it, about 7 dB.
_BACKGROUND_RMS, _EVENT_SCENE_RMS = 0.032, 0.045

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _generation("tts", "speech", 0.15, "generation.tts", ("wer", "gender")),
        Task(
            name="zero_shot_tts",
            group="speech",
            tag=REFERENCE,
            needs=("reference", "reference_text"),
            stage1=True,
            stage2_probability=0.25,
            builder="generation.zero_shot_tts",
            metrics=("wer",),
        ),
        _generation("t2a", "sound", 0.10, "generation.t2a", _SOUND),
        _generation("t2a_mix", "sound", 0.08, "generation.t2a_mix", _SOUND),
        _generation("t2as", "mixed", 0.08, "generation.t2as", ("wer", "clap", "lsd")),
        _generation("timed", "sound", 0.04, "generation.timed", ("segment_clap", "clap")),
        _edit("edit_add", "add", 0.04, "editing.edit_add", _EDIT, removes=False),
        _edit("edit_remove", "remove", 0.04, "editing.edit_remove", _EDIT),
        _edit("edit_replace", "add", 0.03, "editing.edit_replace", _EDIT),
        _edit(
            "speech_insert",
            "add_speech",
            0.04,
            "editing.speech_insert",
            _SPOKEN,
            _BACKGROUND_RMS,
            removes=False,
        ),
        _edit(
            "speech_delete",
            "remove",
            0.03,
            "editing.speech_delete",
            ("clap", "lsd", "removal"),
            clears_speech=True,
        ),
        _edit(
            "speech_rewrite",
            "add_speech",
            0.04,
            "editing.speech_rewrite",
            _SPOKEN,
            clears_speech=True,
        ),
        _edit("denoise", "remove", 0.04, "editing.denoise", ("wer", "lsd"), clears_speech=True),
        _edit(
            "audio_to_speech",
            "add_speech",
            0.02,
            "editing.audio_to_speech",
            _SPOKEN,
            _EVENT_SCENE_RMS,
        ),
        _edit(
            "speech_to_audio",
            "add",
            0.02,
            "editing.speech_to_audio",
            ("clap", "lsd", "removal"),
            clears_speech=True,
        ),
    )
}
"""Name -> row, in the order of the paper's Table 10."""

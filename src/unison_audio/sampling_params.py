"""How a run is sampled: a variant's presets, and what a user asks for instead."""

from dataclasses import dataclass
from typing import TypedDict

from unison_audio.errors import InputError
from unison_audio.model.guidance import Guidance, is_number
from unison_audio.model.solvers import SOLVERS
from unison_audio.tasks.table import GENERATING_GROUPS, Group, Task
from unison_audio.variants import Variant

MAX_STEPS = 1000

MAX_CANDIDATES = 64

PRESETS = ("default", "fast")


class SamplingOptions(TypedDict, total=False):
    """What a user may ask for; None, or nothing, is what the preset has."""

    preset: str | None
    """One of `PRESETS`; "fast" takes as few steps as lose nothing that can be measured."""
    steps: int | None
    """Steps of the solver."""
    solver: str | None
    """A name out of `SOLVERS`."""
    guidance_scale: float | None
    """Strength of the guidance (paper section 3.5)."""
    guidance_interval: tuple[float, float] | None
    """Times t, from and to, between which there is guidance."""
    guidance_rescale: float | None
    """How far, from 0 to 1, the deviation of the guided velocity is brought back."""
    temperature: float | None
    """Deviation of the noise that sampling starts from; see `Pace.temperature`."""
    candidates: int | None
    """How many sounds are drawn, of which the one is kept that the model finds to fit best
    (`model.rerank`)."""
    keep_source: bool | None
    """Whether every edit is done to the recording itself (`preserve.keep_source`), or none."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How many steps are taken, and how strongly the text leads."""

    steps: int
    """Steps of the solver."""
    guidance: Guidance
    """How velocities with and without text are put together."""
    temperature: float = 1.0
    """Deviation of the noise that sampling starts from: 1 is what training saw; with less, sounds
    are likelier and less varied."""
    candidates: int = 1
    """How many are drawn of each sound."""

    def __post_init__(self) -> None:
        """Refuse what cannot be sampled with."""
        if not is_number(self.temperature) or not 0 <= self.temperature <= 2:
            raise InputError(
                f"The temperature is {self.temperature!r}; give a number from 0 to 2 (1 is the "
                "noise of training)."
            )
        for name, most in (("steps", MAX_STEPS), ("candidates", MAX_CANDIDATES)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise InputError(f"{name} is {value!r}; give a whole number from 1 to {most}.")

    @property
    def passes(self) -> int:
        """Steps, and passes of comparing the candidates if there is more than one."""
        if self.candidates == 1:
            return self.steps
        from unison_audio.model.rerank import PASSES

        return self.steps + PASSES


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of one run, complete and checked."""

    solver: str
    """A name out of `SOLVERS`."""
    generation: Pace
    """Of tasks without a source to edit."""
    speech: Pace
    """Of those that only speak."""
    addition: Pace
    """Of edits that add something."""
    removal: Pace
    """Of edits that only take something away."""
    keep_source: bool
    """Whether an edit is done to the recording itself, unless it puts in words."""
    keep_source_of_words: bool
    """Whether one that puts in words is. Words are clearer in what the codec decodes, where the
    model has made room for them."""

    def __post_init__(self) -> None:
        """Refuse what cannot be sampled with."""
        if not isinstance(self.solver, str) or self.solver not in SOLVERS:
            raise InputError(
                f"There is no solver {self.solver!r}; use one of {', '.join(SOLVERS)}."
            )
        if not isinstance(self.keep_source, bool):
            raise InputError(f"keep_source is {self.keep_source!r}; give true or false.")

    def pace(self, task: Task) -> Pace:
        """The pace of a task's group."""
        paces: dict[Group, Pace] = {
            "speech": self.speech,
            "sound": self.generation,
            "mixed": self.generation,
            "add": self.addition,
            "add_speech": self.addition,
            "remove": self.removal,
        }
        return paces[task.group]

    def keeps(self, task: Task) -> bool:
        """Whether a task's result is made of its source."""
        if task.group in GENERATING_GROUPS:
            return False
        return self.keep_source_of_words if task.group == "add_speech" else self.keep_source


def sampling_for(
    variant: Variant,
    *,
    preset: str | None = None,
    steps: int | None = None,
    solver: str | None = None,
    guidance_scale: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    guidance_rescale: float | None = None,
    temperature: float | None = None,
    candidates: int | None = None,
    keep_source: bool | None = None,
) -> Sampling:
    """Fill in what was not asked for from a variant's preset.

    Args:
        variant: What will run.
        preset: One of `PRESETS`; the default one if None.
        steps: As in `SamplingOptions`, and so the others.
        solver: Likewise.
        guidance_scale: Likewise.
        guidance_interval: Likewise.
        guidance_rescale: Likewise.
        temperature: Likewise.
        candidates: Likewise.
        keep_source: Likewise.

    Returns:
        The settings.

    Raises:
        InputError: If one is unknown or out of its range.
    """
    if preset not in (None, *PRESETS):
        raise InputError(f"There is no preset {preset!r}; use one of {', '.join(PRESETS)}.")
    fast = preset == "fast"
    preset_steps = variant.fast_steps if fast else variant.steps
    preset_solver = variant.fast_solver if fast else variant.solver

    def pace(
        own_steps: int, own_scale: float, own_temperature: float = 1.0, own_candidates: int = 1
    ) -> Pace:
        return Pace(
            steps=own_steps if steps is None else steps,
            guidance=Guidance(
                scale=own_scale if guidance_scale is None else guidance_scale,
                interval=(0.0, 1.0) if guidance_interval is None else guidance_interval,
                rescale=0.0 if guidance_rescale is None else guidance_rescale,
            ),
            temperature=own_temperature if temperature is None else temperature,
            candidates=own_candidates if candidates is None else candidates,
        )

    return Sampling(
        solver=preset_solver if solver is None else solver,
        generation=pace(preset_steps, variant.guidance_scale),
        speech=pace(
            preset_steps,
            variant.guidance_scale,
            variant.speech_temperature,
            1 if fast else variant.speech_candidates,
        ),
        addition=pace(preset_steps, variant.edit_guidance_scale),
        removal=pace(min(preset_steps, variant.removal_steps), variant.removal_guidance_scale),
        keep_source=variant.keep_source if keep_source is None else keep_source,
        keep_source_of_words=False if keep_source is None else keep_source,
    )

"""`SamplingParams`: the sampling options that the command line, jobs files and Python share.

Each option is written once, as a field of the dataclass: its name, type, help and range. A field
that is None takes its value from the variant's preset, see `resolve_sampling`.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from unison_audio.errors import InputError
from unison_audio.model.guidance import Guidance
from unison_audio.model.solvers import require_solver
from unison_audio.tasks.table import GENERATING_GROUPS, GROUPS, Group, Task
from unison_audio.values import as_real, as_whole, shown
from unison_audio.variants import MAX_CANDIDATES, MAX_STEPS, Variant

MAX_WORK = 8000
"""Most steps of all candidates of one sound: 500 steps of 16, or 125 of 64."""

Preset = Literal["default", "fast"]

PRESETS: tuple[Preset, ...] = get_args(Preset)

RENAMED = {
    "candidates": "num_candidates",
    "guidance": "guidance_scale",
    "keep_source": "preserve_source",
}
"""Names before 0.2 -> names now. All entries accept the old ones, with a warning, until 0.3."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Sampling options of a request; None keeps the value of the variant's preset."""

    preset: Preset | None = None
    """default, or fast: the fewest steps with no measurable loss."""
    steps: int | None = None
    """Sampling steps, 1 to 1000."""
    solver: str | None = None
    """euler (the paper's), heun, unipc, dpm++, or euler-even for distilled models."""
    guidance_scale: float | None = None
    """Strength of classifier-free guidance, 0 to 100; higher values follow the instruction more
    closely, and 1 turns guidance off."""
    guidance_interval: tuple[float, float] | None = None
    """Flow times with guidance, from and to, where 1 is noise and 0 is data."""
    guidance_rescale: float | None = None
    """Share, 0 to 1, of the gain in loudness by guidance that is taken back."""
    temperature: float | None = None
    """Standard deviation of the initial noise, 0 to 2; lower values give safer, less varied
    sounds."""
    num_candidates: int | None = None
    """Candidates to sample, 1 to 64; the one with the lowest denoising error is kept."""
    preserve_source: bool | None = None
    """Apply an edit to the recording itself, so that all that is not edited stays as it is. By
    default nano does so where no words are added, and other variants never do."""
    clean_text: bool | None = None
    """Speak numbers, money, dates, units and abbreviations as words, and leave out Markdown and
    emoji. By default nano does so, and other variants do not."""
    strict: bool | None = None
    """Refuse an instruction outside the variant's domain; by default it gets a warning."""

    def __new__(cls, *values: Any, **options: Any) -> "SamplingParams":
        """Refuse what no field takes in one sentence, as all other mistakes are.

        Raises:
            InputError: If a value has no name, or a name is unknown.
        """
        known = cls.__dataclass_fields__
        unknown = [*map(shown, values), *(name for name in options if name not in known)]
        if unknown:
            raise InputError(
                f"Unknown sampling option {', '.join(unknown)}; the options are "
                f"{', '.join(known)}, each given by name."
            )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Check the range of every option that is given, and turn numpy's numbers into Python's."""
        if self.preset is not None and self.preset not in PRESETS:
            raise InputError(
                f"There is no preset {self.preset!r}; use one of {', '.join(PRESETS)}."
            )
        self._set("steps", _count("steps", self.steps, MAX_STEPS))
        self._set("num_candidates", _count("num_candidates", self.num_candidates, MAX_CANDIDATES))
        if self.solver is not None:
            require_solver(self.solver)
        if self.temperature is not None:
            temperature = as_real(self.temperature)
            if temperature is None or not 0 <= temperature <= 2:
                raise InputError(
                    f"The temperature is {self.temperature!r}; give a number from 0 to 2 (1 is "
                    "the noise of training)."
                )
            self._set("temperature", temperature)
        for name in ("preserve_source", "clean_text", "strict"):
            if not isinstance(getattr(self, name), bool | None):
                raise InputError(f"{name} is {shown(getattr(self, name))}; give true or false.")
        guidance = self.guidance(1.0)
        if self.guidance_scale is not None:
            self._set("guidance_scale", guidance.scale)
        if self.guidance_interval is not None:
            self._set("guidance_interval", guidance.interval)
        if self.guidance_rescale is not None:
            self._set("guidance_rescale", guidance.rescale)
        self._check_work()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_work(self) -> None:
        """Refuse steps and candidates that are in range alone and endless together."""
        work = (self.steps or 1) * (self.num_candidates or 1)
        if work > MAX_WORK:
            raise InputError(
                f"{self.steps} steps of {self.num_candidates} candidates are {work:,} steps, where "
                f"at most {MAX_WORK:,} are taken; ask for fewer of either."
            )

    def guidance(self, scale: float) -> Guidance:
        """Guidance with these options.

        Args:
            scale: The preset's guidance scale, used where the options have none.

        Raises:
            InputError: If an option is out of its range.
        """
        return Guidance(
            scale=scale if self.guidance_scale is None else self.guidance_scale,
            interval=(0.0, 1.0) if self.guidance_interval is None else self.guidance_interval,
            rescale=0.0 if self.guidance_rescale is None else self.guidance_rescale,
        )

    def given(self) -> dict[str, Any]:
        """The options that are not None."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


OPTIONS: tuple[str, ...] = tuple(field.name for field in fields(SamplingParams))
"""Names of the options."""


def merge_options(base: SamplingParams | None, options: Mapping[str, Any]) -> SamplingParams:
    """Put options by name over sampling parameters.

    Args:
        base: The parameters to start from; None starts from the preset's values.
        options: Name -> value. The names in `RENAMED` are accepted with a warning.

    Returns:
        The merged parameters.

    Raises:
        InputError: If a name is unknown or a value out of its range.
    """
    values = rename_options(options)
    unknown = [name for name in values if name not in OPTIONS]
    if unknown:
        raise InputError(
            f"Unknown sampling option {', '.join(unknown)}; the options are {', '.join(OPTIONS)}."
        )
    if not isinstance(base, SamplingParams | None):
        raise InputError(f"sampling is {shown(base)}; give a SamplingParams, or options by name.")
    return replace(base or SamplingParams(), **values)


def rename_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Replace old names of options by the names now, with a warning for each.

    Raises:
        InputError: If an option is given under both names.
    """
    for old, current in RENAMED.items():
        if old in options and current in options:
            raise InputError(f"{old} is the old name of {current}; give only {current}.")
    for old in sorted(options.keys() & RENAMED.keys()):
        warn_renamed(old, RENAMED[old])
    return {RENAMED.get(name, name): value for name, value in options.items()}


def warn_renamed(old: str, new: str) -> None:
    """Warn once that an option has a new name."""
    warnings.warn(
        f"{old} is now called {new}; the old name will stop working in version 0.3.",
        FutureWarning,
        stacklevel=2,
    )


def cleans_text(variant: Variant, params: SamplingParams | None) -> bool:
    """Whether the words to be spoken are cleaned."""
    asked = None if params is None else params.clean_text
    return variant.clean_text if asked is None else asked


@dataclass(frozen=True, kw_only=True)
class GroupSettings:
    """How the tasks of one group are sampled, with every value set."""

    steps: int
    """Sampling steps."""
    guidance: Guidance
    """Classifier-free guidance."""
    solver: str = "euler"
    """A name out of `SOLVERS`."""
    temperature: float = 1.0
    """Standard deviation of the initial noise; 1 is that of training."""
    num_candidates: int = 1
    """Candidates sampled for each sound."""
    preserve_source: bool = False
    """Whether an edit is applied to the recording itself (`preserve.preserve_source`)."""

    def __post_init__(self) -> None:
        """Check the ranges, which are those of `SamplingParams`."""
        SamplingParams(
            steps=self.steps,
            solver=self.solver,
            temperature=self.temperature,
            num_candidates=self.num_candidates,
            preserve_source=self.preserve_source,
        )

    @property
    def progress_steps(self) -> int:
        """Model evaluations that progress counts: the steps, and those that rank candidates."""
        if self.num_candidates == 1:
            return self.steps
        from unison_audio.model.rerank import EVALUATIONS

        return self.steps + EVALUATIONS


@dataclass(frozen=True, kw_only=True)
class ResolvedSampling:
    """A variant's settings of every task group, with the options of a request applied."""

    by_group: Mapping[Group, GroupSettings]
    """Group -> settings."""

    def for_task(self, task: Task) -> GroupSettings:
        """The settings of a task's group."""
        return self.by_group[task.group]


def resolve_sampling(variant: Variant, params: SamplingParams | None = None) -> ResolvedSampling:
    """Fill in what a request leaves open from a variant's preset.

    Args:
        variant: The variant that will run.
        params: The request's options; None takes the default preset.

    Returns:
        The settings of every task group.
    """
    params = params or SamplingParams()
    fast = params.preset == "fast"
    preset_steps = variant.fast_steps if fast else variant.steps
    preset_solver = variant.fast_solver if fast else variant.solver

    def settings(group: Group) -> GroupSettings:
        steps, scale, temperature, candidates = preset_steps, variant.guidance_scale, 1.0, 1
        if group == "speech":
            temperature = variant.speech_temperature
            candidates = 1 if fast else variant.speech_candidates
        elif group == "remove":
            steps = min(steps, variant.removal_steps)
            scale = variant.removal_guidance_scale
        elif group not in GENERATING_GROUPS:
            scale = variant.edit_guidance_scale
        # Added words are clearer in the decoded result, where the model has made room for them,
        # than over the recording itself.
        preserve = variant.keep_source and group != "add_speech"
        if params.preserve_source is not None:
            preserve = params.preserve_source
        return GroupSettings(
            steps=steps if params.steps is None else params.steps,
            guidance=params.guidance(scale),
            solver=preset_solver if params.solver is None else params.solver,
            temperature=temperature if params.temperature is None else params.temperature,
            num_candidates=(candidates if params.num_candidates is None else params.num_candidates),
            preserve_source=preserve and group not in GENERATING_GROUPS,
        )

    return ResolvedSampling(by_group={group: settings(group) for group in GROUPS})


def _count(name: str, value: object, most: int) -> int | None:
    """An option as a whole number from 1 on, or None where it is not given."""
    if value is None:
        return None
    number = as_whole(value)
    if number is None or not 1 <= number <= most:
        raise InputError(f"{name} is {shown(value)}; give a whole number from 1 to {most}.")
    return number

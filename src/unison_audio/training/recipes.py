"""How the variants are trained: one recipe each."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from unison_audio.errors import InputError
from unison_audio.tasks.curriculum import STAGE1_STEPS, default_stages
from unison_audio.tasks.table import EDITING, TASKS
from unison_audio.training.checkpoints import learning_rate
from unison_audio.variants import Variant


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of training: its tasks, clip lengths and text lengths."""

    until_step: int | None
    """First step after the phase; None for the last phase."""
    probabilities: Mapping[str, float]
    """Probability of each task."""
    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Clip lengths by task, drawn with equal probability; the key `""` is for all other tasks."""
    max_words: int | None = None
    """Longest text in words; None for no limit."""
    t_mean: float = 0.0
    """Mean of logit(t). Above 0, training sees more of the noisy end, where words are decided."""
    t_mean_edits: float = 0.0
    """Mean of logit(t) for edits. There the noisy end decides how closely the source is kept."""

    def t_mean_of(self, task: str) -> float:
        """Mean of logit(t) for a task."""
        return self.t_mean_edits if TASKS[task].tag == EDITING else self.t_mean


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The part of a recipe that the loop of every run reads."""

    steps: int
    """Training steps."""
    batches_per_step: int = 1
    """Batches of a step over all processes, each with its own task. Fewer processes accumulate the
    gradients of several batches."""
    seed: int = 0
    """Seed of everything random."""
    checkpoint_every: int = 200
    """Steps between two checkpoints."""
    keep_checkpoints: int = 2
    """Number of checkpoints to keep."""
    validate_every: int = 1000
    """Steps between two validations, if there are held-out clips."""
    sample_every: int = 1000
    """Steps between two sets of samples on disk."""

    def lr(self, step: int) -> float:
        """Learning rate of a step."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class BackboneRecipe(Schedule):
    """How a backbone is trained (paper Table 13 for the full size)."""

    phases: tuple[Phase, ...]
    """The curriculum."""
    frames_per_batch: int
    """Latent frames in a batch; the number of items follows from their length."""
    peak_lr: float = 1e-4
    """Peak learning rate."""
    warmup: int = 2000
    """Warm-up steps."""
    cooldown: int | None = None
    """Steps of a linear decay to zero at the end, after a constant rate; None for a cosine."""
    weight_decay: float = 0.01
    """Weight decay of matrices; biases and norms have none."""
    clip_norm: float = 1.0
    """Largest norm of the gradients."""
    ema_decay: float = 0.999
    """Decay of the moving average of the weights."""
    ema_every: int = 10
    """Steps between two updates of the average."""
    text_dropout: float = 0.1
    """Probability of training an item without its text."""
    sample_seconds: Mapping[str, float] = field(default_factory=dict)
    """Least length of samples by task, where clips need room; the key `""` is for all others."""
    first_template_probability: float = 0.5
    """Probability of the paper's own template."""
    noise_floor_dbfs: tuple[float, float] | None = None
    """Range of the noise floor of edits in dBFS; None for no noise."""
    edit_speech_probability: float = 0.0
    """Probability of speech in the base of an edit of sounds; the paper has none."""
    absent_target_probability: float = 0.0
    """Probability that the sound to remove or replace is not in the source; 0 in the paper."""
    speed: tuple[float, float] | None = None
    """Slowest and fastest playback speed of sounds and of anonymous voices: an augmentation for
    small corpora (`data.pools.VariedPools`). None plays them at their own speed."""
    mixed_precision: str = "no"
    """Type of the matrix products, "no" or "bf16"; weights and sums stay in float32."""
    gradient_checkpointing: bool = False
    """Whether blocks are recomputed in the backward pass instead of stored."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        for name in ("frames_per_batch", "batches_per_step", "steps", "warmup", "ema_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.mixed_precision not in ("no", "bf16"):
            raise InputError(f"mixed_precision is {self.mixed_precision!r}; use 'no' or 'bf16'.")

    def phase(self, step: int) -> Phase:
        """The phase a step belongs to."""
        for phase in self.phases:
            if phase.until_step is None or step < phase.until_step:
                return phase
        return self.phases[-1]

    def lr(self, step: int) -> float:
        """Learning rate of a step."""
        if self.cooldown is None:
            return learning_rate(step, peak=self.peak_lr, warmup=self.warmup, total=self.steps)
        rising = min(1.0, (step + 1) / self.warmup)
        falling = min(1.0, max(0.0, (self.steps - step) / self.cooldown))
        return self.peak_lr * rising * falling


STAGE1, STAGE2 = (stage.probabilities for stage in default_stages())

PAPER_ITEMS = 56
"""Clips in a batch on one device (paper Table 13)."""


def base_recipe(variant: Variant, frames: Callable[[float], int]) -> BackboneRecipe:
    """The paper's base model: clips of 10 s, 150,000 steps of generation, then every task.

    The paper does not state the total number of steps; 300,000 is this project's choice.

    Args:
        variant: The variant to train.
        frames: Seconds -> latent frames.
    """
    seconds = min(10.0, variant.max_seconds)
    return BackboneRecipe(
        phases=(
            Phase(until_step=STAGE1_STEPS, probabilities=STAGE1, seconds={"": (seconds,)}),
            Phase(until_step=None, probabilities=STAGE2, seconds={"": (seconds,)}),
        ),
        frames_per_batch=PAPER_ITEMS * frames(seconds),
        steps=2 * STAGE1_STEPS,
        mixed_precision="bf16",
        checkpoint_every=1000,
        sample_every=5000,
    )


def long_speech_recipe(variant: Variant, frames: Callable[[float], int]) -> BackboneRecipe:
    """The paper's fine-tune of a base model to 22 s, for long speech only.

    Steps, learning rate and batch size are this project's choice. A batch has as many latent
    frames as one of the base model.

    Args:
        variant: The variant to train.
        frames: Seconds -> latent frames.
    """
    spoken = {name: STAGE1[name] for name in ("tts", "zero_shot_tts")}
    total = sum(spoken.values())
    base = base_recipe(variant, frames)
    return dataclasses.replace(
        base,
        phases=(
            Phase(
                until_step=None,
                probabilities={name: share / total for name, share in spoken.items()},
                seconds={"": (variant.max_seconds,)},
            ),
        ),
        steps=20_000,
        peak_lr=5e-5,
        warmup=500,
    )


FULL_RECIPES: dict[str, Callable[[Variant, Callable[[float], int]], BackboneRecipe]] = {
    "base": base_recipe,
    "long-speech": long_speech_recipe,
}
"""Name -> recipe of the full-size variants."""

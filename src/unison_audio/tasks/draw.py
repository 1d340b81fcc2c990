"""The builders' input, output and shared steps: placing clips, repeating events, headroom.

Order of draws: every random number comes from one CPU generator, item by item. A step that draws
one number more or less changes all later batches of a seed.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unison_audio.data.records import Clip
from unison_audio.tasks import scene
from unison_audio.tasks.clips import ClipKind, ClipLimits, Pools
from unison_audio.tasks.scene import Layer


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuilderConfig:
    """Ranges that the builders draw from; evaluation fixes values by equal bounds."""

    rms: float = 0.1
    """RMS of a sound within its span (paper section 3.6)."""

    peak: float = 0.99
    """Largest magnitude; source and target are scaled alike where one of them exceeds it."""

    fade_seconds: float = 0.01
    """Length of the fade at every boundary."""

    # Levels in dB. Evaluation fixes 10 dB for speech in scenes and 0 dB for speech with sound, and
    # draws from -3 to 3 dB for events (paper section 4.2). Training covers ranges around these.
    event_snr_db: tuple[float, float] = (-3.0, 3.0)
    """Edits: level of the event over the base."""

    speech_snr_db: tuple[float, float] = (5.0, 15.0)
    """Speech in a scene: level of the speech over the background."""

    t2as_snr_db: tuple[float, float] = (-5.0, 5.0)
    """Speech with sound: level of the speech over the sound."""

    noise_snr_db: tuple[float, float] = (0.0, 15.0)
    """Denoising: level of the speech over the noise."""

    mix_snr_db: tuple[float, float] = (-3.0, 3.0)
    """Mixed sounds: level of each later event over the first."""

    mix_events: tuple[int, int] = (2, 3)
    """Mixed sounds: number of events."""

    timed_events: tuple[int, int] = (2, 3)
    """Timelines: number of events."""

    timed_overlap: float = 0.3
    """Timelines: probability that an event overlaps the one before."""

    min_window_seconds: float = 0.8
    """Timelines: shortest window, where the clip has room for it."""

    min_event_seconds: float = 1.0
    """Edits and mixed sounds: shorter events are repeated up to about this length."""

    short_seconds: float = 1.0
    """Shorter clips are repeated with pauses of up to half their length, as a dog barks or a bell
    rings; longer ones are repeated with cross-fades."""

    onset_seconds: tuple[float, float] = (0.0, 0.15)
    """Generation: onset of the speech, or of a lone sound."""

    reference_silence_seconds: float = 0.1
    """Zero-shot: shortest silence between reference and target."""

    noise_floor_dbfs: tuple[float, float] | None = None
    """Edits: RMS of the noise floor under source and target; None for digital silence."""

    noise_floor_probability: float = 0.6
    """Edits: probability that a batch has a noise floor."""

    edit_speech_probability: float = 0.0
    """Adding, removing and replacing sounds: probability that the base of an item has speech in it,
    which the edit keeps. The paper's bases are sounds alone."""

    absent_target_probability: float = 0.0
    """Removing and replacing sounds: probability that an item's source lacks the named sound, so
    that nothing is to change. In the paper's sources it is always there."""

    hop: int = 1024
    """Zero-shot: samples of a latent frame; the new speech begins at a frame boundary."""

    first_template_probability: float = 0.5
    """Probability of the first template; the others share the rest."""

    wording: str = "paper"
    """Whose templates are used: the paper's, or those of the released weights."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
    """The input of a builder: clips, sizes, randomness and ranges."""

    pools: Pools
    """Source of the raw clips."""

    batch: int
    """Number of items B."""

    seconds: float
    """Length of every clip."""

    sample_rate: int
    """Samples per second, of the pools too."""

    generator: torch.Generator
    """A CPU generator."""

    device: torch.device | str
    """Device that scales and mixes the waveforms."""

    config: BuilderConfig
    """Ranges to draw from."""

    def clips(
        self,
        kind: ClipKind,
        *,
        count: int | None = None,
        max_seconds: float | None = None,
        exclude_labels: Sequence[set[str]] = (),
    ) -> list[Clip]:
        """Draws clips: one an item (two for ``speaker_pair``) and as long as the scene at most."""
        where = ClipLimits(
            max_seconds=self.seconds if max_seconds is None else max_seconds,
            exclude_labels=exclude_labels,
        )
        return self.pools.draw(kind, self.batch if count is None else count, where, self.generator)

    @property
    def samples(self) -> int:
        """Samples of every clip."""
        return round(self.seconds * self.sample_rate)

    @property
    def fade(self) -> int:
        """Samples of a boundary's fade."""
        return round(self.config.fade_seconds * self.sample_rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Built:
    """The output of a builder: waveforms, and the fields of the instruction template."""

    target: Tensor
    """(B, samples): the sound that the instruction asks for."""

    source: Tensor | None = None
    """(B, samples) of an edit or of zero-shot speech; None for other generation."""

    reference_samples: Tensor | None = None
    """(B,) zero-shot: samples of the reference and its silence at the start of the target."""

    fields: list[dict[str, Any]]
    """Replacements of the template's placeholders, per item."""

    details: list[dict[str, Any]]
    """Everything drawn, per item."""


def finish(
    draw: Draw,
    fields: list[dict[str, Any]],
    details: list[dict[str, Any]],
    *,
    target: Tensor,
    source: Tensor | None = None,
    reference_samples: Tensor | None = None,
) -> Built:
    """Scale source and target below the peak and record the factor as "gain".

    Args:
        draw: The builder's input.
        fields: Replacements of the template's placeholders, per item.
        details: Everything drawn, per item.
        target: (B, samples).
        source: (B, samples), or None.
        reference_samples: (B,), or None.
    """
    # One factor for both: otherwise an edit would also have to change the level of all it keeps.
    waves = [target] if source is None else [target, source]
    gains, waves = scene.headroom(draw.config.peak, *waves)
    noted = [{**detail, "gain": float(gain)} for detail, gain in zip(details, gains, strict=True)]
    return Built(
        target=waves[0],
        source=waves[1] if source is not None else None,
        reference_samples=reference_samples,
        fields=fields,
        details=noted,
    )


def place_randomly(
    draw: Draw, clips: Sequence[Tensor], bounds: tuple[float, float] | None = None
) -> Layer:
    """Place one clip per item at a random time.

    Args:
        draw: The builder's input.
        clips: One clip per item, (samples_i,), no longer than the item.
        bounds: Earliest and latest onset in seconds, as far as the clip has room; None for any.

    Raises:
        ValueError: A clip is longer than the item.
    """
    starts = []
    for clip in clips:
        spare = draw.samples - clip.shape[0]
        if spare < 0:
            raise ValueError(
                f"a clip of {clip.shape[0]} samples was drawn for {draw.samples}; "
                "the pool must keep to max_seconds"
            )
        low, high = (0, spare)
        if bounds is not None:
            low, high = (min(spare, round(s * draw.sample_rate)) for s in bounds)
        starts.append(scene.integer(low, high, draw.generator))
    return scene.to_device(scene.layer(clips, starts, draw.samples, draw.fade), draw.device)


def fill(draw: Draw, clips: Sequence[Tensor]) -> Layer:
    """Cover each item with one sound, cropped at random or repeated."""
    filled = []
    for clip in clips:
        cut = scene.crop(clip, draw.samples, draw.generator)  # (at most samples,)
        filled.append(scene.repeat(cut, draw.samples, gap=pause(draw, cut), fade=draw.fade))
    zeros = [0] * len(filled)
    return scene.to_device(scene.layer(filled, zeros, draw.samples, draw.fade), draw.device)


def pause(draw: Draw, clip: Tensor) -> int:
    """Draw the pause between repetitions of a short clip, in samples; 0 for a longer one."""
    half = clip.shape[0] // 2
    # Drawn for longer clips too: the count of draws must not depend on the clip.
    gap = scene.integer(0, half, draw.generator)
    return gap if clip.shape[0] < draw.config.short_seconds * draw.sample_rate else 0


def events(draw: Draw, clips: Sequence[Tensor]) -> list[Tensor]:
    """Turn clips into events: crop those longer than an item and repeat very short ones."""
    # A bark of 0.2 s is six latent frames of 312: most of an edit's loss would lie elsewhere.
    least = min(draw.samples, round(draw.config.min_event_seconds * draw.sample_rate))
    repeated = []
    for clip in clips:
        cut = scene.crop(clip, draw.samples, draw.generator)
        gap = pause(draw, cut)
        # Whole repetitions: half a bark at the end would be a sound of another kind.
        repeated.append(scene.repeat(cut, least, gap=gap, fade=draw.fade, whole=True))
    return repeated


def add_noise_floor(built: Built, draw: Draw) -> Built:
    """Add a noise floor to a batch of edits, the same noise to an item's source and target.

    Built scenes are digitally silent between their sounds, recordings never are. The same noise on
    both sides teaches the model to keep it.

    Args:
        built: The builder's output.
        draw: The builder's input.

    Returns:
        The batch with a noise floor of one level per item, or the unchanged batch.
    """
    config, generator = draw.config, draw.generator
    if config.noise_floor_dbfs is None or built.source is None:
        return built
    if float(torch.rand((), generator=generator)) >= config.noise_floor_probability:
        return built
    low, high = config.noise_floor_dbfs
    # Uniform in dB: recordings range over orders of magnitude.
    level = low + (high - low) * torch.rand((len(built.target), 1), generator=generator)  # (B, 1)
    noise = 10 ** (level / 20) * torch.randn(built.target.shape, generator=generator)
    noise = noise.to(built.target.device)
    return dataclasses.replace(built, target=built.target + noise, source=built.source + noise)


def mix(layers: Sequence[Layer]) -> Tensor:
    """Mix layers to (B, samples)."""
    return torch.stack([sound.wave for sound in layers]).sum(dim=0)

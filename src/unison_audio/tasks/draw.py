"""What the builders share: drawing clips, laying them out, finishing an example."""

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
    """What the builders draw from; equal bounds fix a value, as evaluation does."""

    rms: float = 0.1
    """RMS of a sound where it sounds (paper §3.6)."""

    peak: float = 0.99
    """No source or target exceeds this; both are scaled alike where one would."""

    fade_seconds: float = 0.01
    """Fades at every boundary."""

    event_snr_db: tuple[float, float] = (-3.0, 3.0)
    """Edits: the event above the base."""

    speech_snr_db: tuple[float, float] = (5.0, 15.0)
    """Speech in a scene: the speech above the background."""

    t2as_snr_db: tuple[float, float] = (-5.0, 5.0)
    """Speech with sound: the speech above the sound."""

    noise_snr_db: tuple[float, float] = (0.0, 15.0)
    """Denoising: the speech above the noise."""

    mix_snr_db: tuple[float, float] = (-3.0, 3.0)
    """Mixed sounds: each later event above the first."""

    mix_events: tuple[int, int] = (2, 3)
    """Mixed sounds: how many."""

    timed_events: tuple[int, int] = (2, 3)
    """Timelines: how many events."""

    timed_overlap: float = 0.3
    """Timelines: probability that an event begins before the one before it ends."""

    min_window_seconds: float = 0.8
    """Timelines: the shortest window, where the clip is long enough for that."""

    min_event_seconds: float = 1.0
    """Edits and mixed sounds: a shorter event is repeated up to about this length."""

    short_seconds: float = 1.0
    """Clips shorter than this are repeated with pauses of up to half their length; longer ones
    with cross-fades."""

    onset_seconds: tuple[float, float] = (0.0, 0.15)
    """Generation: where speech, or a lone sound, begins."""

    reference_silence_seconds: float = 0.1
    """Zero-shot: least silence between reference and target."""

    floor_dbfs: tuple[float, float] | None = None
    """Edits: RMS of the noise under source and target, as under any recording; None for none."""

    floor_probability: float = 0.6
    """Edits: probability that a batch has such noise."""

    hop: int = 1024
    """Zero-shot: samples of a latent frame; the target begins on a frame's edge."""

    first_template_probability: float = 0.5
    """Probability of the paper's own wording; the others share the rest."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
    """What a builder builds from."""

    pools: Pools
    """The raw clips."""

    batch: int
    """Items."""

    seconds: float
    """Length of every clip."""

    sample_rate: int
    """The pools' and the clips' rate."""

    generator: torch.Generator
    """A CPU generator."""

    device: torch.device | str
    """Where the arithmetic is done."""

    config: BuilderConfig
    """The ranges."""

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
    """What a builder built, before its words are put into a template."""

    target: Tensor
    """(B, samples)."""

    source: Tensor | None = None
    """(B, samples) of an edit or of zero-shot; None in plain generation."""

    reference_samples: Tensor | None = None
    """(B,) zero-shot: samples of the reference, its silence included, at the target's head."""

    fields: list[dict[str, Any]]
    """Per item, what the template's placeholders stand for."""

    details: list[dict[str, Any]]
    """Per item, everything drawn."""


def finish(
    draw: Draw,
    fields: list[dict[str, Any]],
    details: list[dict[str, Any]],
    *,
    target: Tensor,
    source: Tensor | None = None,
    reference_samples: Tensor | None = None,
) -> Built:
    """Give source and target headroom and note the factor as "gain"."""
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


def lay(draw: Draw, clips: Sequence[Tensor], bounds: tuple[float, float] | None = None) -> Layer:
    """Lay one clip an item, beginning at random.

    Args:
        draw: The draw.
        clips: (samples_i,) each, no longer than the clip to fill.
        bounds: Seconds between which it begins, where room is left; None for anywhere.
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
    """Lay one sound an item over the whole clip: cropped at random, or repeated."""
    filled = []
    for clip in clips:
        cut = scene.crop(clip, draw.samples, draw.generator)
        filled.append(scene.repeat(cut, draw.samples, gap=pause(draw, cut), fade=draw.fade))
    zeros = [0] * len(filled)
    return scene.to_device(scene.layer(filled, zeros, draw.samples, draw.fade), draw.device)


def pause(draw: Draw, clip: Tensor) -> int:
    """Draw the pause between repetitions of a short clip; none for a longer one."""
    half = clip.shape[0] // 2
    gap = scene.integer(0, half, draw.generator)
    return gap if clip.shape[0] < draw.config.short_seconds * draw.sample_rate else 0


def events(draw: Draw, clips: Sequence[Tensor]) -> list[Tensor]:
    """Make clips into events: those longer than the clip are cropped, very short ones repeated."""
    least = min(draw.samples, round(draw.config.min_event_seconds * draw.sample_rate))
    made = []
    for clip in clips:
        cut = scene.crop(clip, draw.samples, draw.generator)
        gap = pause(draw, cut)
        made.append(scene.repeat(cut, least, gap=gap, fade=draw.fade, whole=True))
    return made


def with_floor(built: Built, draw: Draw) -> Built:
    """Lays noise under a batch of edits, the same under an item's source and target.

    Args:
        built: What was built.
        draw: Its draws; the configuration has a level.

    Returns:
        The batch with noise of levels of its own, or as it was.
    """
    config, generator = draw.config, draw.generator
    if config.floor_dbfs is None or built.source is None:
        return built
    if float(torch.rand((), generator=generator)) >= config.floor_probability:
        return built
    low, high = config.floor_dbfs
    level = low + (high - low) * torch.rand((len(built.target), 1), generator=generator)
    noise = 10 ** (level / 20) * torch.randn(built.target.shape, generator=generator)
    noise = noise.to(built.target.device)
    return dataclasses.replace(built, target=built.target + noise, source=built.source + noise)


def sum_of(layers: Sequence[Layer]) -> Tensor:
    """Mix layers: (B, samples)."""
    return torch.stack([sound.wave for sound in layers]).sum(dim=0)

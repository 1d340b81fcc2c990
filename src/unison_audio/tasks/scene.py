"""Composes scenes: crops, repeats and places clips, sets levels (paper section 3.6)."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from unison_audio import audio


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """One sound per item, placed in the item's duration; outside its span it is zero."""

    wave: Tensor
    """(B, samples)."""

    spans: Tensor
    """(B, 2): first sample of each item's sound, and one past the last."""

    def level(self) -> Tensor:
        """Return the RMS of each item within its span, (B,)."""
        # Over the span, not over the item: SNRs compare sounds while they sound. Over the item, a
        # short bark would be scaled up until it had the energy of ten seconds of rain.
        length = (self.spans[:, 1] - self.spans[:, 0]).clamp_min(1)
        return (self.wave.square().sum(dim=1) / length).sqrt()

    def at(self, level: float | Tensor) -> "Layer":
        """Scale to an RMS within the span, one for all items or (B,); silence is unchanged."""
        now = self.level()
        gain = torch.where(
            now > audio.SILENCE_RMS, level / now.clamp_min(audio.SILENCE_RMS), torch.ones_like(now)
        )
        return dataclasses.replace(self, wave=self.wave * gain[:, None])

    def above(self, ground: "Layer", snr_db: Tensor) -> "Layer":
        """Scale to a level of `snr_db` (B,) decibels over another layer."""
        ratio = 10.0 ** (snr_db.to(self.wave) / 20.0)
        return self.at(ground.level() * ratio)

    def seconds(self, sample_rate: int) -> list[tuple[float, float]]:
        """Return the spans in seconds."""
        return [(int(a) / sample_rate, int(b) / sample_rate) for a, b in self.spans]


def uniform(bounds: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    """Draw (count,) numbers between two bounds; equal bounds give exactly that number."""
    low, high = bounds
    return low + (high - low) * torch.rand(count, generator=generator)


def integer(low: int, high: int, generator: torch.Generator) -> int:
    """Draw an integer from low to high, both included; low if high is smaller."""
    return int(torch.randint(low, max(low, high) + 1, (), generator=generator))


def crop(clip: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Crop a clip at a random place that is not nearly silent.

    Args:
        clip: (samples,).
        length: Samples to keep; a clip no longer than that is returned unchanged.
        generator: Draws the place.

    Returns:
        (min(samples, length),). The loudest place is used where the drawn one has less than a
        quarter of the clip's mean energy.
    """
    spare = clip.shape[0] - length
    if spare <= 0:
        return clip
    start = integer(0, spare, generator)
    # A running sum gives the energy of every window in one pass; float64, since it takes
    # differences of sums over up to half a million samples.
    total = torch.nn.functional.pad(clip.double().square().cumsum(0), (1, 0))
    energy = total[length:] - total[:-length]  # (spare + 1,)
    if energy[start] < 0.25 * total[-1] * length / clip.shape[0]:
        start = int(energy.argmax())
    return clip[start : start + length]


def repeat(clip: Tensor, length: int, *, gap: int, fade: int, whole: bool = False) -> Tensor:
    """Repeat a clip until it lasts `length` samples.

    Args:
        clip: (samples,).
        length: Samples to reach; a longer clip is returned unchanged.
        gap: Samples of silence between repetitions, adjusted so that the last one ends at
            `length`. With 0 the repetitions are cross-faded and the last is cut.
        fade: Samples of a fade.
        whole: End with a whole repetition, at or before `length`.

    Returns:
        (length,), or at most that with `whole`.
    """
    size = clip.shape[0]
    if size >= length:
        return clip
    fade = min(fade, size // 4)
    period = size + gap if gap > 0 else max(1, size - fade)
    # Rounded down for whole repetitions; rounded up otherwise, and the last one is cut.
    count = 1 + (length - size) // period if whole else 1 + -(-(length - size) // period)
    last = (count - 1) * period
    if gap > 0 and not whole:
        count = min(count, length // size)
        if count < 2:  # no room for two whole ones
            return repeat(clip, length, gap=0, fade=fade)
        last = length - size
    starts = [round(k * last / max(1, count - 1)) for k in range(count)]
    out = clip.new_zeros(last + size)
    for k, start in enumerate(starts):
        one = audio.fade(clip, fade if k > 0 else 0, fade if k < count - 1 else 0)
        out[start : start + size] += one
    return out if whole else out[:length]


def place(clip: Tensor, total: int, start: int, fade: int) -> Tensor:
    """Place a clip with faded ends in silence: (samples,) -> (total,)."""
    out = clip.new_zeros(total)
    out[start : start + clip.shape[0]] = audio.fade(clip, fade, fade)
    return out


def layer(clips: Sequence[Tensor], starts: Sequence[int], total: int, fade: int) -> Layer:
    """Place one clip per item into `total` samples, each from its start."""
    spans = [(start, start + clip.shape[0]) for clip, start in zip(clips, starts, strict=True)]
    rows = [place(clip, total, start, fade) for clip, start in zip(clips, starts, strict=True)]
    return Layer(wave=torch.stack(rows), spans=torch.tensor(spans))  # (B, total), (B, 2)


def to_device(sound: Layer, device: torch.device | str) -> Layer:
    """Move a layer to a device."""
    return Layer(wave=sound.wave.to(device), spans=sound.spans.to(device))


def headroom(peak: float, *waves: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Scale several batches by one factor per item so that none exceeds `peak`.

    Args:
        peak: Largest magnitude.
        *waves: Each (B, samples).

    Returns:
        The factors (B,), at most 1, and the scaled batches.
    """
    highest = torch.stack([wave.abs().amax(dim=1) for wave in waves]).amax(dim=0)  # (B,)
    # Only ever downwards: a level that fits is what the SNRs were drawn for.
    gain = torch.where(highest > peak, peak / highest, torch.ones_like(highest))
    return gain, [wave * gain[:, None] for wave in waves]

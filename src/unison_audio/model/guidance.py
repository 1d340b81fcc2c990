"""Classifier-free guidance: the combination of the velocities with and without text.

torch is imported where it is used, so that a value out of range is refused without importing it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unison_audio.errors import InputError
from unison_audio.values import as_pair, as_real

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Classifier-free guidance (paper section 3.5)."""

    scale: float = 4.5
    """w of `v0 + w (v1 - v0)`; with 1 only v1 is evaluated, at half the work."""
    interval: tuple[float, float] = (0.0, 1.0)
    """Flow times t, from and to, with guidance (Kynkaanniemi et al. 2024)."""
    rescale: float = 0.0
    """Share, 0 to 1, by which the deviation is brought back to that of v1 (Lin et al. 2024)."""

    def __post_init__(self) -> None:
        """Validate the fields, and turn numpy's numbers into Python's."""
        scale, rescale = as_real(self.scale), as_real(self.rescale)
        if scale is None or not 0 <= scale <= 100:
            raise InputError(f"The guidance scale is {self.scale!r}; give a number from 0 to 100.")
        pair = as_pair(self.interval)
        low, high = (None, None) if pair is None else map(as_real, pair)
        if low is None or high is None or not 0 <= low <= high <= 1:
            raise InputError(
                f"guidance_interval is {self.interval!r}; give two times t, from and to, with "
                "0 <= from <= to <= 1 (1 is noise, 0 is data)."
            )
        if rescale is None or not 0 <= rescale <= 1:
            raise InputError(
                f"The guidance rescale is {self.rescale!r}; give a number from 0 to 1."
            )
        # Plain and hashable: settings group the items of a batch.
        for name, value in (("scale", scale), ("interval", (low, high)), ("rescale", rescale)):
            object.__setattr__(self, name, value)

    def at(self, t: float) -> bool:
        """Whether there is guidance at time t."""
        return self.scale != 1 and self.interval[0] <= t <= self.interval[1]

    def combine(self, v1: Tensor, v0: Tensor, counted: Tensor | None = None) -> Tensor:
        """Compute the guided velocity.

        Args:
            v1: Velocity with text, (B, C, T').
            v0: Velocity without text, (B, C, T').
            counted: (B, 1, T') booleans, True on frames that count; None counts all frames.

        Returns:
            (B, C, T').
        """
        import torch

        v = torch.lerp(v0, v1, self.scale)
        if not self.rescale:
            return v
        # Guidance raises the deviation of the velocity, and with it the loudness of the sound.
        ratio = _deviation(v1, counted) / _deviation(v, counted).clamp(min=1e-12)
        return v * torch.lerp(torch.ones_like(ratio), ratio, self.rescale)


def _deviation(v: Tensor, counted: Tensor | None) -> Tensor:
    """Standard deviation of each row over the frames that count, (B, 1, 1)."""
    import torch

    weight = torch.ones_like(v) if counted is None else counted.to(v.dtype).expand_as(v)
    total = weight.sum(dim=(1, 2), keepdim=True)
    mean = (v * weight).sum(dim=(1, 2), keepdim=True) / total
    return ((v - mean).square() * weight).sum(dim=(1, 2), keepdim=True).div(total).sqrt()

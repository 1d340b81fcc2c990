"""A gap in a sound and what is known around it, at the model's rate."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Surroundings:
    """A sound with a gap that is to be filled."""

    waveform: Tensor
    """(samples,) mono at the variant's rate, as long as the result. What it holds in the gap is
    not read."""
    start: int
    """First sample of the gap."""
    stop: int
    """The sample after the gap's last."""

    def known(self) -> Tensor:
        """The samples around the gap, (samples outside,)."""
        return torch.cat([self.waveform[: self.start], self.waveform[self.stop :]])

    def mirrored(self) -> Tensor:
        """The sound with the gap filled by what is around it, played backward, (samples,).

        A codec's frames beside the gap read a little of it. Of silence there they would tell that
        the sound ends, and sampling would end it.
        """
        left, right = self.waveform[: self.start], self.waveform[self.stop :]
        length = self.stop - self.start
        filled = self.waveform.clone()
        if len(left) and len(right):
            # Equal power: the two sides are not alike, so that their powers add up.
            turn = torch.linspace(0, torch.pi / 2, length)
            after = mirror(right.flip(0), length).flip(0)
            filled[self.start : self.stop] = mirror(left, length) * turn.cos() + after * turn.sin()
        elif len(left):
            filled[self.start : self.stop] = mirror(left, length)
        elif len(right):
            filled[self.start : self.stop] = mirror(right.flip(0), length).flip(0)
        return filled


def mirror(sound: Tensor, length: int) -> Tensor:
    """Samples that go on after a sound: the sound backward, then forward again, and so on.

    Args:
        sound: (samples,), at least one.
        length: Samples to make.
    """
    period = torch.cat([sound.flip(0), sound])
    return period.repeat(-(-length // len(period)))[:length]

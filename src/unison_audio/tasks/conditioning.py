"""From a task's waveforms to what the backbone reads: z_s, m and M_loss (paper section 3.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unison_audio.codecs.table import AudioCodec
from unison_audio.tasks.table import Task


@dataclass(frozen=True, kw_only=True)
class Condition:
    """The audio side of a batch's condition."""

    z_s: Tensor
    """(B, C, T') latent of the source or of the reference, zero where nothing is given."""
    m: Tensor
    """(B, 1, T') task tag of each frame."""
    loss_mask: Tensor
    """(B, 1, T') M_loss: 1 on frames to be made, 0 on those of a reference."""

    def to(self, device: torch.device | str) -> "Condition":
        """The same on another device."""
        return Condition(
            z_s=self.z_s.to(device), m=self.m.to(device), loss_mask=self.loss_mask.to(device)
        )


def condition(
    codec: AudioCodec,
    task: Task,
    frames: int,
    batch: int,
    source: Tensor | None = None,
    reference_samples: Tensor | None = None,
) -> Condition:
    """Encodes what is given and tags the frames; training and inference both call this.

    Args:
        codec: The variant's codec.
        task: The batch's task.
        frames: Latent frames T'.
        batch: Items B.
        source: (B, samples) recordings to edit, or references followed by zeros.
        reference_samples: (B,) samples of the reference, a multiple of the codec's hop.

    Returns:
        z_s, m and the loss mask.
    """
    device = source.device if source is not None else torch.device("cpu")
    m = torch.zeros(batch, 1, frames, device=device)
    keep = torch.ones_like(m)
    if source is None:
        z_s = torch.zeros(batch, codec.channels, frames, device=device)
        return Condition(z_s=z_s, m=m, loss_mask=keep)
    z_s = codec.encode(source)  # (B, C, T')
    if reference_samples is None:
        return Condition(z_s=z_s, m=m + task.tag, loss_mask=keep)
    edges = (reference_samples // codec.hop).to(device)
    given = (torch.arange(frames, device=device)[None] < edges[:, None])[:, None]  # (B, 1, T')
    return Condition(z_s=z_s * given, m=m + task.tag * given, loss_mask=keep * ~given)

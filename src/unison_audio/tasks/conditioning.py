"""The backbone's audio inputs from a task's waveforms: z_s, m and M_loss (paper section 3.3).

| task | z_s | m | M_loss |
|---|---|---|---|
| generation | zeros | 0 | 1 |
| editing | codec(source) | 1 | 1 |
| zero-shot, reference | codec(reference) | 2 | 0 |
| zero-shot, new speech | zeros | 0 | 1 |
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unison_audio.codecs.table import AudioCodec
from unison_audio.model.voice_target import VoiceTarget
from unison_audio.tasks.table import Task

SILENCE_FRAMES = 16
"""Frames of silence whose mean latent tells frames without speech apart."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Audio inputs of a batch."""

    z_s: Tensor
    """(B, C, T') latent of the source or of the reference, zeros elsewhere."""
    m: Tensor
    """(B, 1, T') task tag of each frame: 0, 1 or 2."""
    loss_mask: Tensor
    """(B, 1, T') M_loss: 1 on frames to generate, 0 on those of a reference."""
    known: Tensor | None = None
    """(B, C, T') latents around a gap, to which their frames are fixed; NaN on all others. None
    without a gap."""
    voice: VoiceTarget | None = None
    """Voices to speak in; None leaves them to the noise."""

    def to(self, device: torch.device | str) -> "Condition":
        """Move the tensors to a device."""
        return Condition(
            z_s=self.z_s.to(device),
            m=self.m.to(device),
            loss_mask=self.loss_mask.to(device),
            known=None if self.known is None else self.known.to(device),
            voice=None if self.voice is None else self.voice.to(device),
        )


def condition(
    codec: AudioCodec,
    task: Task,
    frames: int,
    batch: int,
    source: Tensor | None = None,
    reference_samples: Tensor | None = None,
) -> Condition:
    """Encodes the given audio and tags the frames, for training and inference alike.

    Args:
        codec: The variant's codec.
        task: The batch's task.
        frames: Latent frames T'.
        batch: Number of items B.
        source: (B, samples) recordings to edit, or references followed by zeros.
        reference_samples: (B,) samples of the reference, whole latent frames.

    Returns:
        z_s, m and the loss mask.
    """
    device = source.device if source is not None else torch.device("cpu")
    m = torch.zeros(batch, 1, frames, device=device)
    loss_mask = torch.ones_like(m)
    if source is None:
        # Zeros in latent space, not the latent of silence, which a codec does not map to zero.
        z_s = torch.zeros(batch, codec.channels, frames, device=device)
        return Condition(z_s=z_s, m=m, loss_mask=loss_mask)
    z_s = codec.encode(source)  # (B, C, T')
    if reference_samples is None:
        return Condition(z_s=z_s, m=m + task.tag, loss_mask=loss_mask)
    # Zero-shot. The reference and the silence after it are encoded in one run of the codec, as the
    # target is, so that both latents agree on the reference's frames. Beyond them z_s is zeroed:
    # the codec spreads the reference into the frames after it, which would tell the model about
    # sound that the target does not have. M_loss leaves the reference's frames out, so that
    # gradients come from the frames to synthesize alone (paper equation 3).
    edges = (reference_samples // codec.hop).to(device)
    given = (torch.arange(frames, device=device)[None] < edges[:, None])[:, None]  # (B, 1, T')
    return Condition(z_s=z_s * given, m=m + task.tag * given, loss_mask=loss_mask * ~given)


def condition_gap(codec: AudioCodec, around: Tensor, frames: tuple[int, int]) -> Condition:
    """Encodes what is around a gap, whose frames alone are sampled.

    The backbone reads what it reads when nothing is given: z_s and m are zeros.

    Args:
        codec: The variant's codec.
        around: (1, samples), with something plausible in the gap: the codec's neighboring frames
            read it too.
        frames: First frame of the gap, and the one after its last.

    Returns:
        z_s, m, the loss mask, and the latents of the known frames.
    """
    z = codec.encode(around)  # (1, C, T')
    positions = torch.arange(z.shape[-1], device=z.device)
    gap = ((positions >= frames[0]) & (positions < frames[1]))[None, None]  # (1, 1, T')
    return Condition(
        z_s=torch.zeros_like(z),
        m=torch.zeros_like(z[:, :1]),
        loss_mask=gap.to(z.dtype),
        known=z.masked_fill(gap, torch.nan),
    )


def voice_target(codec: AudioCodec, speech: Tensor) -> VoiceTarget:
    """The voice of an utterance, for other speech that is to have it.

    Args:
        codec: The variant's codec.
        speech: (samples,) the utterance, without silence around it.
    """
    silence = codec.encode(speech.new_zeros(1, SILENCE_FRAMES * codec.hop))
    return VoiceTarget.of_latents(codec.encode(speech[None]), silence)

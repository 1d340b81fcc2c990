"""Bringing the latents of a codec that was trained on back to those that a backbone knows.

While encoder and decoder are trained together, latents wander: partly to say more, partly only to
say the same in other coordinates. The latter is undone here by the affine map that fits best. It
is put into the encoder's last layer and its inverse into the decoder's first, so that nothing is
heard of it.
"""

import torch
from torch import Tensor, nn

from unison_audio.errors import InputError
from unison_audio.frozen.nano_codec import NanoCodec


@torch.no_grad()
def align_latents(codec: NanoCodec, reference: NanoCodec, waveforms: Tensor) -> None:
    """Changes a codec in place so that its latents are as near to another's as they can be.

    What it makes of a waveform stays as it is, up to rounding and, in a clip's first and last
    frame, to what a convolution sees beyond the edge.

    Args:
        codec: The codec that changes; it takes over the reference's latent statistics.
        reference: A codec with latents of as many channels.
        waveforms: What the map is fitted on, (B, samples), of more latent frames in all than
            there are channels.

    Raises:
        InputError: If the waveforms are too few or too alike to tell the map.
    """
    channels = codec.channels
    ours = _means(codec, reference, waveforms).double().transpose(1, 2).reshape(-1, channels)
    theirs = reference.encode(waveforms).double().transpose(1, 2).reshape(-1, channels)
    inputs = torch.cat((ours, torch.ones_like(ours[:, :1])), dim=1)
    solved = torch.linalg.lstsq(inputs, theirs, driver="gelsd")
    if int(solved.rank) <= channels or torch.linalg.cond(solved.solution[:channels]) > 1e6:
        raise InputError(
            f"Latents of {len(ours)} frames do not tell how the two codecs' {channels} channels "
            "belong together; give more waveforms, and of more kinds."
        )
    scale, centre = reference.latent_scale.double(), reference.latent_mean.double()
    # In the codec's own units: mean' = matrix mean + offset.
    matrix = scale * solved.solution[:channels].T / scale.T
    offset = scale * solved.solution[channels:].T + centre - matrix @ centre  # (C, 1)
    inverse = torch.linalg.inv(matrix)

    out_weight, out_bias = _parameters(codec.encoder.net[-1])
    weight, bias = out_weight.double(), out_bias.double()
    variance = torch.cat([codec.encoder(part)[1] for part in waveforms.split(32)]).double()
    variance = variance.exp().mean(dim=(0, 2))  # (C,)
    mixed = torch.einsum("ij,jck->ick", matrix, weight[:channels])
    out_weight.copy_(torch.cat((mixed, weight[channels:])))
    # The mixed noise of several channels is taken for noise of each by itself.
    spread = ((matrix.square() @ variance) / variance).log()
    out_bias.copy_(torch.cat((matrix @ bias[:channels] + offset[:, 0], bias[channels:] + spread)))

    in_weight, in_bias = _parameters(codec.decoder.net[0])
    weight = torch.einsum("ojk,jc->ock", in_weight.double(), inverse)
    in_bias.copy_(in_bias.double() - weight.sum(dim=2) @ offset[:, 0])
    in_weight.copy_(weight)
    codec.latent_mean.copy_(reference.latent_mean)
    codec.latent_scale.copy_(reference.latent_scale)


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution."""
    return layer.get_parameter("weight"), layer.get_parameter("bias")


def _means(codec: NanoCodec, reference: NanoCodec, waveforms: Tensor) -> Tensor:
    """Latents of a codec in the scale of another, (B, C, T')."""
    means = torch.cat([codec.encoder(part)[0] for part in waveforms.split(32)])
    return (means - reference.latent_mean) / reference.latent_scale

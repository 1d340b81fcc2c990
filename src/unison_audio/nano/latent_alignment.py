"""Fits one codec's latents to another's, so that a backbone keeps working with the new codec."""

import torch
from torch import Tensor, nn

from unison_audio.codecs.nano import NanoCodec
from unison_audio.errors import InputError


@torch.no_grad()
def align_latents(codec: NanoCodec, reference: NanoCodec, waveforms: Tensor) -> None:
    """Changes a codec in place so that its latents come as close as possible to another's.

    An affine map of the latents is fitted by least squares. The encoder's last layer applies it
    and the decoder's first layer inverts it, so the reconstruction stays the same. Exceptions are
    rounding and a clip's first and last frame, where the padding of the convolution differs.

    Args:
        codec: The codec to change; it also gets the reference's latent statistics.
        reference: A codec with the same number of latent channels.
        waveforms: Waveforms to fit the map on, (B, samples), with more latent frames in total
            than channels.

    Raises:
        InputError: If the waveforms are too few or too similar to fit the map.
    """
    channels = codec.channels
    inputs = _means(codec, reference, waveforms).double().transpose(1, 2).reshape(-1, channels)
    wanted = reference.encode(waveforms).double().transpose(1, 2).reshape(-1, channels)
    affine = torch.cat((inputs, torch.ones_like(inputs[:, :1])), dim=1)
    # gelsd also solves problems without full rank, and says so by the rank checked below.
    solved = torch.linalg.lstsq(affine, wanted, driver="gelsd")
    if int(solved.rank) <= channels or torch.linalg.cond(solved.solution[:channels]) > 1e6:
        raise InputError(
            f"Latents of {len(inputs)} frames do not determine the map between the {channels} "
            "channels of two codecs; give more waveforms, of more kinds."
        )
    scale, center = reference.latent_scale.double(), reference.latent_mean.double()
    # The fit is in the reference's scale; in the codec's own units: mean' = matrix mean + offset.
    matrix = scale * solved.solution[:channels].T / scale.T
    offset = scale * solved.solution[channels:].T + center - matrix @ center  # (C, 1)
    inverse = torch.linalg.inv(matrix)

    out_weight, out_bias = _parameters(codec.encoder.net[-1])
    weight, bias = out_weight.double(), out_bias.double()
    variance = torch.cat([codec.encoder(part)[1] for part in waveforms.split(32)]).double()
    variance = variance.exp().mean(dim=(0, 2))  # (C,)
    mixed = torch.einsum("ij,jck->ick", matrix, weight[:channels])
    out_weight.copy_(torch.cat((mixed, weight[channels:])))
    # The map correlates the posterior's noise over channels, but the codec has one variance for
    # each channel: keep the variances of the mixed channels and drop their correlation.
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

"""MMAudio's latents are half the encoder's mean: seen where they enter, not where they leave.

The decoder's first layer has no bias and is normalized, so a latent of another scale decodes to
nearly the same sound.
"""

import dataclasses
import math
from typing import Any

import pytest
import torch
from tiny_mmaudio import TINY, diffusers_modules, random_originals
from tiny_unison import StubEncoder, random_backbone, tiny_variant
from torch import Tensor, nn

from unison_audio.codecs.mmaudio import MMAudioCodec
from unison_audio.codecs.mmaudio_weights import import_originals
from unison_audio.pipeline import Unison

CONFIG = TINY["mmaudio-16k"]


@pytest.fixture(scope="module")
def codec_and_vae() -> tuple[MMAudioCodec, Any]:
    """A tiny codec, and diffusers' VAE with the same weights."""
    originals = random_originals(CONFIG)
    codec = MMAudioCodec(CONFIG)
    codec.load_state_dict(import_originals(codec, *originals))
    codec.requires_grad_(False)
    return codec, diffusers_modules(CONFIG, *originals)[0]


def mean_of(vae: Any, waveform: Tensor, channels: int) -> Tensor:
    """The encoder's mean by diffusers, (B, C, T')."""
    with torch.no_grad():
        mel = vae.mel_converter(waveform) / math.log(10)
        return vae.vae.encode(mel)[:, :channels]


def test_the_backbone_gets_half_the_mean(
    codec_and_vae: tuple[MMAudioCodec, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, vae = codec_and_vae
    variant = tiny_variant()
    channels = CONFIG.latent_channels
    variant = dataclasses.replace(
        variant,
        backbone=dataclasses.replace(variant.backbone, latent_channels=channels),
        sample_rate=CONFIG.sample_rate,
        hop=CONFIG.frame_hop,
    )
    encoded: list[Tensor] = []
    encode = codec.encode

    def recorded(waveform: Tensor) -> Tensor:
        encoded.append(waveform)
        return encode(waveform)

    monkeypatch.setattr(codec, "encode", recorded)
    entered: list[Tensor] = []
    backbone = random_backbone(variant)

    def enters(module: nn.Module, inputs: tuple[Tensor]) -> None:
        entered.append(inputs[0])  # (B, 2C+1, T'): z_t, z_s, m

    backbone.embed.register_forward_pre_hook(enters)
    unison = Unison(variant, backbone, codec, StubEncoder())
    source = 0.1 * torch.randn(CONFIG.sample_rate, generator=torch.Generator().manual_seed(0))
    unison.generate("Remove the rain.", task="edit_remove", source=(source, CONFIG.sample_rate))
    [heard] = encoded
    wanted = 0.5 * mean_of(vae, heard, channels)
    assert wanted.std() > 0.05
    for x in entered:
        frames = min(x.shape[-1], wanted.shape[-1])
        z_s = x[:1, channels : 2 * channels, :frames]
        torch.testing.assert_close(z_s, wanted[..., :frames], atol=1e-3, rtol=1e-3)
    factor = float((entered[0][:1, channels : 2 * channels, :frames] / wanted).median())
    assert factor == pytest.approx(1.0, abs=1e-3)


def test_a_decoder_cannot_tell(codec_and_vae: tuple[MMAudioCodec, Any]) -> None:
    """Why the test above looks at the encoder's side."""
    _, vae = codec_and_vae
    mean = torch.randn(1, CONFIG.latent_channels, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        right, forgotten = (vae.vae.decode(scale * mean) for scale in (1.0, 0.5))
    assert float((right - forgotten).abs().max()) < 0.02 * float(right.std())

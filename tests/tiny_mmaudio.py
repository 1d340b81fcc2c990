"""MMAudio's codecs small enough for tests, and the layout of the original files.

The layout is written down here from the original models' structure, not from the code under test.
"""

import dataclasses
import math

import torch
from diffusers import MMAudioVAE, MMAudioVocoder
from torch import Tensor

from unison_audio.codecs.mmaudio import CONFIGS, MMAudioConfig

TINY = {
    "mmaudio-16k": dataclasses.replace(
        CONFIGS["mmaudio-16k"],
        n_fft=256,
        mel_hop=64,
        mels=8,
        latent_channels=4,
        width=8,
        vocoder_width=32,
        vocoder_rates=(4, 4, 2, 2),
        vocoder_kernels=(8, 8, 4, 4),
    ),
    "mmaudio-44k": dataclasses.replace(
        CONFIGS["mmaudio-44k"],
        n_fft=256,
        mel_hop=64,
        mels=12,
        latent_channels=6,
        width=8,
        vocoder_width=32,
        vocoder_rates=(8, 4, 2),
        vocoder_kernels=(16, 8, 4),
    ),
}


def vae_layout(config: MMAudioConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of v1-16.pth or v1-44.pth."""
    one, two, four = (config.width * times for times in (1, 2, 4))
    shapes: dict[str, tuple[int, ...]] = {
        "data_mean": (1, config.mels, 1),
        "data_std": (1, config.mels, 1),
        "encoder.conv_in.weight": (one, config.mels, 3),
        "encoder.down.0.downsample.conv1.weight": (one, one, 1),
        "encoder.down.0.downsample.conv2.weight": (one, one, 1),
        "encoder.conv_out.weight": (2 * config.latent_channels, four, 3),
        "encoder.learnable_gain": (),
        "decoder.conv_in.weight": (four, config.latent_channels, 3),
        "decoder.up.1.upsample.conv.weight": (two, two, 3),
        "decoder.conv_out.weight": (config.mels, one, 3),
        "decoder.learnable_gain": (),
    }

    def block(name: str, wide_in: int, wide_out: int) -> None:
        shapes[f"{name}.conv1.weight"] = (wide_out, wide_in, 3)
        shapes[f"{name}.conv2.weight"] = (wide_out, wide_out, 3)
        if wide_in != wide_out:
            shapes[f"{name}.nin_shortcut.weight"] = (wide_out, wide_in, 1)

    for coder in ("encoder", "decoder"):
        block(f"{coder}.mid.block_1", four, four)
        block(f"{coder}.mid.block_2", four, four)
        shapes[f"{coder}.mid.attn_1.qkv.weight"] = (3 * four, four, 1)
        shapes[f"{coder}.mid.attn_1.proj_out.weight"] = (four, four, 1)
    for level, (wide_in, wide_out) in enumerate(((one, one), (one, two), (two, four))):
        block(f"encoder.down.{level}.block.0", wide_in, wide_out)
        block(f"encoder.down.{level}.block.1", wide_out, wide_out)
    for level, (wide_in, wide_out) in enumerate(((two, one), (four, two), (four, four))):
        block(f"decoder.up.{level}.block.0", wide_in, wide_out)
        block(f"decoder.up.{level}.block.1", wide_out, wide_out)
        block(f"decoder.up.{level}.block.2", wide_out, wide_out)
    return shapes


def vocoder_layout(
    config: MMAudioConfig, norm: tuple[str, str] = ("weight_g", "weight_v")
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of best_netG.pt or bigvgan_generator.pt, under "generator"."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, *shape: int, bias: int) -> None:
        shapes[f"{name}.{norm[0]}"] = (shape[0], 1, 1)
        shapes[f"{name}.{norm[1]}"] = shape
        if bias:
            shapes[f"{name}.bias"] = (bias,)

    def activation(name: str, wide: int) -> None:
        shapes[f"{name}.act.alpha"] = shapes[f"{name}.act.beta"] = (wide,)
        shapes[f"{name}.upsample.filter"] = (1, 1, 12)
        shapes[f"{name}.downsample.lowpass.filter"] = (1, 1, 12)

    wide = config.vocoder_width
    conv("conv_pre", wide, config.mels, 7, bias=wide)
    for stage, kernel in enumerate(config.vocoder_kernels):
        conv(f"ups.{stage}.0", wide, wide // 2, kernel, bias=wide // 2)
        wide //= 2
        for row, kernel in enumerate((3, 7, 11)):
            name = f"resblocks.{3 * stage + row}"
            for layer in range(3):
                conv(f"{name}.convs1.{layer}", wide, wide, kernel, bias=wide)
                conv(f"{name}.convs2.{layer}", wide, wide, kernel, bias=wide)
            for layer in range(6):
                activation(f"{name}.activations.{layer}", wide)
    activation("activation_post", wide)
    conv("conv_post", 1, wide, 7, bias=int(config.sample_rate == 16_000))
    return shapes


def random_originals(
    config: MMAudioConfig, norm: tuple[str, str] = ("weight_g", "weight_v")
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random state dicts in the originals' layout, such that sound comes out."""
    generator = torch.Generator().manual_seed(0)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator)

    vae = {}
    for name, shape in vae_layout(config).items():
        vae[name] = draw(shape)
        if name.endswith("weight"):  # unnormalised: every filter has a size of its own
            vae[name] *= draw((shape[0], 1, 1)).exp()
    vae["data_mean"] -= 2.0
    vae["data_std"] = 1.0 + vae["data_std"].abs()
    for coder in ("encoder", "decoder"):
        vae[f"{coder}.learnable_gain"] *= 0.1

    vocoder = {}
    reference = MMAudioVocoder(config.mels, 32, (4,), (8,)).activation_post  # for its filters
    for name, shape in vocoder_layout(config, norm).items():
        vocoder[name] = 0.1 * draw(shape)
        if name.endswith(norm[0]):
            vocoder[name] = 0.5 * (1 + vocoder[name])
        elif name.endswith("upsample.filter"):
            vocoder[name] = reference.upsample.filter.clone()
        elif name.endswith("lowpass.filter"):
            vocoder[name] = reference.downsample.lowpass.filter.clone()
    return vae, vocoder


def diffusers_modules(
    config: MMAudioConfig, vae: dict[str, Tensor], vocoder: dict[str, Tensor]
) -> tuple[MMAudioVAE, MMAudioVocoder]:
    """Diffusers' own models with the weights of originals; the weight norm is PyTorch's."""
    ours = MMAudioVAE(
        mel_bins=config.mels,
        latent_channels=config.latent_channels,
        hidden_channels=config.width,
        sample_rate=config.sample_rate,
        n_fft=config.n_fft,
        hop_length=config.mel_hop,
    )
    weights = {}
    for name, value in vae.items():
        if name.endswith("weight"):  # EDM2 (Karras et al. 2024), equations 47 and 66
            fan_in = value[0].numel()
            rms = value.double().square().mean(dim=(1, 2), keepdim=True).sqrt()
            value = (value / (rms + 1e-4) / math.sqrt(fan_in)).float()
        weights[name] = value
    ours.vae.load_state_dict(weights)

    theirs = MMAudioVocoder(
        config.mels,
        config.vocoder_width,
        config.vocoder_rates,
        config.vocoder_kernels,
    )
    if config.vocoder_tanh:
        theirs.conv_post = torch.nn.Conv1d(theirs.conv_post.in_channels, 1, 7, padding=3)
    convolutions = [
        module
        for module in theirs.modules()
        if isinstance(module, torch.nn.Conv1d | torch.nn.ConvTranspose1d)
    ]
    for module in convolutions:
        torch.nn.utils.parametrizations.weight_norm(module)
    theirs.load_state_dict(vocoder)
    for module in convolutions:
        torch.nn.utils.parametrize.remove_parametrizations(module, "weight")
    return ours.requires_grad_(False), theirs.requires_grad_(False)

import copy
import dataclasses
import functools
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_mmaudio import TINY, diffusers_modules, random_originals

from unison_audio.codecs import mmaudio
from unison_audio.codecs.mmaudio import CONFIGS, MelSpectrogram, MMAudioCodec
from unison_audio.codecs.mmaudio_weights import import_originals
from unison_audio.variants import VARIANTS

NAMES = list(CONFIGS)
GOLDEN = load_file(Path(__file__).parents[1] / "fixtures" / "mmaudio-mel.safetensors")


@functools.cache
def build(name, **changes):
    """A tiny codec, and diffusers' own models with the same weights."""
    config = dataclasses.replace(TINY[name], **changes)
    originals = random_originals(config)
    codec = MMAudioCodec(config)
    codec.load_state_dict(import_originals(codec, *originals))
    codec.requires_grad_(False)
    return codec, *diffusers_modules(config, *originals)


def sound(config, samples, batch=1):
    generator = torch.Generator().manual_seed(samples)
    return 0.3 * torch.randn(batch, samples, generator=generator)


def distance(found, wanted):
    """Relative to the peak."""
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("rate", ["16k", "44k"])
def test_the_mel_is_mmaudios(rate):
    waveform, wanted = GOLDEN[f"{rate}.wav"], GOLDEN[f"{rate}.mel"]
    assert waveform.abs().max() >= 1  # the clipped stretch
    mel = MelSpectrogram(CONFIGS[f"mmaudio-{rate}"])(waveform[None])[0]
    assert mel.shape == wanted.shape
    assert (mel - wanted).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("name", "frames"), [("mmaudio-16k", (312, 687)), ("mmaudio-44k", (430, 947))]
)
def test_frames_of_ten_and_of_twenty_two_seconds(name, frames):
    config = CONFIGS[name]
    with torch.device("meta"):
        codec = MMAudioCodec(config)
    assert (codec.frames(10.0), codec.frames(22.0)) == frames
    assert math.prod(config.vocoder_rates) * 2 == codec.hop
    assert codec.frames(3 * codec.hop / config.sample_rate) == 3
    assert codec.frames(0.001) == 1


@pytest.mark.parametrize("name", NAMES)
def test_codec_and_variants_agree(name):
    users = [variant for variant in VARIANTS.values() if variant.codec == name]
    assert users
    for variant in users:
        assert variant.sample_rate == CONFIGS[name].sample_rate
        assert variant.hop == CONFIGS[name].frame_hop
        assert variant.latent_channels == CONFIGS[name].latent_channels


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("samples", [7, 128, 129, 10 * 128 - 1, 10 * 128, 10 * 128 + 64, 10_000])
def test_encoding_gives_the_frames_of_the_duration(name, samples):
    codec, _, _ = build(name)
    latent = codec.encode(sound(codec.config, samples, batch=2))
    assert latent.shape == (2, codec.channels, codec.frames(samples / codec.sample_rate))
    assert codec.decode(latent).shape == (2, latent.shape[-1] * codec.hop)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("samples", [40 * 128, 41 * 128 + 64 + 5])  # even and odd mel frames
def test_encoding_is_half_the_mean_of_diffusers_vae(name, samples):
    codec, vae, _ = build(name)
    waveform = sound(codec.config, samples, batch=2)
    waveform[:, 100:110] = 3.0  # clamped
    with torch.no_grad():
        mel = vae.mel_converter(waveform)  # natural logarithm
        if name == "mmaudio-16k":
            mel = mel / math.log(10)
        mean = vae.vae.encode(mel)[:, : codec.channels]
    assert mean.std() > 0.1
    assert distance(codec.encode(waveform), 0.5 * mean) < 1e-4
    if name == "mmaudio-44k":
        mean = vae.encode(waveform).latent_dist.mean
        assert distance(codec.encode(waveform), 0.5 * mean) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_decoding_is_diffusers_vae_and_vocoder(name):
    codec, vae, vocoder = build(name)
    latent = torch.randn(2, codec.channels, 37, generator=torch.Generator().manual_seed(1))
    before = []
    vocoder.conv_post.register_forward_hook(lambda module, inputs, output: before.append(output))
    with torch.no_grad():
        wanted = vocoder(vae.decode(2 * latent).sample).sample[:, 0]
    if name == "mmaudio-16k":  # diffusers knows the clamp of BigVGAN v2 alone
        wanted = torch.tanh(before[0][:, 0])
    assert wanted.std() > 0.01
    assert (wanted.abs() < 0.99).float().mean() > 0.5
    assert distance(codec.decode(latent), wanted) < 1e-4


def test_normalized_filters_keep_the_variance():
    config = TINY["mmaudio-44k"]
    codec = MMAudioCodec(config)
    state = import_originals(codec, *random_originals(config))
    generator = torch.Generator().manual_seed(2)
    for name in ("vae.encoder.conv_in.weight", "vae.decoder.mid.attn_1.qkv.weight"):
        weight = state[name]
        noise = torch.randn(1, weight.shape[1], 20_000, generator=generator)
        assert abs(float(torch.nn.functional.conv1d(noise, weight).std()) - 1) < 0.02


LENGTHS = [64, 100, 131]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("frames", LENGTHS)
def test_chunks_equal_one_chunk(name, frames):
    codec, _, _ = build(name)
    chunked, _, _ = build(name, chunk_frames=32)
    waveform = sound(codec.config, frames * codec.hop + 75)
    latent = codec.encode(waveform)
    assert distance(chunked.encode(waveform), latent) < 1e-5
    assert distance(chunked.decode(latent), codec.decode(latent)) < 1e-5


def test_chunks_with_too_little_context_differ(monkeypatch):
    """The test above can fail."""
    codec, _, _ = build("mmaudio-44k")
    chunked, _, _ = build("mmaudio-44k", chunk_frames=32)
    waveform = sound(codec.config, 100 * codec.hop)
    latent = codec.encode(waveform)
    for part in ("ENCODER_HEAD", "ENCODER_TAIL", "DECODER_HEAD", "DECODER_TAIL"):
        with monkeypatch.context() as patch:
            patch.setattr(mmaudio, f"{part}_CONTEXT", 0)
            if part.startswith("ENCODER"):
                assert distance(chunked.encode(waveform), latent) > 1e-3, part
            else:
                assert distance(chunked.decode(latent), codec.decode(latent)) > 1e-3, part


def extent(part, x, output_step, input_step):
    """How many frames before and after its own an output frame in the middle depends on."""
    x.requires_grad_(True)
    y = part(x)
    middle = y.shape[-1] // output_step // 2
    generator = torch.Generator().manual_seed(3)
    own = y[..., middle * output_step : (middle + 1) * output_step]
    (own * torch.randn(own.shape, generator=generator)).sum().backward()
    columns = x.grad.abs().flatten(0, -2).amax(dim=0).nonzero().flatten() // input_step
    return max(middle - int(columns.min()), int(columns.max()) - middle)


@pytest.mark.parametrize("name", NAMES)
def test_each_part_has_its_stated_context(name):
    codec, _, _ = build(name)
    hop, channels, width = codec.hop, codec.channels, 4 * codec.config.width
    draw = torch.Generator().manual_seed(4)
    parts = {
        "ENCODER_HEAD": extent(codec._encoder_head, sound(codec.config, 61 * hop), 1, hop),
        "ENCODER_TAIL": extent(
            codec._encoder_tail, torch.randn(1, width, 61, generator=draw), 1, 1
        ),
        "DECODER_HEAD": extent(
            codec._decoder_head, torch.randn(1, channels, 61, generator=draw), 1, 1
        ),
        "DECODER_TAIL": extent(
            codec._decoder_tail, torch.randn(1, width, 61, generator=draw), 2, 1
        ),
    }
    for part, seen in parts.items():
        assert seen == getattr(mmaudio, f"{part}_CONTEXT"), part


@pytest.mark.parametrize("name", NAMES)
def test_the_vocoder_has_its_stated_context(name):
    true = CONFIGS[name]
    codec, _, _ = build.__wrapped__(
        name,
        mel_hop=true.mel_hop,
        n_fft=true.n_fft,
        vocoder_width=64,
        vocoder_rates=true.vocoder_rates,
        vocoder_kernels=true.vocoder_kernels,
    )
    codec.double()  # what comes from the edges is less than fp32 can hold
    draw = torch.Generator().manual_seed(5)
    mel = torch.randn(1, codec.config.mels, 2 * true.vocoder_context + 3, generator=draw).double()
    seen = extent(codec._vocode, mel, true.mel_hop, 1)
    assert true.vocoder_context - 2 <= seen <= true.vocoder_context


def test_an_item_of_a_batch_does_not_depend_on_the_others():
    codec, _, _ = build("mmaudio-16k", chunk_frames=60)  # two items at once
    waveform = sound(codec.config, 30 * codec.hop, batch=5)
    latent = codec.encode(waveform)
    assert distance(codec.encode(waveform[3:4]), latent[3:4]) < 1e-5
    assert distance(codec.decode(latent[3:4]), codec.decode(latent)[3:4]) < 1e-5


def test_half_precision_leaves_the_mel_alone():
    codec = copy.deepcopy(build("mmaudio-44k")[0])
    waveform = sound(codec.config, 40 * codec.hop)
    latent, mel = codec.encode(waveform), codec.mel(waveform)
    decoded = codec.decode(latent)
    codec.to(torch.bfloat16)
    assert torch.equal(codec.mel(waveform), mel)
    assert codec.encode(waveform).dtype == codec.decode(latent).dtype == torch.float32
    assert 0 < distance(codec.encode(waveform), latent) < 0.1
    assert 0 < distance(codec.decode(latent), decoded) < 0.2

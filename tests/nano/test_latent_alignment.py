import pytest
import torch
from training.conftest import latent_distance, tiny_codec_config

from unison_audio.codecs.nano import NanoCodec
from unison_audio.errors import InputError
from unison_audio.nano.latent_alignment import align_latents


@pytest.fixture
def waveforms():
    return 0.1 * torch.randn(64, 16 * 1024, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def reference():
    torch.manual_seed(3)
    codec = NanoCodec(tiny_codec_config()).eval().requires_grad_(False)
    codec.latent_mean.normal_(std=0.3)
    codec.latent_scale.uniform_(0.5, 2.0)
    return codec


def in_other_coordinates(codec):
    """A codec that says the same in latents that are turned, stretched and moved."""
    channels = codec.channels
    other = NanoCodec(codec.config).eval().requires_grad_(False)
    other.load_state_dict(codec.state_dict())
    turn = torch.eye(channels) + 0.4 * torch.randn(channels, channels)
    shift = torch.randn(channels)
    last, first = other.encoder.net[-1], other.decoder.net[0]
    last.weight[:channels] = torch.einsum("ij,jck->ick", turn, last.weight[:channels])
    last.bias[:channels] = turn @ last.bias[:channels] + shift
    first.weight.copy_(torch.einsum("ojk,jc->ock", first.weight, torch.linalg.inv(turn)))
    first.bias.sub_(first.weight.sum(dim=2) @ shift)
    return other


def test_other_coordinates_are_undone_to_rounding(reference, waveforms):
    codec = in_other_coordinates(reference)
    assert latent_distance(codec, reference, waveforms) > 0.1
    align_latents(codec, reference, waveforms)
    assert latent_distance(codec, reference, waveforms) < 1e-8
    torch.testing.assert_close(
        codec.encode(waveforms), reference.encode(waveforms), rtol=1e-3, atol=1e-4
    )


def test_the_sound_stays_the_same_but_at_the_edges(reference, waveforms):
    codec = in_other_coordinates(reference)
    before = codec.decode(codec.encode(waveforms))
    align_latents(codec, reference, waveforms)
    after = codec.decode(codec.encode(waveforms))
    inner = slice(6 * codec.hop, -6 * codec.hop)  # the tiny decoder looks no farther
    torch.testing.assert_close(after[:, inner], before[:, inner], rtol=1e-3, atol=1e-4)


def test_what_is_really_new_stays(reference, waveforms):
    codec = in_other_coordinates(reference)
    torch.manual_seed(9)
    stage = codec.encoder.net[0]
    stage.weight.add_(0.02 * torch.randn_like(stage.weight))
    before = latent_distance(codec, reference, waveforms)
    align_latents(codec, reference, waveforms)
    after = latent_distance(codec, reference, waveforms)
    assert 1e-6 < after < 0.5 * before


def test_the_spread_of_the_posterior_follows_its_mean(reference, waveforms):
    stretched = NanoCodec(reference.config).eval().requires_grad_(False)
    stretched.load_state_dict(reference.state_dict())
    channels = reference.channels
    stretched.encoder.net[-1].weight[:channels] *= 3
    stretched.encoder.net[-1].bias[:channels] *= 3
    align_latents(stretched, reference, waveforms)
    _, told = stretched.encoder(waveforms)
    _, known = reference.encoder(waveforms)
    torch.testing.assert_close(told, known - 2 * torch.log(torch.tensor(3.0)))


def test_too_little_to_fit_the_map(reference, waveforms):
    with pytest.raises(InputError, match=r"Latents of 2 frames do not determine .* more waveforms"):
        align_latents(in_other_coordinates(reference), reference, waveforms[:1, :2048])

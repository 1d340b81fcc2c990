import copy

import pytest
import torch
from diffusers.models.autoencoders.mmaudio_vocoder import MMAudioActivation1d
from tiny_mmaudio import TINY, random_originals

from unison_audio.codecs import bigvgan
from unison_audio.codecs.bigvgan import activate, is_fast, vocode
from unison_audio.codecs.mmaudio import MMAudioCodec
from unison_audio.codecs.mmaudio_weights import import_originals


@pytest.fixture(scope="module", params=list(TINY))
def codec(request):
    made = MMAudioCodec(TINY[request.param])
    made.load_state_dict(import_originals(made, *random_originals(made.config)))
    return made.requires_grad_(False)


def mel(codec, frames, batch=1):
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(batch, codec.config.mels, frames, generator=generator)


def plain(vocoder, given):
    """Diffusers' own forward pass."""
    return vocoder(given, return_dict=False)[0][:, 0]


def as_image(x):
    return x[:, :, None].contiguous(memory_format=torch.channels_last)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    made = MMAudioActivation1d(5).requires_grad_(False)
    made.act.alpha.normal_()
    made.act.beta.normal_()
    return made


# Chunks of 8 samples and tiles of 3: every border lies inside, and the last ones are short.
@pytest.mark.parametrize("length", [1, 2, 5, 8, 9, 11, 12, 16, 17, 100])
def test_an_activation_in_chunks_is_diffusers(layer, length, monkeypatch):
    monkeypatch.setattr(bigvgan, "CHUNK", 8 * 5)
    monkeypatch.setattr(bigvgan, "TILE", 3 * 5)
    x = 3 * torch.randn(2, 5, length, generator=torch.Generator().manual_seed(length))
    found = activate(as_image(x), layer, torch.float32)[:, :, 0]
    wanted = layer(x)
    assert (found - wanted).abs().max() < 1e-6 * wanted.abs().max()
    double = copy.deepcopy(layer).double()
    found = activate(as_image(x.double()), double, torch.float64)[:, :, 0]
    assert (found - double(x.double())).abs().max() < 1e-12


def test_an_activation_is_the_same_with_torchs_sine(layer, monkeypatch):
    x = as_image(3 * torch.randn(1, 5, 300, generator=torch.Generator().manual_seed(0)))
    found = activate(x, layer, torch.float32)
    monkeypatch.setattr(bigvgan, "NUMPY_THREADS", 0)
    again = activate(x, layer, torch.float32)
    assert (found - again).abs().max() < 1e-6 * found.abs().max()


@pytest.mark.parametrize("frames", [1, 7, 40])
def test_vocoding_is_diffusers(codec, frames):
    given = mel(codec, frames, batch=2)
    wanted = plain(codec.vocoder, given)
    assert wanted.std() > 0.01
    found = vocode(codec.vocoder, given)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-6 * wanted.abs().max()
    # The same mathematics: what differs in float32 is rounding.
    double = copy.deepcopy(codec.vocoder).double()
    error = vocode(double, given.double(), torch.float64) - plain(double, given.double())
    assert error.abs().max() < 1e-11


def test_a_batch_equals_single_sounds(codec):
    given = mel(codec, 30, batch=3)
    batch = vocode(codec.vocoder, given)
    for row in range(3):
        # oneDNN divides the work of a batch differently, so the last bits may differ.
        single = vocode(codec.vocoder, given[row : row + 1])[0]
        assert (single - batch[row]).abs().max() < 1e-6 * single.abs().max()


def test_bfloat16_changes_the_convolutions_alone(codec):
    given = mel(codec, 30)
    exact = plain(codec.vocoder, given)
    found = vocode(codec.vocoder, given, torch.bfloat16)
    assert found.dtype == torch.float32
    error = (found - exact).norm() / exact.norm()
    assert 1e-5 < error < 0.05
    codec.vocoder_dtype = torch.bfloat16
    try:
        latent = torch.randn(1, codec.channels, 12, generator=torch.Generator().manual_seed(0))
        half = codec.decode(latent)
    finally:
        codec.vocoder_dtype = torch.float32
    assert 1e-5 < (half - codec.decode(latent)).norm() / half.norm() < 0.1


def test_other_types_take_diffusers_way(codec):
    assert is_fast(codec.vocoder)
    half = copy.deepcopy(codec).to(torch.bfloat16)
    assert not is_fast(half.vocoder)
    latent = torch.randn(1, codec.channels, 12, generator=torch.Generator().manual_seed(0))
    exact = codec.decode(latent)
    assert (half.decode(latent) - exact).norm() < 0.2 * exact.norm()

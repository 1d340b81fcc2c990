import math

import pytest
import torch
from training.conftest import make_clips, tiny_codec_config

from unison_audio.codecs.nano import NanoCodec, NanoCodecConfig, WaveformDecoder
from unison_audio.codecs.table import load_nano_codec, save_nano_codec
from unison_audio.errors import InputError
from unison_audio.nano.codec_segments import draw_segments
from unison_audio.nano.codec_training import (
    CodecRecipe,
    CodecTrainer,
    ReconstructionLoss,
    train_codec,
)
from unison_audio.spectrogram import mel_filters
from unison_audio.training.checkpoints import load_checkpoint


@pytest.fixture
def codec():
    torch.manual_seed(0)
    return NanoCodec(tiny_codec_config()).eval()


def test_the_inverse_stft_inverts_the_stft():
    decoder = WaveformDecoder(tiny_codec_config())
    waveform = torch.randn(2, 40 * 256)
    padded = torch.nn.functional.pad(waveform, (384, 384))
    frames = padded.unfold(1, 1024, 256) * torch.hann_window(1024)  # (B, frames, n_fft)
    restored = decoder.inverse_stft(torch.fft.rfft(frames))
    assert restored.shape == waveform.shape
    # At the very edges of the clip the windows cover little; elsewhere it is exact.
    assert torch.allclose(restored[:, 384:-384], waveform[:, 384:-384], atol=1e-4)


def test_mel_filters_peak_at_the_mel_centers():
    filters = mel_filters(16_000, 1024, 80)
    assert filters.shape == (80, 513)
    mel = 2595 * math.log10(1 + 8000 / 700) * 41 / 81
    center = 700 * (10 ** (mel / 2595) - 1)
    assert abs(int(filters[40].argmax()) - center * 1024 / 16_000) <= 1
    assert (filters >= 0).all()
    assert filters.max() <= 1


def test_shapes_and_rates(codec):
    assert NanoCodec(NanoCodecConfig()).hop == 1024
    assert 16_000 / codec.hop == 15.625
    assert codec.frames(5.12) == 80
    assert codec.frames(2.0) == 32  # 31.25 frames, rounded up
    latent = codec.encode(torch.randn(3, 40_000) * 0.1)
    assert latent.shape == (3, 4, 40)
    assert codec.decode(latent).shape == (3, 40 * 1024)


def test_an_item_of_a_batch_does_not_depend_on_the_others(codec):
    waveforms = 0.1 * torch.randn(3, 20_480)
    together = codec.decode(codec.encode(waveforms))
    alone = codec.decode(codec.encode(waveforms[1:2]))
    assert torch.allclose(together[1], alone[0], atol=1e-5)


def test_latents_are_normalized_by_the_measured_statistics():
    trainer = CodecTrainer(CodecRecipe(model=tiny_codec_config()), make_clips())
    waves = [clip.waveform for clip in make_clips()]
    trainer.measure_latents()
    segments = draw_segments(waves, waves, 64, 40 * 1024, torch.Generator().manual_seed(9))
    latents = trainer.codec.encode(segments)
    assert latents.mean().abs() < 0.3
    assert (latents.std(dim=(0, 2)) < 1.5).all()


def test_save_and_load(codec, tmp_path):
    codec.latent_scale.fill_(0.5)
    save_nano_codec(tmp_path, codec)
    loaded = load_nano_codec(tmp_path)
    waveform = 0.1 * torch.randn(1, 8192)
    assert torch.allclose(loaded.encode(waveform), codec.encode(waveform), atol=2e-2)
    (tmp_path / "codec.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot be used"):
        load_nano_codec(tmp_path)
    (tmp_path / "codec.safetensors").unlink()
    with pytest.raises(InputError, match=r"codec\.safetensors is missing"):
        load_nano_codec(tmp_path)


def test_the_reconstruction_loss_is_zero_only_for_the_target():
    loss = ReconstructionLoss(16_000)
    target = 0.1 * torch.randn(2, 8192)
    mel, stft = loss(target, target)
    assert mel == 0
    assert stft == 0
    halved, _ = loss(0.5 * target, target)
    assert abs(float(halved) - math.log(2)) < 0.02  # a gain is a constant in log-mel


def test_segments_are_in_range_and_repeatable():
    waves = [clip.waveform for clip in make_clips()]
    first = draw_segments(waves, waves, 16, 8192, torch.Generator().manual_seed(1))
    again = draw_segments(waves, waves, 16, 8192, torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    assert first.abs().max() <= 1
    assert (first.abs().amax(dim=1) > 0).all()


TINY = CodecRecipe(
    model=tiny_codec_config(),
    steps=8,
    encoder_until=5,
    batch=2,
    segment_frames=4,
    checkpoint_every=3,
)


def test_the_encoder_is_frozen_at_the_end_and_resume_is_exact(tmp_path):
    clips = make_clips()
    whole = train_codec(clips, tmp_path / "whole", TINY)
    part = tmp_path / "part"
    part.mkdir()
    early = CodecTrainer(TINY)
    train_codec(clips, part, TINY)
    for path in part.glob("checkpoint-*8.pt"):
        path.unlink()
    middle = load_checkpoint(part)
    assert middle["step"] == 6
    resumed = train_codec(clips, part, TINY)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
        if name.startswith("encoder"):
            assert torch.equal(value, middle["codec"][name]), name
    changed = [
        name
        for name, value in whole.encoder.state_dict().items()
        if not torch.equal(value, early.codec.encoder.state_dict()[name])
    ]
    assert changed
    log = (part / "log.jsonl").read_text().splitlines()
    assert len(log) == 8
    assert "kl" in log[4]
    assert "kl" not in log[5]

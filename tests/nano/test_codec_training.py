import dataclasses
import json
import os
import signal

import pytest
import torch
from training.conftest import latent_distance, make_clips, tiny_codec_config

from unison_audio.codecs.nano import NanoCodec
from unison_audio.errors import InputError
from unison_audio.nano.codec_segments import draw_segments
from unison_audio.nano.codec_training import CodecRecipe, CodecTrainer, train_codec

TINY = CodecRecipe(
    model=tiny_codec_config(),
    steps=6,
    encoder_until=3,
    batch=2,
    segment_frames=4,
    checkpoint_every=2,
)


@pytest.fixture
def target():
    waves = [clip.waveform for clip in make_clips()]
    return draw_segments(waves, waves, 2, 4096, torch.Generator().manual_seed(0))


def copied(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module, before):
    return {
        n.split(".")[0] for n, v in module.state_dict().items() if not torch.equal(v, before[n])
    }


def test_a_decoder_step_moves_the_decoder_only(target):
    trainer = CodecTrainer(TINY)
    codec = copied(trainer.codec)
    figures = trainer.decoder_step(target, 4)
    assert changed(trainer.codec, codec) == {"decoder"}
    assert set(figures) == {"loss", "norm", "mel", "stft"}


def test_half_products_leave_the_step_nearly_as_it_is(target):
    figures = [CodecTrainer(TINY, half=half).joint_step(target, 0) for half in (False, True)]
    assert figures[1]["mel"] == pytest.approx(figures[0]["mel"], rel=0.02)
    assert figures[1]["mel"] != figures[0]["mel"]


def test_latents_are_measured_where_the_encoder_ends_its_training(tmp_path):
    whole = train_codec(make_clips(), tmp_path / "a", dataclasses.replace(TINY, steps=4))
    joint = train_codec(make_clips(), tmp_path / "b", dataclasses.replace(TINY, steps=3))
    assert (joint.latent_scale != 1).any()
    assert torch.equal(joint.latent_scale, whole.latent_scale)
    assert torch.equal(joint.latent_mean, whole.latent_mean)


def test_the_rate_falls_while_the_decoder_is_trained(target):
    trainer = CodecTrainer(dataclasses.replace(TINY, steps=203, warmup=1))
    rates = []
    for step in (3, 103, 203):
        trainer.decoder_step(target, step)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(TINY.decoder_lr)
    assert rates[1] == pytest.approx(0.525 * TINY.decoder_lr, rel=0.02)
    assert rates[2] == pytest.approx(0.05 * TINY.decoder_lr)


def test_a_checkpoint_with_discriminators_resumes_without_them(tmp_path):
    whole = train_codec(make_clips(), tmp_path, TINY)
    (tmp_path / "checkpoint-00000006.pt").unlink()
    written = tmp_path / "checkpoint-00000004.pt"  # of decoder training alone
    state = torch.load(written, weights_only=True)
    assert set(state) == {"step", "codec", "ema", "optimizer", "held"}
    old = {"discriminators": {"judges.0.weight": torch.ones(3)}, "judge_optimizer": {}}
    torch.save({**state, **old}, written)
    assert not changed(train_codec(make_clips(), tmp_path, TINY), copied(whole))


def test_a_codec_in_use_is_polished_without_moving_its_latents(tmp_path):
    torch.manual_seed(7)
    start = NanoCodec(tiny_codec_config())
    start.latent_mean.fill_(0.25)
    start.latent_scale.fill_(2.0)
    before = copied(start)
    recipe = dataclasses.replace(TINY, encoder_until=0, steps=3)
    polished = train_codec(make_clips(), tmp_path, recipe, start)
    assert changed(polished, before) == {"decoder"}
    assert (tmp_path / "weights" / "codec.safetensors").is_file()
    resumed = train_codec(make_clips(), tmp_path, dataclasses.replace(recipe, steps=4), start)
    assert changed(resumed, copied(polished)) == {"decoder"}  # resumed, not started again


def test_a_codec_trained_on_keeps_near_its_latents(tmp_path):
    torch.manual_seed(7)
    start = NanoCodec(tiny_codec_config())
    start.latent_mean.fill_(0.25)
    start.latent_scale.fill_(2.0)
    waves = [clip.waveform for clip in make_clips()]
    probe = draw_segments(waves, waves, 32, 16_384, torch.Generator().manual_seed(4))
    recipe = dataclasses.replace(TINY, steps=8, encoder_until=8, peak_lr=1e-2, warmup=1)
    moved = {}
    for weight in (0.0, 50.0):
        anchored = dataclasses.replace(recipe, anchor_weight=weight)
        codec = train_codec(make_clips(), tmp_path / str(weight), anchored, start)
        moved[weight] = latent_distance(codec, start, probe)
        assert torch.equal(codec.latent_scale, start.latent_scale)
        log = (tmp_path / str(weight) / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["moved"] > 0 for line in log] == [False] + [True] * 7
    assert 0 < moved[50.0] < moved[0.0]


def test_a_run_that_begins_with_a_codec_resumes_exactly(tmp_path):
    torch.manual_seed(7)
    start = NanoCodec(tiny_codec_config())
    recipe = dataclasses.replace(TINY, steps=6, encoder_until=5)
    whole = train_codec(make_clips(), tmp_path, recipe, start)
    (tmp_path / "checkpoint-00000006.pt").unlink()
    assert (tmp_path / "checkpoint-00000004.pt").is_file()  # while the encoder is still trained
    with pytest.raises(InputError, match=r"began with a codec .* the same --init"):
        train_codec(make_clips(), tmp_path, recipe)
    resumed = train_codec(make_clips(), tmp_path, recipe, start)
    assert not changed(resumed, copied(whole))


def test_a_signal_ends_a_run_after_it_saved(tmp_path, monkeypatch):
    whole = train_codec(make_clips(), tmp_path / "whole", TINY)
    step = CodecTrainer.joint_step

    def stopped(self, target, number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, target, number)

    with monkeypatch.context() as patched:
        patched.setattr(CodecTrainer, "joint_step", stopped)
        with pytest.raises(KeyboardInterrupt, match="saved at step 3"):
            train_codec(make_clips(), tmp_path / "part", TINY)
    assert (tmp_path / "part" / "checkpoint-00000003.pt").is_file()
    assert not changed(train_codec(make_clips(), tmp_path / "part", TINY), copied(whole))
    rows = [(tmp_path / run / "log.jsonl").read_text() for run in ("whole", "part")]
    assert rows[0] == rows[1]

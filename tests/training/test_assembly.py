"""What `run` assembles of a config: start weights, adapters, the objective, the checkpoint."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from training.conftest import HashedWords, make_variant
from training.test_trainer import RECIPE

from unison_audio import checkpoint
from unison_audio.codecs.nano import NanoCodec
from unison_audio.codecs.table import load_nano_codec
from unison_audio.data.records import Clip
from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.training.objective import FlowMatching
from unison_audio.training.run import ModelInit, RunConfig, RunData, RunOutput, run

STILL = dataclasses.replace(RECIPE, steps=2, peak_lr=0.0)
"""A recipe that leaves the weights as they are."""


def start_weights() -> UnisonBackbone:
    """A backbone in bfloat16, as a GPU loads it."""
    torch.manual_seed(3)
    backbone = UnisonBackbone(make_variant().backbone)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return backbone.to(torch.bfloat16)


def make_config(clips: list[Clip], codec: NanoCodec, folder: Path, **model: object) -> RunConfig:
    init = ModelInit(variant=make_variant(), codec=codec, text_encoder=HashedWords(), **model)
    return RunConfig(
        model=init, data=RunData(clips=clips), recipe=STILL, output=RunOutput(folder=folder)
    )


@pytest.mark.parametrize("lora_rank", [None, 2])
def test_a_run_starts_from_given_weights(
    lora_rank: int | None, clips: list[Clip], codec: NanoCodec, tmp_path: Path
) -> None:
    config = make_config(clips, codec, tmp_path, start=start_weights, lora_rank=lora_rank)
    backbone = run(config)
    expected = start_weights().state_dict()
    assert backbone.state_dict().keys() == expected.keys()
    for name, value in backbone.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name].float()), name
    variant, saved = checkpoint.load(config.output.weights)
    assert variant == make_variant()
    for name, value in saved.state_dict().items():
        assert torch.equal(value, backbone.state_dict()[name])
    assert load_nano_codec(config.output.weights).config == codec.config


def test_a_codec_of_other_channels_is_refused(clips: list[Clip], codec: NanoCodec) -> None:
    backbone = dataclasses.replace(make_variant().backbone, latent_channels=6)
    other = dataclasses.replace(make_variant(), backbone=backbone)
    with pytest.raises(InputError, match=r"codec has 4 channels .* takes 6 .* give the codec that"):
        ModelInit(variant=other, codec=codec, text_encoder=HashedWords())


def test_weights_of_another_shape_are_refused(
    clips: list[Clip], codec: NanoCodec, tmp_path: Path
) -> None:
    other = dataclasses.replace(make_variant().backbone, blocks=1)
    config = make_config(clips, codec, tmp_path, start=lambda: UnisonBackbone(other))
    config = dataclasses.replace(config, output=RunOutput(folder=tmp_path / "new" / "run"))
    with pytest.raises(InputError, match="choose a checkpoint of that shape"):
        run(config)
    assert not list(tmp_path.iterdir())  # nor does its run.json answer for the next command


class Halved(FlowMatching):
    """An objective with half the loss."""

    def loss(self, *given: object) -> torch.Tensor:
        return 0.5 * super().loss(*given)


def test_the_objective_of_the_config_is_trained(
    clips: list[Clip], codec: NanoCodec, tmp_path: Path
) -> None:
    found = []
    for objective in (FlowMatching(), Halved()):
        config = make_config(clips, codec, tmp_path / type(objective).__name__)
        run(dataclasses.replace(config, objective=objective))
        lines = (config.output.folder / "log.jsonl").read_text().splitlines()
        found.append([json.loads(line)["loss"] for line in lines])
    assert len(found[0]) == STILL.steps
    assert found[1] == pytest.approx([0.5 * loss for loss in found[0]], rel=1e-6)

"""A step that is recorded once and replayed from fixed places, without a GPU."""

import pytest
import torch

from tests.tiny_unison import random_backbone, tiny_variant
from unison_audio.model import sampling
from unison_audio.model.graphed import GraphedRun
from unison_audio.model.guidance import Guidance
from unison_audio.model.sampling import ModelInputs, sample

ROWS, FRAMES = 3, 11


def record_by_calling(call):
    """Does what a graph does: results are computed into the same places at each replay."""
    places = call()
    for place in places:
        if place is not None:
            place.fill_(torch.nan)  # a graph computes nothing while it is recorded

    def replay():
        for place, value in zip(places, call(), strict=True):
            if place is not None:
                place.copy_(value)

    return places, replay


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    return ModelInputs(
        z_s=torch.randn(ROWS, 8, FRAMES),
        m=torch.zeros(ROWS, 1, FRAMES),
        hidden_states=torch.randn(ROWS, 2, 5, 384),
        text_mask=torch.arange(5) < torch.tensor([[5], [2], [4]]),
        frames=[11, 4, 8],
    )


@torch.no_grad()
def test_a_replayed_run_is_the_plain_one_to_the_bit(inputs, monkeypatch):
    backbone, noise = random_backbone(tiny_variant()), torch.randn(ROWS, 8, FRAMES)
    records = []

    def count(call):
        records.append(call)
        return record_by_calling(call)

    # A solver of several velocities, and an interval: both kinds of step occur, in turns.
    given = {
        "noise": noise,
        "steps": 6,
        "solver": "unipc",
        "guidance": Guidance(scale=3.0, interval=(0.3, 0.8)),
    }
    expected = sample(backbone, inputs, **given)
    monkeypatch.setattr(sampling, "GraphedRun", lambda run: GraphedRun(run, count))
    backbone.graphed = True
    assert torch.equal(sample(backbone, inputs, **given), expected)
    assert len(records) == 2  # one guided step and one without


@torch.no_grad()
def test_compiled_blocks_replay_the_same(inputs):
    backbone = random_backbone(tiny_variant())
    times = torch.tensor([0.9, 0.4])
    z_t = torch.randn(ROWS, 8, FRAMES)
    expected = inputs.prepare(backbone, times).velocities(z_t, 1, guided=True)
    for block in backbone.blocks:
        block.compile(dynamic=True, backend="eager")
    run = GraphedRun(inputs.prepare(backbone, times), record_by_calling)
    run.velocities(torch.randn_like(z_t), 0, guided=True)
    for found, wanted in zip(run.velocities(z_t, 1, guided=True), expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)

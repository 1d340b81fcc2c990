"""Gaps are sampled so that known frames stay and the result follows the given field."""

import pytest
import torch
from tiny_unison import random_backbone, tiny_variant

from unison_audio.errors import InputError
from unison_audio.model.gap_sampling import sample_gap
from unison_audio.model.guidance import Guidance
from unison_audio.model.sampling import ModelInputs, sample

FRAMES = 10


def inputs(rows: int = 2) -> ModelInputs:
    variant = tiny_variant()
    generator = torch.Generator().manual_seed(0)
    layers, width = len(variant.layer_picks), variant.backbone.text_dim
    return ModelInputs(
        z_s=torch.zeros(rows, variant.latent_channels, FRAMES),
        m=torch.zeros(rows, 1, FRAMES),
        hidden_states=torch.randn(rows, layers, 3, width, generator=generator),
        text_mask=torch.ones(rows, 3, dtype=torch.bool),
        frames=[FRAMES, 7],
    )


def noises(shape: torch.Size, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=generator)


def known_frames(given: ModelInputs) -> torch.Tensor:
    known = torch.randn(given.z_s.shape, generator=torch.Generator().manual_seed(2))
    known[:, :, 3:6] = torch.nan
    return known


def test_known_frames_stay_and_the_gap_is_filled() -> None:
    backbone, given = random_backbone(tiny_variant()), inputs()
    known, told = known_frames(given), []
    z = sample_gap(
        backbone,
        given,
        known=known,
        draw=noises(known.shape),
        steps=4,
        on_step=lambda done, total: told.append((done, total)),
    )
    outside = ~known.isnan()
    outside[1, :, 7:] = False
    assert torch.equal(z[outside], known[outside])
    assert z[:, :, 3:6].abs().min() > 0
    assert not z[1, :, 7:].any()
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_without_known_frames_and_repeats_it_is_the_plain_sampler() -> None:
    backbone, given = random_backbone(tiny_variant()), inputs()
    draw = noises(given.z_s.shape)
    noise = noises(given.z_s.shape)()
    free = torch.full_like(given.z_s, torch.nan)
    guidance = Guidance(scale=3.0)
    z = sample_gap(backbone, given, known=free, draw=draw, steps=5, repeats=1, guidance=guidance)
    plain = sample(backbone, given, noise=noise, steps=5, solver="euler-even", guidance=guidance)
    torch.testing.assert_close(z, plain, atol=1e-4, rtol=1e-4)


def test_repeats_below_one_are_refused() -> None:
    given = inputs()
    known = known_frames(given)
    with pytest.raises(InputError, match="repeats is 0"):
        sample_gap(
            random_backbone(tiny_variant()),
            given,
            known=known,
            draw=noises(known.shape),
            repeats=0,
        )

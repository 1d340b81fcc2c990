"""The variant table against the figures of the paper."""

import dataclasses
import itertools

import pytest
import torch

from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.variants import VARIANTS, find_variant, layer_picks

PARAMETERS = {
    "d20-44k": 620_775_464,
    "d24-16k": 731_705_364,
    "d24-16k-l": 974_672_916,
    "d24-16k-ol": 1_062_777_876,
    "s32-16k": 685_441_044,
    "d24-16k-3b": 693_956_628,
}


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("name", "total"), PARAMETERS.items())
def test_parameter_totals(name: str, total: int) -> None:
    with torch.device("meta"):
        backbone = UnisonBackbone(VARIANTS[name].backbone)
    assert count(backbone) == total


def test_parameters_of_the_parts() -> None:
    with torch.device("meta"):
        d20, d24, s32, small = (
            UnisonBackbone(VARIANTS[name].backbone)
            for name in ("d20-44k", "d24-16k", "s32-16k", "d24-16k-3b")
        )
    assert (count(d20.embed), count(d24.embed)) == (61_136_896, 60_850_176)
    assert (count(d20.head), count(d24.head)) == (2_140_200, 2_119_700)
    assert count(d20.time) == 1_312_768
    assert count(d20.fresh_projectors[0]) == 3_671_040
    assert count(small.fresh_projectors[0]) == 2_098_176
    assert (count(d20.blocks[0]), count(s32.blocks[0])) == (24_138_240, 15_740_160)


def test_layer_picks() -> None:
    d20 = [1, 2, 3, 5, 6, 8, 9, 10, 12, 13, 15, 16, 18, 19, 20, 22, 23, 25, 26, 28]
    assert list(VARIANTS["d20-44k"].layer_picks) == d20
    d24 = [layer for layer in range(1, 29) if layer not in (7, 14, 21, 27)]
    assert list(VARIANTS["d24-16k"].layer_picks) == d24
    assert VARIANTS["nano"].layer_picks == (1, 1, 2, 3, 4, 5, 6)
    for name in ("s32-16k", "d24-16k-3b"):
        picks, blocks = VARIANTS[name].layer_picks, VARIANTS[name].backbone.blocks
        assert len(picks) == blocks
        assert (picks[0], picks[-1]) == (1, VARIANTS[name].text_layers)
        assert all(0 <= b - a <= 2 for a, b in itertools.pairwise(picks))
    assert layer_picks(28, 1) == (1,)
    with pytest.raises(InputError, match="0 blocks"):
        layer_picks(28, 0)


def test_latent_frames() -> None:
    assert VARIANTS["d24-16k"].latent_fps == 31.25
    assert VARIANTS["d20-44k"].latent_fps == pytest.approx(43.066, abs=1e-3)
    assert VARIANTS["nano"].latent_fps * VARIANTS["nano"].max_seconds == 80
    frames = {
        (name, s): int(VARIANTS[name].latent_fps * s)
        for name in ("d24-16k", "d20-44k")
        for s in (10, 22)
    }
    assert list(frames.values()) == [312, 687, 430, 947]


def test_nano_is_small_and_of_the_same_kind() -> None:
    nano = VARIANTS["nano"]
    backbone = UnisonBackbone(nano.backbone)
    assert count(backbone) == 13_369_888
    assert (nano.latent_channels, nano.backbone.head_dim) == (32, 64)


def test_values_that_no_variant_can_have_are_refused() -> None:
    nano = VARIANTS["nano"]
    with pytest.raises(InputError, match="hop is 0; it must be above 0"):
        dataclasses.replace(nano, hop=0)
    with pytest.raises(InputError, match=r"'\[edit\]'; use '\[Edit\]\[Audio\]' or"):
        dataclasses.replace(nano, edit_tag_spelling="[edit]")


def test_unknown_variants_are_refused_with_the_valid_names() -> None:
    assert find_variant("nano") is VARIANTS["nano"]
    with pytest.raises(InputError, match=r"'giant'; use one of d20-44k, .*, nano"):
        find_variant("giant")

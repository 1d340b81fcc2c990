"""Edits done to the recording itself."""

import pytest
import torch
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.preserve import preserve_source

RATE = 16_000
INNER = slice(1024, -1024)


def noise(seed: int, seconds: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(1, int(seconds * RATE), generator=generator)


def tone(hertz: float, seconds: float = 1.0, phase: float = 0.0) -> Tensor:
    t = torch.arange(int(seconds * RATE)) / RATE
    return 0.1 * torch.sin(2 * torch.pi * hertz * t + phase)[None]


@pytest.mark.parametrize(
    ("adds", "removes"), [(True, True), (True, False), (False, True)], ids=["both", "adds", "takes"]
)
def test_what_the_model_left_alone_stays_as_it_was(adds: bool, removes: bool) -> None:
    source, copy = noise(0), noise(1)  # a codec that keeps nothing but the power
    kept = preserve_source(source, copy, copy, adds=adds, removes=removes)
    assert torch.allclose(kept, source, atol=1e-5)


def test_what_the_model_took_away_is_taken_from_the_recording() -> None:
    low, high = tone(500), tone(3000)
    copy_low, copy_high = tone(500, phase=1.0), tone(3000, phase=2.0)
    for adds in (False, True):
        kept = preserve_source(low + high, copy_low + copy_high, copy_low, adds=adds, removes=True)
        assert float((kept - low)[:, INNER].abs().max()) < 1e-3  # with the recording's own phase
    kept = preserve_source(low + high, copy_low + copy_high, copy_low, adds=True, removes=False)
    assert float((kept - low - high)[:, INNER].abs().max()) < 1e-3


@pytest.mark.parametrize("adds", [False, True])
def test_a_small_fall_is_not_done_to_the_recording(adds: bool) -> None:
    source, copy = tone(500), tone(500, phase=1.0)
    for fall_db, left_db in ((3.0, 0.0), (4.0, 0.0), (10.0, 6.0)):
        result = copy * 10 ** (-fall_db / 20)
        kept = preserve_source(source, copy, result, adds=adds, removes=True)[:, INNER]
        assert torch.allclose(kept, source[:, INNER] * 10 ** (-left_db / 20), atol=1e-4)


@pytest.mark.parametrize(
    ("fall_db", "speech", "share"),
    [(5.0, True, 0.0), (7.5, True, 0.5), (10.0, True, 1.0), (16.0, True, 1.0), (16.0, False, 0.0)],
)
def test_where_speech_goes_the_recording_gives_way(
    fall_db: float, speech: bool, share: float
) -> None:
    source, copy = tone(500), tone(500, phase=1.0)
    result = copy * 10 ** (-fall_db / 20)
    kept = preserve_source(source, copy, result, adds=False, removes=True, clears_speech=speech)
    softer = source * 10 ** ((4.0 - fall_db) / 20)
    expected = (1 - share) * softer + share * result
    assert torch.allclose(kept[:, INNER], expected[:, INNER], atol=1e-4)


def test_what_the_model_added_joins_the_recording() -> None:
    low, copy_low, new = tone(500), tone(500, phase=1.0), tone(3000, phase=0.5)
    for removes in (False, True):
        joined = preserve_source(low, copy_low, copy_low + new, adds=True, removes=removes)
        assert float((joined - low - new)[:, INNER].abs().max()) < 1e-3
    without = preserve_source(low, copy_low, copy_low + new, adds=False, removes=True)
    assert float((without - low)[:, INNER].abs().max()) < 1e-3


def test_a_small_rise_adds_nothing_and_a_larger_one_by_its_power() -> None:
    source, copy = tone(500), tone(500, phase=1.0)
    for rise_db in (3.0, 6.0, 16.0):
        result = copy * 10 ** (rise_db / 20)
        kept = preserve_source(source, copy, result, adds=True, removes=False)[:, INNER]
        weight = max(0.0, 1 - 10 ** ((6 - rise_db) / 10)) ** 0.5
        assert torch.allclose(kept, (source + weight * result)[:, INNER], atol=1e-4)


def test_rows_do_not_touch_each_other() -> None:
    source, copy, result = (torch.cat([noise(i), noise(i + 1)]) for i in (0, 2, 4))
    both = preserve_source(source, copy, result, adds=True, removes=True)
    single = preserve_source(source[1:], copy[1:], result[1:], adds=True, removes=True)
    assert torch.allclose(both[1:], single, atol=1e-6)


def test_a_result_of_another_length_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(1, 16000\).*\(1, 8000\)"):
        preserve_source(noise(0), noise(1), noise(2, 0.5), adds=True, removes=True)

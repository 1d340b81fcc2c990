"""Edits done to the recording itself."""

import pytest
import torch
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.keeping import keep_source

RATE = 16_000


def noise(seed: int, seconds: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(1, int(seconds * RATE), generator=generator)


def tone(hertz: float, seconds: float = 1.0, phase: float = 0.0) -> Tensor:
    t = torch.arange(int(seconds * RATE)) / RATE
    return 0.1 * torch.sin(2 * torch.pi * hertz * t + phase)[None]


@pytest.mark.parametrize("adds", [True, False])
def test_what_the_model_left_alone_stays_as_it_was(adds: bool) -> None:
    source, copy = noise(0), noise(1)  # a codec that keeps nothing but the power
    assert torch.allclose(keep_source(source, copy, copy, adds=adds), source, atol=1e-5)


def test_what_the_model_took_away_is_taken_from_the_recording() -> None:
    low, high = tone(500), tone(3000)
    copy_low, copy_high = tone(500, phase=1.0), tone(3000, phase=2.0)
    kept = keep_source(low + high, copy_low + copy_high, copy_low, adds=False)
    inner = slice(1024, -1024)
    assert float((kept - low)[:, inner].abs().max()) < 1e-3  # with the recording's own phase


def test_a_small_fall_is_not_done_to_the_recording_where_nothing_is_added() -> None:
    source, copy = tone(500), tone(500, phase=1.0)
    inner = slice(1024, -1024)
    for fall_db, left_db in ((3.0, 0.0), (4.0, 0.0), (10.0, 6.0)):
        result = copy * 10 ** (-fall_db / 20)
        kept = keep_source(source, copy, result, adds=False)[:, inner]
        assert torch.allclose(kept, source[:, inner] * 10 ** (-left_db / 20), atol=1e-4)
        followed = keep_source(source, copy, result, adds=True)[:, inner]
        assert torch.allclose(followed, source[:, inner] * 10 ** (-fall_db / 20), atol=1e-4)


def test_what_the_model_added_joins_the_recording() -> None:
    low, copy_low, new = tone(500), tone(500, phase=1.0), tone(3000, phase=0.5)
    inner = slice(1024, -1024)
    joined = keep_source(low, copy_low, copy_low + new, adds=True)
    assert float((joined - low - new)[:, inner].abs().max()) < 1e-3
    without = keep_source(low, copy_low, copy_low + new, adds=False)
    assert float((without - low)[:, inner].abs().max()) < 1e-3


def test_rows_do_not_touch_each_other() -> None:
    source, copy, result = (torch.cat([noise(i), noise(i + 1)]) for i in (0, 2, 4))
    both = keep_source(source, copy, result, adds=True)
    single = keep_source(source[1:], copy[1:], result[1:], adds=True)
    assert torch.allclose(both[1:], single, atol=1e-6)


def test_a_result_of_another_length_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(1, 16000\).*\(1, 8000\)"):
        keep_source(noise(0), noise(1), noise(2, 0.5), adds=True)

import os
import time

import pytest
import torch

from unison_audio.text.cache import StateCache
from unison_audio.text.states import TextStates


def states(seed, *, tokens=4, layers=2, dtype=torch.float32, penultimate=True):
    generator = torch.Generator().manual_seed(seed)
    return TextStates(
        hidden_states=torch.randn(1, layers, tokens, 8, generator=generator).to(dtype),
        mask=torch.ones(1, tokens, dtype=torch.bool),
        penultimate=torch.randn(1, tokens, 8, generator=generator).to(dtype)
        if penultimate
        else None,
    )


def assert_same(ours, theirs):
    assert torch.equal(ours.hidden_states, theirs.hidden_states)
    assert ours.hidden_states.dtype == theirs.hidden_states.dtype
    assert torch.equal(ours.mask, theirs.mask)
    assert (ours.penultimate is None) == (theirs.penultimate is None)
    if ours.penultimate is not None:
        assert torch.equal(ours.penultimate, theirs.penultimate)


@pytest.mark.parametrize(
    "change", [{}, {"dtype": torch.bfloat16}, {"penultimate": False}, {"layers": 0}]
)
def test_what_is_found_is_what_was_kept(tmp_path, change):
    cache = StateCache(tmp_path / "new" / "folder")
    assert cache.find("a") is None
    cache.keep("a", states(0, **change))
    assert_same(StateCache(tmp_path / "new" / "folder").find("a"), states(0, **change))
    assert cache.find("b") is None


def test_views_are_kept_without_what_surrounds_them(tmp_path):
    cache, batch = StateCache(tmp_path), states(0, tokens=1000)
    cut = TextStates(hidden_states=batch.hidden_states[:, :, :2], mask=batch.mask[:, :2])
    cache.keep("a", cut)
    assert cache._path("a").stat().st_size < 2000
    assert torch.equal(cache.find("a").hidden_states, cut.hidden_states)


def test_the_longest_unused_go_first(tmp_path):
    StateCache(tmp_path).keep("size", states(0))
    (size,) = (path.stat().st_size for path in tmp_path.iterdir())
    cache = StateCache(tmp_path, budget_bytes=3 * size)
    for age, key in enumerate(("size", "b", "a")):
        cache.keep(key, states(age))
        os.utime(cache._path(key), (1000 + age, 1000 + age))
    cache.find("size")  # now the one used last
    cache.keep("c", states(3))
    found = {path.stem for path in tmp_path.iterdir()}
    assert found == {"size", "a", "c"}
    StateCache(tmp_path, budget_bytes=1).keep("d", states(4))  # larger than the budget by itself
    assert {path.stem for path in tmp_path.iterdir()} == {"d"}


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: b"", lambda b: b[:-3] + b"xyz"])
def test_a_damaged_file_is_as_none_with_a_note(tmp_path, damage):
    cache = StateCache(tmp_path)
    cache.keep("a", states(0))
    path = cache._path("a")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="damaged"):
        assert cache.find("a") is None
    assert not path.exists()
    cache.keep("a", states(0))
    assert_same(cache.find("a"), states(0))


def test_unfinished_files_are_swept_up_when_they_are_old(tmp_path):
    old, young = tmp_path / "x.part", tmp_path / "y.part"
    old.touch()
    young.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    StateCache(tmp_path).keep("a", states(0))
    assert {path.name for path in tmp_path.iterdir()} == {"y.part", "a.safetensors"}


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="cannot keep"):
        StateCache(tmp_path / "file").keep("a", states(0))

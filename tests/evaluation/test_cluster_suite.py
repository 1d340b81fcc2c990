"""Jobs done here and through Ray; slow, since Ray takes its time to start."""

import os
from functools import partial
from pathlib import Path

import pytest
from benchmark_files import put_data
from test_suite import evaluate, outputs

from unison_audio import cluster as sharding
from unison_audio.cluster import spread
from unison_audio.errors import InputError


def square(number: int) -> int:
    if number < 0:
        raise InputError(f"{number} is below 0; give another.")
    return number * number


def test_everything_here() -> None:
    assert spread([partial(square, n) for n in (3, 1, 2)]) == [9, 1, 4]
    assert spread([os.getpid]) == [os.getpid()]
    with pytest.raises(InputError, match="-1 is below 0"):
        spread([partial(square, -1)])


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match="needs the package ray"):
        spread([partial(square, 1)], ray_address="local")


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch):
    # Ray makes its workers nicer than all others: where others compute, they wait for minutes.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    here = Path(__file__).parent
    # What is there stays: Ray itself may have been found through it, and its processes need it too.
    found = filter(None, (str(here), str(here.parent), os.environ.get("PYTHONPATH")))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(found))
    found = pytest.importorskip("ray")
    yield found
    found.shutdown()


@pytest.mark.slow
def test_two_ray_workers_give_the_same_table(ray, tiny_checkpoint, tmp_path) -> None:
    data = put_data(tmp_path / "data")
    options = {"sets": ["audio-editing", "gender-tts"], "systems": ("copy-source", "unison")}
    rows = evaluate(tiny_checkpoint, data, tmp_path / "here", **options)
    options |= {"ray_address": sharding.LOCAL, "workers": 2}
    again = evaluate(tiny_checkpoint, data, tmp_path / "ray", **options)
    assert again == rows
    assert outputs(tmp_path / "ray") == outputs(tmp_path / "here")
    for name in ("results.json", "tables.md"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


@pytest.mark.slow
def test_ray_says_what_is_wrong(ray) -> None:
    with pytest.raises(InputError, match=r"No Ray cluster can be reached at '127\.0\.0\.1:1'"):
        spread([partial(square, 1)], ray_address="127.0.0.1:1")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    address = sharding.LOCAL
    assert spread([partial(square, n) for n in (3, 1, 2)], ray_address=address) == [9, 1, 4]
    assert os.getpid() not in spread([os.getpid] * 2, ray_address=address)
    with pytest.raises(InputError, match=r"^-1 is below 0; give another\.$"):
        spread([partial(square, n) for n in (1, -1, 2)], ray_address=address)
    assert ray.is_initialized()  # a session of the caller's is left to the caller

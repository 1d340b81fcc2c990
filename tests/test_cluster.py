"""Work on a Ray cluster: the same files as here, also after a worker has been killed.

Slow, since Ray takes its time to start. A stand-in of Ray tests the order of work without it.
"""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from published import folder_of
from ray_processes import one_killed_when

from unison_audio.cli import main as cli
from unison_audio.cluster import (
    LOCAL,
    MOST_LOSSES,
    Cluster,
    LostJob,
    Workers,
    start_ray,
    workers_of,
)
from unison_audio.errors import InputError
from unison_audio.nano import corpus as nano_corpus
from unison_audio.nano.voices import VOICES


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch):
    # Ray makes its workers nicer than all others: where others compute, they wait for minutes.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *_source_path()]))
    found = pytest.importorskip("ray")
    yield found
    found.shutdown()


def _source_path() -> list[str]:
    return list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def die_once(mark: Path, number: int, state: str) -> tuple[str, int]:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return state, number


def die(state: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(state: str) -> None:
    raise InputError("This cannot be.")


class StandIn:
    """What `Workers` uses of Ray, at once and in this process; `Dead` stands for a lost process."""

    class Dead(Exception):
        pass

    def __init__(self) -> None:
        self.exceptions = SimpleNamespace(
            RayTaskError=type("No", (Exception,), {}), RayError=self.Dead
        )
        self.started = 0
        self.ended: list[Any] = []

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, kind: Any) -> Any:
        def make(*words: Any) -> Any:
            self.started += 1
            return Handle(kind(*words))

        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=make))

    def wait(self, references: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return references[:1], references[1:]

    def get(self, reference: Any) -> Any:
        if isinstance(reference.found, Exception):
            raise reference.found
        return reference.found

    def kill(self, worker: Any) -> None:
        self.ended.append(worker)


class Handle:
    """A worker of the stand-in."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.worker, name)
        return SimpleNamespace(remote=lambda *words: Reference(method, words))


class Reference:
    """A call of the stand-in, with its result or its error."""

    def __init__(self, method: Any, words: tuple[Any, ...]) -> None:
        try:
            self.found = method(*words)
        except Exception as error:
            self.found = error


def test_jobs_of_a_dead_worker_go_to_another_one() -> None:
    ray, tries = StandIn(), list[int]()

    def job(number: int, often: int, state: str) -> tuple[str, int]:
        tries.append(number)
        if tries.count(number) <= often:
            raise ray.Dead("the process died\nmore")
        return state, number

    workers = Workers(ray, lambda: "state", Cluster(address=LOCAL))
    begun: list[int] = []
    calls = [partial(job, number, often) for number, often in enumerate((0, 2, 9, 0))]
    done = dict(workers.run(calls, begun.append))
    assert done == {
        0: ("state", 0),
        1: ("state", 1),
        2: LostJob("the process died"),
        3: ("state", 3),
    }
    assert sorted(begun) == [0, 1, 2, 3]
    assert [tries.count(number) for number in range(4)] == [1, 3, MOST_LOSSES, 1]
    assert len(ray.ended) == 2 + MOST_LOSSES  # each dead one is ended for sure
    workers.close()
    assert len(ray.ended) == ray.started


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (LOCAL, r"Ray cannot be started on this machine \(The node timed out\); try again"),
        ("auto", r"No Ray cluster can be reached at 'auto' \(The node timed out\)"),
        ("127.0.0.1:1", r"No Ray cluster can be reached at '127\.0\.0\.1:1' \(\[Errno"),
    ],
)
def test_a_cluster_that_cannot_be_had_is_named(address: str, said: str) -> None:
    def init(**options: Any) -> None:
        raise Exception("The node timed out\nduring startup")  # as Ray does

    with pytest.raises(InputError, match=said):
        start_ray(SimpleNamespace(init=init), address)


def test_workers_that_die_at_their_start_are_no_endless_loop() -> None:
    ray = StandIn()

    def die() -> None:
        raise ray.Dead

    with pytest.raises(InputError, match=f"{MOST_LOSSES} workers died at their start"):
        list(Workers(ray, die, Cluster(address=LOCAL)).run([refuse]))
    with pytest.raises(InputError, match="takes 1 GPU and the cluster has 0"):
        Workers(ray, die, Cluster(address=LOCAL, gpus=1))


@pytest.mark.slow
def test_a_job_is_done_again_until_it_has_killed_three_workers(ray, tmp_path: Path) -> None:
    cluster = Cluster(address=LOCAL, workers=2)
    with workers_of(cluster, partial(str, "state")) as workers:
        begun: list[int] = []
        calls = [partial(die_once, tmp_path / "mark", number) for number in range(5)]
        done = dict(workers.run(calls, begun.append))
        assert done == {number: ("state", number) for number in range(5)}
        assert sorted(begun) == list(range(5))  # none twice, although one was done again
        first, second = sorted(workers.run([die, partial(die_once, tmp_path / "mark", 1)]))
        assert isinstance(first[1], LostJob)
        assert second == (1, ("state", 1))
        with pytest.raises(InputError, match=r"^This cannot be\.$"):
            list(workers.run([refuse]))
    with (
        pytest.raises(InputError, match=f"{MOST_LOSSES} workers died at their start"),
        workers_of(cluster, partial(die, "")) as workers,
    ):
        list(workers.run([refuse]))
    with (
        pytest.raises(InputError, match="takes 1 GPU and the cluster has 0"),
        workers_of(Cluster(address=LOCAL, workers=2, gpus=1), str),
    ):
        pass


@pytest.mark.slow
def test_a_batch_on_a_cluster_writes_the_same_bytes(ray, tmp_path: Path, capsys) -> None:
    jobs = tmp_path / "jobs.jsonl"
    lines: list[dict[str, object]] = [
        {"instruction": "[Audio] A dog barks.", "duration": 1 + 0.2 * n, "seed": n, "steps": 8}
        for n in range(6)
    ]
    lines.append({"instruction": "[Audio] A zeppelin hums.", "duration": 1, "steps": 2})
    jobs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    here, there = tmp_path / "here", tmp_path / "there"
    assert cli.main(["batch", str(jobs), "-o", str(here)]) == 0
    assert "zeppelin" in capsys.readouterr().err
    command = ["batch", str(jobs), "-o", str(there), "--ray-address", LOCAL]

    def has_results() -> bool:
        log = there / "results.jsonl"
        return log.is_file() and '"seconds"' in log.read_text()

    with one_killed_when(has_results) as killed:
        assert cli.main(command) == 0
    assert killed
    assert "zeppelin" in capsys.readouterr().err  # a worker's warning is told here
    assert contents(there) == contents(here)
    # A rerun makes what is missing, and no more.
    (there / "0003.wav").unlink()
    before = {path: path.stat().st_mtime_ns for path in there.glob("*.wav")}
    assert cli.main(command) == 0
    assert contents(there) == contents(here)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # A bad recording is refused before the first job, by its line.
    (tmp_path / "noise.wav").write_bytes(b"RIFF")
    bad = json.dumps({"instruction": "[Edit][Audio] Add rain.", "source": "noise.wav"})
    jobs.write_text(jobs.read_text() + bad + "\n")
    assert cli.main([*command[:3], str(tmp_path / "bad"), *command[4:]]) == 2
    assert "line 8" in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()


@pytest.mark.slow
def test_a_corpus_from_a_cluster_has_the_same_bytes(ray, tmp_path: Path) -> None:
    folder_of(tmp_path / "in", 1500, seconds=0.6)
    here, there = tmp_path / "here", tmp_path / "there"
    command = ["data", "folder", "--root", str(tmp_path / "in"), "--out"]
    assert cli.main([*command, str(here), "--workers", "1"]) == 0
    with one_killed_when(lambda: any(there.glob("*.partial"))) as killed:
        code = cli.main([*command, str(there), "--workers", "2", "--ray-address", LOCAL])
        assert code == 0
    assert killed
    assert contents(there) == contents(here)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_nanos_corpus_from_a_cluster_has_the_same_bytes(
    ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voices = [voice for voice in VOICES if voice.name in ("rms", "slt")]
    held_out = replace(voices[0], name="held-out", utterances=0)
    monkeypatch.setattr(nano_corpus, "VOICES", (*voices, held_out))
    here, there = tmp_path / "here", tmp_path / "there"
    nano_corpus.build(here, workers=1, scale=0.002)
    nano_corpus.build(there, workers=Cluster(address=LOCAL, workers=2), scale=0.002)
    assert contents(there) == contents(here)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--ray-address", LOCAL), "needs the package ray, which is missing"),
        (("--workers", "2"), "--workers goes with --ray-address"),
        (("--ray-address", LOCAL, "--workers", "0"), "workers is 0; it must be at least 1"),
    ],
)
def test_a_batch_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"instruction": "[Audio] A dog barks.", "duration": 1}\n')
    assert cli.main(["batch", str(jobs), "-o", str(tmp_path / "out"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--limit", "5"), "A limit of 5 clips takes one process"),
        ((), "needs the package ray, which is missing"),
        (("--workers", "0"), "workers is 0; it must be at least 1"),
    ],
)
def test_a_corpus_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, words: tuple[str, ...], said: str
) -> None:
    missing = None if "missing" in said else object()
    monkeypatch.setitem(sys.modules, "ray", missing)
    folder_of(tmp_path / "in", 3, seconds=0.6)
    command = ["data", "folder", "--root", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--ray-address", LOCAL, *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

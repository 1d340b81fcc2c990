"""Work on a Ray cluster: the same files as here, also after a worker has been killed.

Slow, since Ray takes its time to start.
"""

import json
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
from published import folder_of
from ray_processes import one_killed_when

from unison_audio.cli import main as cli
from unison_audio.cluster import LOCAL, MOST_LOSSES, Cluster, LostJob, workers_of
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
    voices = tuple(voice for voice in VOICES if voice.name in ("rms", "slt", "slt-top"))
    monkeypatch.setattr(nano_corpus, "VOICES", voices)
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

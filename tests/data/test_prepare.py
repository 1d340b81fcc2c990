import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from published import (
    emilia_tar,
    folder_of,
    read_index,
    read_shards,
)
from tiny_unison import tone_file

from unison_audio.data.prepare import clip, shard_writer
from unison_audio.data.prepare.clip import safe_key
from unison_audio.data.prepare.prepare import ingest
from unison_audio.errors import InputError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "in"
    folder_of(folder, 720, seconds=0.6)
    return folder


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    ingest("folder", root, out, workers=1, shard_clips=60)
    return out


def contents(out):
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_every_clip_is_there_once_and_the_index_says_what_is_where(root, whole):
    clips, index = read_shards(whole), read_index(whole)
    assert [record["key"] for record, _, _ in clips] == [str(n) for n in range(720)]
    for record, suffix, content in clips:
        source = root / record["source"].removeprefix("folder:")
        assert (suffix, content) == ("wav", source.read_bytes())
    assert (index["format"], index["corpus"], index["clips"]) == (1, "folder", 720)
    assert index["hours"] == pytest.approx(720 * 0.6 / 3600, abs=1e-4)
    assert index["by_kind"] == {"speech": {"clips": 720, "hours": index["hours"]}}
    assert index["sample_rates"] == {"8000": 720}
    assert (index["removed"], index["broken_files"], index["broken"]) == ({}, 0, [])
    assert (whole / "broken.jsonl").read_text() == ""
    for entry in index["shards"]:
        content = (whole / entry["name"]).read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["seconds"] == pytest.approx(0.6 * entry["clips"])
        assert (entry["kinds"], entry["splits"]) == (["speech"], ["train"])
    # Two parts, of 500 and of 220 rows.
    assert [entry["clips"] for entry in index["shards"]] == [60] * 8 + [20] + [60] * 3 + [40]
    names = {entry["name"] for entry in index["shards"]}
    assert {path.name for path in whole.iterdir()} == names | {"index.json", "broken.jsonl"}


def test_the_streaming_side_reads_the_shards(whole):
    import webdataset

    name = read_index(whole)["shards"][0]["name"]
    samples = list(webdataset.WebDataset(str(whole / name), shardshuffle=False, empty_check=False))
    assert len(samples) == 60
    assert set(samples[0]) >= {"wav", "json"}


def test_several_processes_write_the_same_bytes(root, whole, tmp_path):
    ingest("folder", root, tmp_path / "out", workers=3, shard_clips=60)
    assert contents(tmp_path / "out") == contents(whole)


def _run(root, out, workers):
    read = clip.ClipReader.read

    def slowly(self, clip):
        time.sleep(0.004)  # so that there is something to kill on a fast machine, too
        return read(self, clip)

    clip.ClipReader.read = slowly  # in this process and its workers only
    ingest("folder", root, out, workers=workers, shard_clips=60)


def killed_after(root, out, workers, seconds):
    """Runs an ingest in a process of its own and kills it with SIGKILL; True if it was running."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_run, args=(root, out, workers))
    process.start()
    process.join(seconds)
    running = process.is_alive()
    if running:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == (-signal.SIGKILL if running else 0)
    return running


@pytest.mark.parametrize("workers", [1, 2])
def test_kills_at_random_moments_lose_and_double_nothing(root, whole, tmp_path, workers):
    chance = random.Random(workers)
    out = tmp_path / "out"
    kills = sum(killed_after(root, out, workers, chance.uniform(0.02, 0.4)) for _ in range(8))
    assert kills >= 3
    ingest("folder", root, out, workers=workers, shard_clips=60)
    assert contents(out) == contents(whole)


def test_a_killed_run_is_not_begun_again_from_the_start(root, whole, tmp_path):
    out = tmp_path / "out"
    seconds = 0.35
    while len(list(out.glob("*.tar"))) < 3:
        assert killed_after(root, out, 1, seconds)
        seconds += 0.1  # a busy machine might not finish a shard in the first time
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    latest = max(before, key=lambda path: path.name)
    ingest("folder", root, out, workers=1, shard_clips=60)
    kept = [path for path, written in before.items() if path.stat().st_mtime_ns == written]
    assert set(before) - set(kept) <= {latest}  # at most one shard lacked its note
    assert contents(out) == contents(whole)


def test_workers_end_when_their_parent_is_killed(root, tmp_path):
    out = tmp_path / "out"
    assert killed_after(root, out, 2, 0.35)
    time.sleep(0.6)
    before = sorted(out.rglob("*"))
    time.sleep(0.3)
    assert sorted(out.rglob("*")) == before


def test_a_finished_ingest_is_not_repeated_and_other_settings_are_refused(root, whole):
    before = contents(whole)
    assert ingest("folder", root, whole, shard_clips=60) == whole / "index.json"
    assert contents(whole) == before
    with pytest.raises(InputError, match="was written with shard_clips 60, not 70"):
        ingest("folder", root, whole, shard_clips=70)
    with pytest.raises(InputError, match="was written with corpus folder, not libritts"):
        ingest("libritts", root, whole, shard_clips=60)


def test_only_one_ingest_writes_to_a_folder(root, tmp_path):
    process = multiprocessing.get_context("fork").Process(
        target=_run, args=(root, tmp_path / "out", 1)
    )
    process.start()
    work = tmp_path / "out/.ingest"
    while not [path for path in work.glob("*") if path.name != ".lock"]:  # written under the lock
        time.sleep(0.005)
    try:
        with pytest.raises(InputError, match="Another ingest writes"):
            ingest("folder", root, tmp_path / "out", workers=1, shard_clips=60)
    finally:
        process.kill()
        process.join()


def test_a_table_that_changed_since_the_plan_was_made_is_refused(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "in")
    assert killed_after(copy, tmp_path / "out", 1, 0.4)
    with (copy / "metadata.jsonl").open("a") as table:
        table.write('{"audio": "0/clip0000.wav", "text": "late"}\n')
    with pytest.raises(InputError, match="restore the old one, or delete the shards"):
        ingest("folder", copy, tmp_path / "out", workers=1, shard_clips=60)


def test_a_table_is_mended_after_its_refusal(tmp_path):
    audio, table, out = tmp_path / "in" / "0.wav", tmp_path / "in" / "metadata.csv", tmp_path / "o"
    audio.parent.mkdir()
    tone_file(audio, 1.0, 16_000)
    table.write_text("file,caption\n0.wav,rain\n")
    with pytest.raises(InputError, match="columns file, caption"):
        ingest("folder", audio.parent, out / "shards", workers=1)
    assert not out.exists()
    table.write_text("audio,caption\n0.wav,rain\n")
    assert (
        read_index(ingest("folder", audio.parent, out / "shards", workers=1).parent)["clips"] == 1
    )


def test_a_limit_ends_at_the_same_clips(root, whole, tmp_path):
    ingest("folder", root, tmp_path / "out", workers=4, shard_clips=60, limit=130)
    found = [record for record, _, _ in read_shards(tmp_path / "out")]
    assert found == [record for record, _, _ in read_shards(whole)][:130]


def test_shards_keep_to_their_size_in_bytes(root, tmp_path):
    ingest("folder", root, tmp_path / "out", workers=1, shard_bytes=200_000, limit=100)
    sizes = [entry["bytes"] for entry in read_index(tmp_path / "out")["shards"]]
    assert len(sizes) > 5
    assert max(sizes) <= 200_000 + 10_240  # a tar is filled up to whole records
    assert min(sizes[:-1]) > 180_000


def test_progress_rises_and_ends_at_one(root, tmp_path, monkeypatch):
    from unison_audio.data.prepare import prepare as module

    monkeypatch.setattr(module, "_EVERY", 0.0)
    told = []

    def tell(clips, share):
        told.append((clips, share))

    ingest("folder", root, tmp_path / "out", workers=1, shard_clips=60, on_progress=tell)
    assert told[-1] == (720, 1.0)
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert any(0.3 < share < 0.9 for share in shares)


def test_bad_calls_are_named(root, tmp_path):
    with pytest.raises(InputError, match="There is no corpus librits; choose one of wavcaps"):
        ingest("librits", root, tmp_path / "out")
    with pytest.raises(InputError, match="does not exist"):
        ingest("folder", tmp_path / "none", tmp_path / "out")
    with pytest.raises(InputError, match="lies in the corpus' folder"):
        ingest("folder", root, root / "shards")
    with pytest.raises(InputError, match="workers is 0; it must be at least 1"):
        ingest("folder", root, tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_keys_are_fit_for_tars_and_stay_different():
    assert safe_key("EN_B00000_S00000_W000000") == "EN_B00000_S00000_W000000"
    keys = ["a.b", "a/b", "a_b", "ä", "ö", "x" * 300, "x" * 301, "\udce4"]
    safe = [safe_key(key) for key in keys]
    assert len(set(safe)) == len(keys)
    assert max(map(len, safe)) <= 80
    assert all(key.isascii() and not set(key) & set("./ ") for key in safe)


def test_a_resumed_tar_gives_each_of_its_clips_once(tmp_path, monkeypatch):
    emilia_tar(tmp_path / "in/EN-B000000.tar", 12)
    ingest("emilia-en", tmp_path / "in", tmp_path / "whole", workers=1, shard_clips=4)
    finish = shard_writer.ShardWriter.finish

    def fail_at_the_second(self):
        if self.path.name.endswith("-000001.tar"):
            raise RuntimeError("power cut")
        return finish(self)

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer.ShardWriter, "finish", fail_at_the_second)
        with pytest.raises(RuntimeError, match="power cut"):
            ingest("emilia-en", tmp_path / "in", tmp_path / "out", workers=1, shard_clips=4)
    assert len(list((tmp_path / "out").glob("*.tar"))) == 1
    ingest("emilia-en", tmp_path / "in", tmp_path / "out", workers=1, shard_clips=4)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_named_and_the_next_run_resumes(root, whole, tmp_path, monkeypatch, workers):
    out = tmp_path / "out"
    opened = shard_writer.ShardWriter.open_partial

    def onto_a_full_disk(self):
        if self.path.name.endswith("-000003.tar"):
            return Path("/dev/full").open("wb")  # every write fails as on a full disk
        return opened(self)

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer.ShardWriter, "open_partial", onto_a_full_disk)
        with pytest.raises(InputError, match="is full; make room and run the same command again"):
            ingest("folder", root, out, workers=workers, shard_clips=60)
    assert not (out / "index.json").exists()
    assert not list(out.rglob("*.partial"))
    assert list(out.glob("*.tar"))
    ingest("folder", root, out, workers=workers, shard_clips=60)
    assert contents(out) == contents(whole)


def test_a_disk_that_is_full_while_planning_is_named(root, tmp_path, monkeypatch):
    from unison_audio.data.prepare import plan as ingest_plan

    connect = sqlite3.connect

    def small(path, **options):
        connection = connect(path, **options)
        connection.execute("pragma max_page_count = 8")  # SQLite then says that the disk is full
        return connection

    monkeypatch.setattr(ingest_plan.sqlite3, "connect", small)
    with pytest.raises(InputError, match="is full; make room"):
        ingest("folder", root, tmp_path / "out", workers=1)


def test_a_worker_that_is_killed_is_named_and_the_next_run_resumes(
    root, whole, tmp_path, monkeypatch
):
    add = shard_writer.ShardWriter.add

    def killed(self, sample):
        if sample.record.key == "600":
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, sample)

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer.ShardWriter, "add", killed)
        with pytest.raises(InputError, match="A worker was killed"):
            ingest("folder", root, tmp_path / "out", workers=2, shard_clips=60)
    ingest("folder", root, tmp_path / "out", workers=2, shard_clips=60)
    assert contents(tmp_path / "out") == contents(whole)

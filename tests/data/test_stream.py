import itertools
import json
import stat
import sys
import tracemalloc
from collections import Counter

import numpy as np
import pytest
import torch
from file_server import serve
from stream_files import RATE, encode, keys, noise, numbered, sample, write_corpus

from unison_audio.data import shards as shard_reading
from unison_audio.data import stream as stream_reading
from unison_audio.data.stream import ClipStream, SkippedClipsWarning, StreamConfig
from unison_audio.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(shard_reading, "RETRY_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(stream_reading, "BLOCK_CLIPS", 4)


def take(stream, count):
    return keys(itertools.islice(stream, count))


def open_stream(*corpora, **options):
    return ClipStream(corpora, StreamConfig(sample_rate=RATE, **options))


def first_epoch(stream):
    """The keys of a worker's first epoch."""
    found = []
    while True:
        clip = next(stream)
        if stream.position[1][0]["passes"][0][0]:
            return found
        found.append(clip.record.key)


def all_keys(shards, each):
    return {f"clip-{s}-{i}" for s in range(shards) for i in range(each)}


def test_every_clip_comes_once_an_epoch_in_an_order_of_its_own(tmp_path):
    stream = open_stream(write_corpus(tmp_path, numbered(5, 6)))
    given = [take(stream, 30) for _ in range(3)]
    assert all(set(epoch) == all_keys(5, 6) for epoch in given)
    assert len({tuple(epoch) for epoch in given}) == 3
    assert len({tuple(dict.fromkeys(key[5] for key in epoch)) for epoch in given}) > 1
    again = open_stream(tmp_path)
    assert [take(again, 30) for _ in range(3)] == given
    assert take(open_stream(tmp_path, seed=1), 30) != given[0]


@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
def test_ranks_share_an_epoch_also_where_they_are_more_than_the_shards(tmp_path, world):
    write_corpus(tmp_path, numbered(3, 10))
    parts = [first_epoch(open_stream(tmp_path, rank=rank, world=world)) for rank in range(world)]
    assert sorted(itertools.chain(*parts)) == sorted(all_keys(3, 10))
    assert all(parts)


def test_worker_processes_partition_the_share_of_a_rank(tmp_path):
    write_corpus(tmp_path, numbered(4, 6))
    streams = [open_stream(tmp_path, rank=rank, world=2, workers=2) for rank in range(2)]
    taken = itertools.chain(*(take(stream, 12) for stream in streams))
    assert Counter(taken) == Counter(all_keys(4, 6))


def test_corpora_are_drawn_by_their_numbers_of_clips(tmp_path):
    for name, each in (("a", 40), ("b", 10)):
        write_corpus(tmp_path / name, numbered(1, each, name), name=name)
    drawn = take(open_stream(tmp_path / "a", tmp_path / "b"), 300)
    part = sum(key.startswith("a") for key in drawn) / 300
    assert abs(part - 0.8) <= 3 * (0.8 * 0.2 / 300) ** 0.5


def broken_corpus(folder):
    shards = numbered(4, 7)
    shards[1][3] = sample("clip-1-3", "mp3", b"\xff\xfbno music")
    shards[2][0] = sample("clip-2-0", "wav", encode(np.full(400, np.nan), RATE, "wav", "FLOAT"))
    write_corpus(folder, shards)
    path = folder / "test-all-000003.tar"
    path.write_bytes(path.read_bytes()[:4000])
    return folder


@pytest.mark.filterwarnings("ignore::unison_audio.data.stream.SkippedClipsWarning")
@pytest.mark.parametrize("before", [0, 1, 3, 4, 10, 29, 47])
def test_a_resumed_stream_gives_the_same_clips(tmp_path, before):
    folder = broken_corpus(tmp_path / "a")
    other = write_corpus(tmp_path / "b", numbered(2, 3, "other"), name="other")
    whole = open_stream(folder, other)
    take(whole, before)
    state = json.loads(json.dumps(whole.state_dict()))
    rest, skipped = take(whole, 60), whole.skipped
    assert len(skipped) == 3
    resumed = open_stream(folder, other)
    resumed.load_state_dict([state])
    assert resumed.exact
    assert take(resumed, 60) == rest
    assert resumed.skipped == skipped


def test_a_resumed_stream_gives_the_same_crops(tmp_path):
    write_corpus(tmp_path, numbered(1, 6, seconds=0.5))
    whole = open_stream(tmp_path, max_seconds=0.1)
    next(whole)
    state = whole.state_dict()
    resumed = open_stream(tmp_path, max_seconds=0.1)
    resumed.load_state_dict([state])
    for ours, theirs in itertools.islice(zip(resumed, whole, strict=False), 12):
        assert len(ours.waveform) == 0.1 * RATE
        assert torch.equal(ours.waveform, theirs.waveform)


def test_a_resumed_stream_with_worker_processes_gives_the_same_clips(tmp_path):
    write_corpus(tmp_path / "corpus", numbered(3, 8))
    whole = open_stream(tmp_path / "corpus", workers=2)
    take(whole, 7)
    torch.save(whole.state_dict(), tmp_path / "state.pt")
    rest = take(whole, 30)
    resumed = open_stream(tmp_path / "corpus", workers=2)
    resumed.load_state_dict([torch.load(tmp_path / "state.pt", weights_only=True)])
    assert take(resumed, 30) == rest


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 1), (1, 5)])
@pytest.mark.parametrize("taken", [0, 5, 9])
def test_on_other_ranks_no_clip_of_the_epoch_is_lost(tmp_path, before, after, taken):
    write_corpus(tmp_path, numbered(4, 8))
    given, states = Counter(), []
    for rank in range(before):
        stream = open_stream(tmp_path, rank=rank, world=before)
        given.update(take(stream, taken))
        states.append(stream.state_dict())
    later = []
    for rank in range(after):
        stream = open_stream(tmp_path, rank=rank, world=after)
        stream.load_state_dict(states)
        assert not stream.exact
        later.append(stream)
    for stream in later:
        given.update(first_epoch(stream))
    assert set(given) == all_keys(4, 8)
    # A block of 4 in hand each, and what the quickest had of the next epoch.
    assert sum(given.values()) <= 32 + before * 4 + before * max(0, taken - 8)
    changed = [stream.state_dict() for stream in later]
    back = [open_stream(tmp_path, rank=rank, world=before) for rank in range(before)]
    for stream in back:
        stream.load_state_dict(
            changed
        )  # and once more, in the middle of the epochs partitioned anew
    assert {key for stream in back for key in take(stream, 32)} == all_keys(4, 8)


def test_a_state_that_does_not_fit_is_refused(tmp_path):
    a = write_corpus(tmp_path / "a", numbered(2, 2), name="a")
    b = write_corpus(tmp_path / "b", numbered(2, 2), name="b")
    state = open_stream(a, rank=1, world=2).state_dict()
    with pytest.raises(InputError, match=r"corpora \[\['a', 2\]\] and not \[\['b', 2\]\]"):
        open_stream(b).load_state_dict([state])
    with pytest.raises(InputError, match="seed 0 and not 3"):
        open_stream(a, seed=3).load_state_dict([state])
    with pytest.raises(InputError, match=r"ranks; give the states of all"):
        open_stream(a).load_state_dict([state])


def test_other_kinds_splits_and_lengths_are_left_out(tmp_path):
    shards = [
        [
            sample("speech-1", kind="speech", text="yes"),
            sample("sound-1"),
            sample("held-1", split="heldout"),
            sample("long-1", seconds=0.3),
            sample("speech-2", kind="speech", text="a long time", seconds=0.3),
        ]
    ]
    write_corpus(tmp_path, shards)
    # A longer sound is cropped; longer speech is left out, for its text has more words.
    stream = open_stream(tmp_path, kind="sound", max_seconds=0.2)
    assert set(take(stream, 10)) == {"sound-1", "long-1"}
    assert not stream.skipped
    stream = open_stream(tmp_path, kind="speech", max_seconds=0.2)
    assert set(take(stream, 5)) == {"speech-1"}
    assert stream.skipped["longer than wanted"] > 0
    assert set(take(open_stream(tmp_path, split="heldout"), 3)) == {"held-1"}


def test_held_out_speakers_are_held_out_too(tmp_path):
    heard = [sample("heard", split="train")]
    unheard = [sample("clip", split="heldout"), sample("voice", split="speakers")]
    write_corpus(tmp_path, [heard, unheard])
    index = json.loads((tmp_path / "index.json").read_text())
    for entry, splits in zip(index["shards"], (["train"], ["heldout", "speakers"]), strict=True):
        entry["splits"] = splits
    (tmp_path / "index.json").write_text(json.dumps(index))
    for split, expected in (
        ("train", {"heard"}),
        ("heldout", {"clip", "voice"}),
        ("speakers", {"voice"}),
        (None, {"heard", "clip", "voice"}),
    ):
        stream = open_stream(tmp_path, split=split)
        assert len(stream.corpora[0].index.names) == 1 + (split is None)
        assert set(take(stream, 12)) == expected


def test_broken_clips_are_counted_and_warned_of_once_a_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(stream_reading, "BLOCK_CLIPS", 100)
    good = [sample(f"good-{i}") for i in range(3)]
    bad = [
        sample("mp3", "mp3", b"\xff\xfb" + bytes(range(256)) * 8),
        sample("cut", "flac", encode(noise("cut", 1.0))[:2000]),
        sample("nan", "wav", encode(np.full(400, np.nan), RATE, "wav", "FLOAT")),
        sample("infinite", "wav", encode(np.full(400, np.inf), RATE, "wav", "FLOAT")),
        sample("silent", "flac", encode(np.zeros(400))),
        sample("half", "flac", json=b'{"key": "half"'),
        sample("latin", "flac", json='{"caption": "déjà vu"}'.encode("latin-1")),
        sample("numbers", "flac", label=7),
        sample("nameless", "flac", label=""),
        sample("huge", "flac", caption="a" * (1 << 20)),
        {"__key__": "mute", "json": sample("mute")["json"]},
    ]
    folder = write_corpus(tmp_path, [good + bad])
    stream = open_stream(folder)
    with pytest.warns(SkippedClipsWarning) as told:
        drawn = take(stream, 3)
    assert sorted(drawn) == ["good-0", "good-1", "good-2"]
    assert len(told) == 1
    assert "test-all-000000.tar" in str(told[0].message)
    take(stream, 3)
    take(stream, 1)
    skipped = stream.skipped
    assert {reason: round(count / 2) for reason, count in skipped.items()} == {
        "broken sound": 2,
        "samples that are not finite": 2,
        "silence": 1,
        "broken record": 6,
    }


def test_a_truncated_shard_gives_its_whole_clips_and_counts_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(stream_reading, "BLOCK_CLIPS", 100)
    write_corpus(tmp_path, numbered(1, 8))
    path = tmp_path / "test-all-000000.tar"
    content = path.read_bytes()
    for size in range(512, len(content) // 2, 700):
        path.write_bytes(content[:size])
        stream = open_stream(tmp_path)
        try:
            with pytest.warns(SkippedClipsWarning, match="shard cut short"):
                first = first_epoch(stream)
        except InputError:  # not one whole clip
            assert size < 4000
            continue
        whole = content[:size].count(b'"clip-0-')  # records that are there
        assert len(first) in (whole, whole - 1)
        assert set(first) == {f"clip-0-{i}" for i in range(len(first))}
        assert stream.skipped == {"shard cut short": 2 * (8 - len(first))}  # a second epoch began


def test_a_shard_that_vanishes_is_skipped_and_counted(tmp_path):
    write_corpus(tmp_path, numbered(3, 5))
    stream = open_stream(tmp_path)
    take(stream, 15)
    (tmp_path / "test-all-000001.tar").unlink()
    with pytest.warns(SkippedClipsWarning, match="shard cannot be read") as told:
        left = [take(stream, 10) for _ in range(3)]
    assert all(set(epoch) == {f"clip-{s}-{i}" for s in (0, 2) for i in range(5)} for epoch in left)
    assert len(told) == 1
    next(stream)
    assert stream.skipped == {"shard cannot be read": 15}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore::unison_audio.data.stream.SkippedClipsWarning")
def test_nothing_but_broken_ends_with_a_message(tmp_path, workers, monkeypatch):
    monkeypatch.setitem(stream_reading.MOST_IN_A_ROW, "clips", 200)
    for name in ("corrupt", "gone"):
        write_corpus(tmp_path / name, [[sample(f"clip-{i}", "mp3", b"nothing") for i in range(50)]])
    (tmp_path / "gone" / "test-all-000000.tar").unlink()
    with pytest.raises(InputError, match=r"^200 clips of the corpus test in a row"):
        next(open_stream(tmp_path / "corrupt", workers=workers))
    with pytest.raises(InputError, match=r"^32 shards of the corpus test in a row.*000000\.tar"):
        next(open_stream(tmp_path / "gone", workers=workers))


def served_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_come_over_http_also_when_a_transfer_breaks_off(tmp_path):
    folder = write_corpus(tmp_path, numbered(2, 6, seconds=2.0))
    local = take(open_stream(folder), 24)
    with serve(served_files(folder)) as served:
        stream = open_stream(served.url)
        assert take(stream, 12) == local[:12]
        served.break_after = 150_000
        assert take(stream, 12) == local[12:]
        assert sum(path != "/index.json" for path, _ in served.asked) >= 5
        assert not stream.skipped
        with pytest.raises(InputError, match=r"no index http://.*/nowhere/index\.json"):
            open_stream(f"{served.url}/nowhere")


def test_a_shard_that_the_server_has_no_more_is_skipped(tmp_path):
    folder = write_corpus(tmp_path, numbered(2, 4))
    with serve(served_files(folder)) as served:
        del served.files["test-all-000000.tar"]
        stream = open_stream(served.url)
        with pytest.warns(SkippedClipsWarning, match="shard cannot be read"):
            assert set(take(stream, 8)) == {f"clip-1-{i}" for i in range(4)}


def test_shards_come_from_s3_through_its_own_program(tmp_path, monkeypatch):
    write_corpus(tmp_path / "bucket" / "my corpus", numbered(2, 3))
    program = tmp_path / "bin" / "aws"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        "s3, cp, quiet, url, out = sys.argv[1:]\n"
        "assert (s3, cp, quiet, out) == ('s3', 'cp', '--only-show-errors', '-')\n"
        f"path = pathlib.Path({str(tmp_path)!r}, url.removeprefix('s3://'))\n"
        "sys.stdout.buffer.write(path.read_bytes())\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    stream = open_stream("s3://bucket/my corpus")
    assert set(take(stream, 6)) == all_keys(2, 3)
    with pytest.raises(InputError, match=r"no index s3://bucket/other/index\.json"):
        open_stream("s3://bucket/other")


def test_what_cannot_be_opened_is_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"no index .*nowhere/index\.json"):
        open_stream(tmp_path / "nowhere")
    with pytest.raises(InputError, match="scheme 'telnet'; use a path or one of http, https"):
        open_stream("telnet://host/corpus")
    (tmp_path / "index.json").write_text('{"format": 9}')
    with pytest.raises(InputError, match="format 9 where 1 is understood"):
        open_stream(tmp_path)
    (tmp_path / "index.json").write_text('{"format": 1, "shards": 3}')
    with pytest.raises(InputError, match="is no index"):
        open_stream(tmp_path)
    write_corpus(tmp_path, numbered(1, 1), kinds=["sound"])
    with pytest.raises(InputError, match="no speech of the split 'train'"):
        open_stream(tmp_path, kind="speech")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="read with curl, which is missing"):
        open_stream("https://host/corpus")


def test_an_index_cannot_lead_out_of_its_folder(tmp_path):
    write_corpus(tmp_path, numbered(1, 1))
    index = json.loads((tmp_path / "index.json").read_text())
    index["shards"][0]["name"] = "../test-all-000000.tar"
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="in other folders"):
        open_stream(tmp_path)


def test_an_index_of_36_million_clips_takes_little_memory(tmp_path):
    shards = [
        {
            "name": f"test-{i // 100:04d}-{i % 100:06d}.tar",
            "clips": 5000,
            "seconds": 30_000.0,
            "bytes": 10**9,
            "kinds": ["sound"],
            "splits": ["train"],
            "sha256": f"{i:064x}",
        }
        for i in range(7200)
    ]
    (tmp_path / "index.json").write_text(
        json.dumps({"format": 1, "corpus": "test", "shards": shards})
    )
    del shards
    tracemalloc.start()
    stream = open_stream(tmp_path, world=64)
    stream.state_dict()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert stream.clips == 36_000_000
    assert held < 2e6
    assert peak < 30e6

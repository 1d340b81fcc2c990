import json

import numpy as np
import pytest
import torch
from stream_files import encode, keys, sample, write_corpus
from test_records import clip

from unison_audio import device
from unison_audio.data.prepare.shard_writer import write_shard
from unison_audio.data.shards import read_corpus, read_shard
from unison_audio.data.stream import StreamConfig
from unison_audio.data.stream_pools import StreamPools
from unison_audio.errors import InputError
from unison_audio.nano import corpus as nano_corpus
from unison_audio.nano.corpus_name import require_nano_corpus
from unison_audio.tasks.clips import ClipLimits


def write_nano(folder, shards):
    """A corpus as `unison-audio data nano` writes it."""
    return nano_corpus.write_index(
        folder, {name: write_shard(folder / name, clips, 16_000) for name, clips in shards.items()}
    )


def test_a_nano_corpus_is_read_by_split_and_kind_in_the_order_of_its_shards(tmp_path):
    shards = {
        "b.tar": [clip("four", kind="speech")],
        "a.tar": [clip("one"), clip("two", split="heldout"), clip("three", split="speakers")],
    }
    write_nano(tmp_path, shards)
    assert keys(read_corpus(tmp_path, 16_000)) == ["one", "two", "three", "four"]
    assert keys(read_corpus(tmp_path, 16_000, split="train")) == ["one", "four"]
    assert keys(read_corpus(tmp_path, 16_000, split="heldout")) == ["two"]
    assert keys(read_corpus(tmp_path, 16_000, kind="speech")) == ["four"]


def test_the_clips_are_those_of_the_shards_to_the_bit(tmp_path):
    write_nano(tmp_path, {"a.tar": [clip("one"), clip("three")], "b.tar": [clip("seven-x")]})
    read = read_corpus(tmp_path, 16_000)
    direct = [c for name in ("a.tar", "b.tar") for c in read_shard(tmp_path / name, 16_000)]
    assert [c.record for c in read] == [c.record for c in direct]
    for ours, theirs in zip(read, direct, strict=True):
        assert torch.equal(ours.waveform, theirs.waveform)


def test_a_nano_corpus_is_streamed_as_any_other(tmp_path):
    clips = [clip(f"sound-{number}") for number in range(6)]
    write_nano(tmp_path, {"a.tar": clips})
    config = StreamConfig(sample_rate=16_000, max_seconds=1.0)
    pools = StreamPools([tmp_path], config, held_seconds=10.0)
    drawn = pools.draw("sound", 4, ClipLimits(max_seconds=1.0), torch.Generator().manual_seed(0))
    assert {sound.record.label for sound in drawn} == {"a beep"}


def test_a_public_corpus_of_any_format_and_rate_is_read_alike(tmp_path):
    stereo = 0.1 * np.random.default_rng(0).standard_normal((4410, 2))
    shards = [
        [
            sample("flac", seconds=0.1),
            sample("wav", "wav", encode(stereo, 44_100, "wav"), seconds=0.1, sample_rate=44_100),
        ]
    ]
    write_corpus(tmp_path, shards, name="audiocaps")
    clips = read_corpus(tmp_path, 16_000, split="train", kind="sound")
    assert keys(clips) == ["flac", "wav"]
    assert [one.waveform.shape for one in clips] == [(1600,), (1600,)]
    with pytest.raises(InputError, match=r"Judging needs nano's own corpus, .* audiocaps"):
        require_nano_corpus(tmp_path, "Judging")
    with pytest.raises(InputError, match="holds the corpus audiocaps; choose another folder"):
        nano_corpus.build(tmp_path)


def test_a_shard_without_what_is_wanted_is_not_opened(tmp_path):
    write_nano(tmp_path, {"a.tar": [clip("one")], "b.tar": [clip("two", split="heldout")]})
    (tmp_path / "b.tar").write_bytes(b"no shard at all")
    assert keys(read_corpus(tmp_path, 16_000, split="train")) == ["one"]
    with pytest.raises(InputError, match=r"b\.tar is damaged"):
        read_corpus(tmp_path, 16_000, split="heldout")


@pytest.mark.parametrize("content", [b"no sound", encode(np.zeros(1600), 16_000, "wav")])
def test_a_bad_clip_is_named_before_the_run_begins(tmp_path, content):
    shards = [[sample("good", "wav", encode(np.full(1600, 0.1), 16_000, "wav"), seconds=0.1)]]
    shards[0].append(sample("bad-one", "wav", content, seconds=0.1))
    write_corpus(tmp_path, shards, name="audiocaps")
    with pytest.raises(InputError, match=r"\.tar is damaged \(its clip bad-one: .*\); delete it"):
        read_corpus(tmp_path, 16_000)


def test_half_a_shard_is_named_before_the_run_begins(tmp_path):
    write_nano(tmp_path, {"a.tar": [clip("one")], "b.tar": [clip("two"), clip("three")]})
    whole = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"b\.tar is damaged \(three\.flac has 0 of"):
        read_corpus(tmp_path, 16_000)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(InputError, match=r"no index .*index\.json"):
        read_corpus(tmp_path, 16_000)
    write_nano(tmp_path, {"a.tar": [clip("one")]})
    with pytest.raises(InputError, match="There is no speech of the split 'train'"):
        read_corpus(tmp_path, 16_000, kind="speech", split="train")


def test_a_corpus_of_the_earlier_format_says_what_to_run_and_is_replaced(tmp_path):
    write_shard(tmp_path / "a.tar", [clip("one")], 16_000)
    old = tmp_path / "manifest.json"
    old.write_text(json.dumps({"shards": {"a.tar": {}}}))
    with pytest.raises(InputError, match=r"earlier format \(manifest\.json\).*data nano --out"):
        read_corpus(tmp_path, 16_000)
    write_nano(tmp_path, {"a.tar": [clip("one")]})
    assert not old.exists()
    assert keys(read_corpus(tmp_path, 16_000)) == ["one"]


def test_a_corpus_too_large_for_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    write_nano(tmp_path, {"a.tar": [clip("one")]})
    monkeypatch.setattr(device, "available_memory", lambda: 1000)
    with pytest.raises(InputError, match=r"GB of memory where 0\.0 GB are free.*data --limit"):
        read_corpus(tmp_path, 16_000)

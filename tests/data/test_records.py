import pytest
import torch

from unison_audio.data.prepare.shard_writer import write_shard
from unison_audio.data.records import Clip, ClipRecord
from unison_audio.data.shards import read_shard
from unison_audio.errors import InputError


def clip(key, kind="sound", split="train"):
    record = ClipRecord(
        key=key,
        kind=kind,
        split=split,
        seconds=0.1,
        licence="CC0-1.0",
        source="made by the test",
        label="a beep",
        caption="A beep: déjà vu.",
    )
    generator = torch.Generator().manual_seed(len(key))
    return Clip(record=record, waveform=0.1 * torch.randn(1600, generator=generator))


def test_a_shard_gives_back_what_was_written(tmp_path):
    clips = [clip("one"), clip("three"), clip("seven-x")]
    write_shard(tmp_path / "a.tar", clips, 16_000)
    read = list(read_shard(tmp_path / "a.tar", 16_000))
    assert [c.record for c in read] == [c.record for c in clips]
    for ours, theirs in zip(read, clips, strict=True):
        assert torch.allclose(ours.waveform, theirs.waveform, atol=1 / 32768)


def test_the_same_clips_give_the_same_bytes(tmp_path):
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / name, [clip("one"), clip("two")], 16_000)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_shard_that_fails_half_way_does_not_appear(tmp_path):
    def broken():
        yield clip("one")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_shard(tmp_path / "a.tar", broken(), 16_000)
    assert not (tmp_path / "a.tar").exists()


def test_a_damaged_shard_is_named_and_another_rate_resampled(tmp_path):
    write_shard(tmp_path / "a.tar", [clip("one"), clip("two")], 16_000)
    assert [len(c.waveform) for c in read_shard(tmp_path / "a.tar", 44_100)] == [4410, 4410]
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(data[:700])
    with pytest.raises(InputError, match=r"b\.tar is damaged"):
        list(read_shard(tmp_path / "b.tar", 16_000))

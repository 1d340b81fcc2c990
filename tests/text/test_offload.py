import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unison_audio.errors import InputError
from unison_audio.text.offload import Shards

STATUS = Path("/proc/self/status")
MIB = 1 << 20


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    shards = {
        "a.safetensors": {
            "text.half": torch.randn(5, 3).bfloat16(),
            "text.odd": torch.randn(7).half(),
            "audio.weight": torch.randn(4),
        },
        "b.safetensors": {"text.scalar": torch.tensor(2.0), "text.full": torch.randn(3, 2, 4)},
    }
    for name, tensors in shards.items():
        save_file(tensors, tmp_path / name)
    write_index(tmp_path, {key: name for name, each in shards.items() for key in each})
    return tmp_path


def write_index(folder, weight_map):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_tensors_are_those_that_safetensors_reads(folder):
    shards = Shards(folder, "text.")
    expected = load_file(folder / "a.safetensors") | load_file(folder / "b.safetensors")
    assert set(shards.names) == {"half", "odd", "scalar", "full"}
    for name in shards.names:
        tensor = shards.tensor(name)
        assert tensor.dtype == expected[f"text.{name}"].dtype
        assert torch.equal(tensor, expected[f"text.{name}"])
    assert torch.equal(shards.rows("half", [4, 0, 4]), expected["text.half"][[4, 0, 4]])


def test_a_tensor_can_be_read_after_its_release(folder):
    shards = Shards(folder, "text.")
    before = shards.tensor("full")
    copy = before.clone()
    shards.release(shards.names)
    assert torch.equal(before, copy)


def test_the_fingerprint_is_of_the_content(folder):
    first = Shards(folder, "text.").fingerprint()
    assert first == Shards(folder, "text.").fingerprint()
    tensors = load_file(folder / "b.safetensors")
    tensors["text.full"] = tensors["text.full"] + 1
    save_file(tensors, folder / "b.safetensors")
    assert first != Shards(folder, "text.").fingerprint()


@pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells what of a file is in memory")
def test_only_what_is_used_is_in_memory(tmp_path):
    save_file({"w": torch.ones(64 * MIB // 4096, 1024)}, tmp_path / "a.safetensors")
    write_index(tmp_path, {"w": "a.safetensors"})
    shards = Shards(tmp_path, "")

    def mapped():
        line = next(line for line in STATUS.read_text().splitlines() if "RssFile" in line)
        return int(line.split()[1]) * 1024

    before = mapped()
    picked = shards.tensor("w")[torch.tensor([10, 9000])]
    assert float(picked.sum()) == 2048
    assert mapped() - before < 8 * MIB
    assert float(shards.tensor("w").sum()) == 64 * MIB / 4
    assert mapped() - before > 60 * MIB
    shards.release(["w"])
    assert mapped() - before < 8 * MIB
    shards.rows("w", range(0, 16384, 64))
    assert mapped() - before < 8 * MIB


def test_files_that_cannot_be_used_are_refused(folder):
    def refuses(message):
        with pytest.raises(InputError, match=message):
            Shards(folder, "text.")

    with pytest.raises(InputError, match=r"names no tensor talker\."):
        Shards(folder, "talker.")
    with pytest.raises(InputError, match="no tensor for other"):
        Shards(folder, "text.").tensor("other")
    whole = (folder / "b.safetensors").read_bytes()
    (folder / "b.safetensors").write_bytes(whole[:-1])
    refuses(f"has {len(whole) - 1} bytes instead of {len(whole)}")
    (folder / "b.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid")
    refuses("is not a safetensors file")
    save_file({"text.full": torch.zeros(1)}, folder / "b.safetensors")
    refuses(r"has no tensor text\.scalar")
    (folder / "b.safetensors").unlink()
    refuses(r"lacks b\.safetensors")
    (folder / "model.safetensors.index.json").write_text("[]")
    refuses("not an index")

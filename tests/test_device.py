import types

import pytest
import torch

from unison_audio import device as memory


def test_available_memory_is_less_than_there_is_and_within_a_containers_limit(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    free = memory.available_memory()
    assert 1 << 20 < free < 1 << 50
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert memory.available_memory() > 1 << 20
    (tmp_path / "memory.max").write_text("5000\n")
    assert memory.available_memory("cpu") == 4000


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ({"architecture": "x86_64", "avx512_bf16": True}, torch.bfloat16),
        ({"architecture": "x86_64", "amx_bf16": True}, torch.bfloat16),
        ({"architecture": "x86_64", "avx512_f": True}, torch.float32),
        ({"architecture": "aarch64", "bf16": True}, torch.bfloat16),
        ({"architecture": "aarch64", "neon": True}, torch.float32),
    ],
)
def test_bfloat16_where_the_processor_has_instructions_for_it(monkeypatch, able, expected):
    cpu = types.SimpleNamespace(get_capabilities=lambda: able)
    monkeypatch.setattr(memory.torch, "cpu", cpu)
    monkeypatch.setattr(memory, "bfloat16_ratio", lambda: 0.5)
    assert memory.preferred_dtype("cpu") == expected
    monkeypatch.setattr(memory, "bfloat16_ratio", lambda: 0.9)
    assert memory.preferred_dtype("cpu") == torch.float32  # instructions that do not pay


def test_the_probe_measures_a_time_and_measures_it_once():
    memory.bfloat16_ratio.cache_clear()
    first = memory.bfloat16_ratio()
    assert 0.02 < first < 100
    assert memory.bfloat16_ratio() == first

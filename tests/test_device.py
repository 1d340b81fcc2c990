import os
import platform
import subprocess
import sys
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


FRAGMENTS = """
import pathlib, re, torch
from unison_audio.device import return_large_blocks

def kept_megabytes(sizes):
    before = resident()
    pins = []
    for size in sizes:  # each too large for the holes that the ones before left
        block = torch.ones(size << 18)
        pins.append(torch.ones(1 << 18))
        del block
    return (resident() - before) / 1000

def resident():
    return int(re.search(r"RssAnon:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

large = torch.ones(31 << 18)  # 31 MiB; freed, it raises glibc's limit
del large
first = kept_megabytes(range(10, 30))
print(first, return_large_blocks(), kept_megabytes(range(10, 31)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_blocks_go_back_to_the_system():
    command = [sys.executable, "-c", FRAGMENTS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, able, after = done.stdout.split()
    assert able == "True"
    # Without the limit, what is kept depends on what the process has freed before.
    assert float(before) > 2 * float(after)
    assert float(after) < 40  # the pins
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(64 << 20)}
    code = "from unison_audio.device import return_large_blocks; print(return_large_blocks())"
    command[-1] = code
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "False"

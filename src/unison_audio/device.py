"""Properties of a device: its free memory, and the type it multiplies fast."""

import os
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")
"""Folder in which Linux states the limits of a container."""


def available_memory(device: torch.device | str = "cpu") -> int | None:
    """Free memory of a device in bytes; None if unknown.

    On the CPU it is the memory that programs can use without swapping, limited by the container.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    amounts = [amount for amount in (_free_of_system(), _free_of_container()) if amount is not None]
    return min(amounts, default=None)


def preferred_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 where the device multiplies it fast, else float32.

    Processors need instructions for it: AMX, AVX-512 BF16 or Arm's BF16.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return torch.float32
    able = torch.cpu.get_capabilities()
    if able.get("architecture") == "x86_64":
        fast = able.get("amx_bf16", False) or able.get("avx512_bf16", False)
    else:
        fast = able.get("bf16", False)
    return torch.bfloat16 if fast else torch.float32


def _free_of_system() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:  # macOS states only the total; half of it is assumed to be in use
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return None


def _free_of_container() -> int | None:
    try:
        limit = int((CGROUP / "memory.max").read_text("ascii"))
        return max(limit - int((CGROUP / "memory.current").read_text("ascii")), 0)
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return None

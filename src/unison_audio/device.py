"""Properties of a device, and the settings of torch that a caller's program may have changed."""

import contextlib
import ctypes
import os
import platform
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

from unison_audio.errors import InputError
from unison_audio.values import shown

LARGE_BLOCK = 8 << 20
"""Bytes from which `return_large_blocks` has freed memory returned at once."""

_M_MMAP_THRESHOLD = -3
"""Name of the setting in glibc's malloc.h."""

CGROUP = Path("/sys/fs/cgroup")
"""Folder in which Linux states the limits of a container."""


PROBE_ROWS, PROBE_WIDTH, PROBE_REPETITIONS = 256, 1024, 6
"""Size of the product that is timed: 0.1 s at 90 GFLOP/s in all."""

PAYS_BELOW = 0.8
"""Ratio of times below which bfloat16 is chosen. Processors with instructions for it reach 0.25 to
0.5, so noise does not change the choice from one start to the next."""

COMPUTING_TYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Types that a backbone computes in."""


def require_device(device: object) -> torch.device:
    """Check a device by allocating nothing on it.

    Raises:
        InputError: If it is no name of a device, or this machine does not have it.
    """
    try:
        if not isinstance(device, str | torch.device):
            raise RuntimeError("no name")
        found = torch.device(device)
        if found.type == "meta":  # torch takes it, but tensors there hold no values
            raise RuntimeError("it holds no values")
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, ValueError, ImportError) as error:
        # torch lists its backends after the first sentence: several kB.
        reason = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
        raise InputError(
            f"The device {shown(device)} cannot be used ({reason}); use cpu, or install the torch "
            "build of your device."
        ) from error
    return found


def require_dtype(dtype: object) -> torch.dtype | None:
    """Check a computing type; None stands for the device's own.

    Raises:
        InputError: If backbones do not compute in it.
    """
    if dtype is None:
        return None
    for known in COMPUTING_TYPES:
        if dtype in (known, str(known).removeprefix("torch.")):
            return known
    names = ", ".join(str(known).removeprefix("torch.") for known in COMPUTING_TYPES)
    raise InputError(f"The computing type is {shown(dtype)}; use one of {names}, or leave it out.")


class _OwnSettings:
    """Counts the calls that run under this library's settings, in all threads."""

    def __init__(self) -> None:
        self.lock, self.running = threading.Lock(), 0
        self.before = torch.float32

    def enter(self) -> None:
        # The default type is one for all threads: the first call sets it, the last restores it.
        with self.lock:
            if self.running == 0:
                self.before = torch.get_default_dtype()
                if self.before != torch.float32:
                    torch.set_default_dtype(torch.float32)
            self.running += 1

    def leave(self) -> None:
        with self.lock:
            self.running -= 1
            if self.running == 0 and self.before != torch.float32:
                torch.set_default_dtype(self.before)


_own = _OwnSettings()


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Run without the caller's default type, default device and autocast.

    A program around this library may have set any of them. The same seed gives the same sound all
    the same.
    """
    with contextlib.ExitStack() as stack:
        _own.enter()
        stack.callback(_own.leave)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def available_memory(device: torch.device | str = "cpu") -> int | None:
    """Free memory of a device in bytes; None if unknown.

    On the CPU it is the memory that programs can use without swapping, limited by the container.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    amounts = [amount for amount in (_free_of_system(), _free_of_container()) if amount is not None]
    return min(amounts, default=None)


def return_large_blocks() -> bool:
    """Has glibc return the memory of large blocks to the system as soon as they are freed.

    glibc raises its limit to 32 MiB once such a block is freed, and serves later ones from a heap
    that fragments: decoding 10 s at true size then keeps 1.7 GB, instead of 0.5 GB. A limit that
    is set does not rise.

    Returns:
        Whether that was done: it is not where the C library is another one, or where the user's
        environment decides.
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ or "GLIBC_TUNABLES" in os.environ:
        return False
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK))


def preferred_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 where the device multiplies it fast, else float32.

    Processors need instructions for it (AMX, AVX-512 BF16 or Arm's BF16), and a measured product
    has to be faster than in float32: a build of torch may not use them.
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
    return torch.bfloat16 if fast and bfloat16_ratio() < PAYS_BELOW else torch.float32


@cache
def bfloat16_ratio() -> float:
    """Time of a matrix product in bfloat16 over that in float32 on the CPU, measured once."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(PROBE_ROWS, PROBE_WIDTH, generator=generator)
    weight = torch.randn(PROBE_WIDTH, PROBE_WIDTH, generator=generator)
    pairs = [(x.to(dtype), weight.to(dtype)) for dtype in (torch.float32, torch.bfloat16)]
    seconds: list[list[float]] = [[], []]
    for _ in range(PROBE_REPETITIONS):
        for taken, (left, right) in zip(seconds, pairs, strict=True):
            start = time.perf_counter()
            torch.nn.functional.linear(left, right)
            taken.append(time.perf_counter() - start)
    # The shortest of each, by turns: other programs only ever add time.
    return min(seconds[1]) / min(seconds[0])


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

"""The machine that a benchmark runs on, in words and by what it reaches.

python benchmarks/machine.py
"""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

LARGE = 4096
"""Side of the square fp32 matrices whose product stands for what the processor can do."""


def describe() -> str:
    """One line: processor, cores, memory, system, torch and its threads."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [
        f"{_processor()}, {usable} of {os.cpu_count()} cores used",
        f"{_memory_gib():.0f} GiB of memory" if _memory_gib() else "",
        f"{platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}",
        f"torch {torch.__version__} with {torch.get_num_threads()} threads",
        f"{torch.backends.cpu.get_cpu_capability()}",
        torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU",
    ]
    return ", ".join(part for part in parts if part)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    names = {key.strip(): value.strip() for key, value in fields.items()}
    name = names.get("model name", platform.processor() or platform.machine())
    return f"{name} (family {names['cpu family']})" if "cpu family" in names else name


def _memory_gib() -> float:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (AttributeError, ValueError, OSError):
        return 0.0


def report(rows: dict[str, object]) -> None:
    """Print figures with their names, and the machine."""
    for name, value in rows.items():
        if isinstance(value, list):
            value = ", ".join(f"{number:.3f}" for number in value)
        print(f"{name:58} {value:.4g}" if isinstance(value, float) else f"{name:58} {value}")
    print(f"machine: {describe()}")


def peak_memory_gib() -> float:
    """Largest resident memory that this process has had."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if platform.system() == "Darwin" else 2**20)


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class MatrixProduct:
    """A large square fp32 product, to be timed between other things under the same conditions."""

    def __init__(self, side: int = LARGE) -> None:
        self.a, self.b = torch.randn(2, side, side, generator=torch.Generator().manual_seed(0))
        self.out = torch.empty(side, side)
        self.flop = 2 * side**3

    def __call__(self) -> None:
        torch.mm(self.a, self.b, out=self.out)


def matrix_product_gflops(repetitions: int = 3) -> float:
    """GFLOP/s of the large product: the median of some runs after a first."""
    product = MatrixProduct()
    product()
    return product.flop / median(seconds(product) for _ in range(repetitions)) / 1e9


if __name__ == "__main__":
    print(f"{describe()}; fp32 product of {LARGE}: {matrix_product_gflops():.1f} GFLOP/s")

"""What is recorded, how it is stored, and how a figure is compared with what was recorded.

Each area is one JSON file beside this one. A row has two parts: `bits`, SHA-256 hashes, which hold
on the machine that recorded them alone; and `values`, which hold on every machine, floats within
the area's tolerance and everything else exactly.
"""

import contextlib
import hashlib
import json
import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
LEAST = 1e-6
"""Difference of two floats that is none."""
SEGMENTS = 32
"""Of an envelope."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """One row of an area."""

    values: Any
    """JSON values that every machine gives."""
    bits: dict[str, str]
    """Hashes that the same machine gives."""


@dataclass(frozen=True, kw_only=True)
class Area:
    """Figures of one kind."""

    name: str
    """Of the JSON file."""
    rows: Callable[[], Sequence[str]]
    """Names of the rows."""
    compute: Callable[[str], Found]
    """Makes a row."""
    tolerance: float = 1e-4
    """Largest difference of two floats, relative to the number, or to the peak of its list."""

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.json"


def fingerprint() -> str:
    """What bits depend on: the processor, and the library that computes."""
    import torch

    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Sums have one order, and tiny numbers are kept, whatever ran before."""
    import torch

    torch.set_flush_denormal(False)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def digest(value: Any) -> str:
    """A hash of an array, with its type and shape, or of JSON values."""
    if isinstance(value, np.ndarray):
        head = f"{value.dtype} {value.shape} ".encode()
        return hashlib.sha256(head + np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def envelope(waveform: np.ndarray) -> list[float]:
    """RMS of the last axis in equal segments, all else pooled."""
    segments = np.array_split(np.asarray(waveform, np.float64), SEGMENTS, axis=-1)
    return [significant(math.sqrt(np.mean(part**2)) if part.size else 0.0) for part in segments]


def significant(value: float, digits: int = 5) -> float:
    """A float as it is stored."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else value


@cache
def recorded(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


def differences(found: Any, expected: Any, tolerance: float, where: str = "") -> list[str]:
    """Where two JSON values differ, in words."""
    if isinstance(expected, float) and isinstance(found, int | float):
        scale = abs(expected)
        same = math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance * scale + LEAST)
        same = same or (math.isnan(found) and math.isnan(expected))
        return [] if same else [f"{where}: {found!r}, recorded {expected!r}"]
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        lines = [f"{where}.{key}: new" for key in found if key not in expected]
        for key, value in expected.items():
            if key in found:
                lines += differences(found[key], value, tolerance, f"{where}.{key}")
            else:
                lines.append(f"{where}.{key}: gone")
        return lines
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return [f"{where}: {len(found)} entries, recorded {len(expected)}"]
        if expected and all(isinstance(value, float) for value in expected):
            off = np.abs(np.asarray(found, np.float64) - np.asarray(expected))
            scale = float(np.abs(expected).max())
            worst = int(off.argmax())
            if not off[worst] <= tolerance * scale + LEAST:
                return [
                    f"{where}[{worst}]: {found[worst]!r}, recorded {expected[worst]!r} "
                    f"(the list's peak is {scale:.4g})"
                ]
            return []
        pairs = enumerate(zip(found, expected, strict=True))
        return [
            line for i, (a, b) in pairs for line in differences(a, b, tolerance, f"{where}[{i}]")
        ]
    same = type(found) is type(expected) and found == expected
    return [] if same else [f"{where}: {found!r}, recorded {expected!r}"]


def check(area: Area, row: str) -> None:
    """Compares a row with what was recorded."""
    expected = recorded(area.path)
    with one_thread():
        found = area.compute(row)
    values = json.loads(json.dumps(found.values))
    lines = differences(values, expected["rows"][row], area.tolerance, row)
    kept = expected["bits"].get(fingerprint())
    if kept is not None:
        lines += differences(found.bits, kept[row], 0.0, f"bits of {row}")
    assert not lines, "\n".join(lines)

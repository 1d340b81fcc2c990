"""Time of a sound while another program keeps a core busy, by OpenMP's way of waiting.

`python benchmarks/shared_cores.py` makes sounds with nano in processes of their own: with two
threads that wait in a busy loop (the default of OpenMP), with two that sleep (`passive`, which the
command line sets), and with one. Each runs on an idle machine and beside a busy core.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MAKE = """
import time, warnings
warnings.simplefilter("ignore")
from unison_audio import Unison
unison = Unison.from_pretrained("nano")
unison.generate("[Audio] rain", duration=1.5)
times = []
for seed in range(5):
    started = time.perf_counter()
    unison.generate("[Audio] rain", duration=1.5, seed=seed)
    times.append(time.perf_counter() - started)
print(sorted(times)[2])
"""
SETTINGS = {
    "two threads, busy loop": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": ""},
    "two threads, passive": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": ""},
}


def seconds(setting: dict[str, str]) -> float:
    """Median of five sounds, in a process with these variables."""
    variables = {**os.environ, **setting}
    given = {name: value for name, value in variables.items() if value}
    made = subprocess.run(
        [sys.executable, "-c", MAKE], env=given, capture_output=True, text=True, check=True
    )
    return float(made.stdout)


@contextmanager
def busy_core(core: int) -> Iterator[None]:
    """A process that keeps a core busy."""
    code = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Print the table."""
    print("| threads | idle machine, s | beside a busy core, s |")
    print("|---|---|---|")
    for name, setting in SETTINGS.items():
        alone = seconds(setting)
        with busy_core((os.cpu_count() or 1) - 1):
            beside = seconds(setting)
        print(f"| {name} | {alone:.2f} | {beside:.2f} |")


if __name__ == "__main__":
    main()

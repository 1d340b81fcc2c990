"""Processor time of cold commands: this source against another checkout's, in turns.

    python benchmarks/cold_start.py --against ../other/src

Prints seconds of user and system time of a whole process, medians over rounds, and their ratio.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

OURS = Path(__file__).resolve().parent.parent / "src"
SPEECH = '[Speech] A male voice saying "red dog"'
COMMANDS: dict[str, tuple[list[str], int, float | None]] = {
    "tasks": (["tasks"], 0, 0.06),
    "variants": (["variants"], 0, None),
    "--help": (["--help"], 0, None),
    "generate --help": (["generate", "--help"], 0, None),
    "refused instruction": (["generate", "rain", "-o", "x.wav"], 2, 0.06),
    "missing source": (
        ["generate", "[Edit][Speech] Remove the speech", "--source", "no.wav", "-o", "x.wav"],
        2,
        0.06,
    ),
    "unknown variant": (["generate", "[Audio] rain", "--variant", "no", "-o", "x.wav"], 2, 0.06),
    "generate rain": (["generate", "[Audio] rain", "-o", "x.wav"], 0, 0.42),
    "generate speech": (["generate", SPEECH, "-o", "x.wav"], 0, 0.55),
}
"""Name -> arguments, exit code that is expected, and ratio that is aimed at."""


def processor_seconds(source: Path, arguments: list[str], code: int, folder: Path) -> float:
    """Run a command in a process of its own and return its user and system time."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(source)}
    # Builds before 0.2 had the command line in another module.
    new = (source / "unison_audio/cli/main.py").is_file()
    module = "unison_audio.cli.main" if new else "unison_audio.app.cli"
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        sys.exit(f"{arguments} in {source} ended with {process.returncode}: {said.decode()}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure every command in both sources and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, required=True, help="the other checkout's src")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sources = {"ours": OURS, "theirs": options.against.resolve()}
    print(f"{'command':<20} {'theirs':>8} {'ours':>8} {'ratio':>7} {'target':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for name, (arguments, code, target) in COMMANDS.items():
            times: dict[str, list[float]] = {side: [] for side in sources}
            for k in range(options.rounds + 1):
                for side, source in sources.items():
                    seconds = processor_seconds(source, arguments, code, Path(folder))
                    if k:  # the first round fills the caches of files and bytecode
                        times[side].append(seconds)
            ours, theirs = (statistics.median(times[side]) for side in ("ours", "theirs"))
            aimed = "" if target is None else f"{target:.2f}"
            row = f"{name:<20} {theirs:8.2f} {ours:8.2f} {ours / theirs:7.3f} {aimed:>7}"
            print(row, flush=True)


if __name__ == "__main__":
    main()

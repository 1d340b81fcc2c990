"""Time of many sounds of nano: single calls, one call with a list, and `unison-audio batch`.

python benchmarks/many_sounds.py [--count 100]

All in one process, by turns, in processor time. The sounds are speech and events in equal parts.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from unison_audio.cli.main import main as command
from unison_audio.nano.vocabulary import held_out_texts
from unison_audio.pipeline import Unison


def seconds(work: Callable[[], object]) -> float:
    """Processor time of a call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    count = parser.parse_args().count
    torch.set_num_threads(1)
    unison = Unison.from_pretrained("nano")
    assert unison.variant.domain is not None
    sounds = unison.variant.domain.sounds
    said = [f'[Speech] A male voice saying "{text}"' for text in held_out_texts()[: count // 2]]
    heard = [f"[Audio] {sounds[k % len(sounds)]}" for k in range(count - len(said))]
    instructions = [*said, *heard]
    unison.generate(instructions[0])
    with tempfile.TemporaryDirectory() as place:
        jobs, out = Path(place, "jobs.jsonl"), Path(place, "out")
        lines = [json.dumps({"instruction": one, "duration": 2.56}) for one in instructions]
        jobs.write_text("\n".join(lines) + "\n")

        def run_batch() -> None:
            with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
                command(["batch", str(jobs), "-o", str(out)])

        times = {
            "single calls": seconds(
                lambda: [unison.generate(one, duration=2.56) for one in instructions]
            ),
            "one call with a list": seconds(lambda: unison.generate(instructions, duration=2.56)),
            "unison-audio batch": seconds(run_batch),
        }
        written = len(list(out.glob("*.wav")))
    assert written == count, f"{written} of {count} files"
    print("| way | seconds | of single calls |\n|---|---|---|")
    for name, taken in times.items():
        print(f"| {name} | {taken:.1f} | {taken / times['single calls']:.2f} |")


if __name__ == "__main__":
    main()

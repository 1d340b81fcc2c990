"""Time of an instruction to the streamed language model: kept prompt, int8, an earlier version.

python benchmarks/kept_prompt.py FOLDER [--model 7b] [--window 126] [--earlier SRC]
    [--repetitions 3] [--keep]

Writes random weights of true size into FOLDER as `text_encoder.py` does, and int8 ones beside them.
Each row is a process of its own that encodes two instructions, one after the other; the rows run
by turns. Before a process starts, the system is asked to forget the weights, so that its first
instruction reads the disk; the second finds the pages in memory. Caches are those of the command
line: an earlier process has kept the prompt where the version does that, and has cached no state
of these instructions. `--earlier` is the `src` folder of another checkout, measured first.

Times are wall-clock, in brackets those of the processor: where other programs run, only the latter
can be compared.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Literal

import cyclopts
from machine import describe
from text_encoder import BLOCKS_OF_BACKBONE, SYSTEM_PROMPT, TEXT, forget, write_model

WARM_UP, *MEASURED = (
    "[Audio] a gull close by in a small room",
    "[Audio] a train far away on a windy day",
    "[Audio] a violin far away on a windy day",
)

app = cyclopts.App(help=__doc__)


@app.command(show=False)
def encode(folder: Path, model: str, window: int, cache: Path, instructions: list[str]) -> None:
    """Encodes in this process and prints the times as JSON."""
    import torch
    from transformers import Qwen2_5OmniThinkerTextModel  # noqa: F401  its import is no part of it

    from unison_audio.text.qwen import QwenEncoder
    from unison_audio.text.states import TextSetup
    from unison_audio.variants import layer_picks

    torch.set_num_threads(1)
    setup = TextSetup(
        picks=layer_picks(TEXT[model]["num_hidden_layers"], BLOCKS_OF_BACKBONE),
        system_prompt=SYSTEM_PROMPT,
        window=window,
        files=folder,
        streamed=True,
        dtype=torch.bfloat16,
        cache=cache,
    )
    encoder = QwenEncoder(setup, model)
    wall, cpu = [], []
    for text in instructions:
        start, busy = time.perf_counter(), time.process_time()
        states = encoder.encode([text])
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
        assert torch.isfinite(states.hidden_states.sum())
    print(json.dumps({"wall": wall, "cpu": cpu}))


@app.default
def main(
    folder: Path,
    *,
    model: Literal["7b", "3b"] = "7b",
    window: int = 126,
    earlier: Path | None = None,
    repetitions: int = 3,
    keep: bool = False,
) -> None:
    """Write random weights, measure by turns, print a table, remove the weights.

    Args:
        folder: Where to write them; it is made, or holds them from a call with --keep.
        model: Which size.
        window: Tokens whose states are returned; 0 for those of the instruction.
        earlier: `src` folder of another version to compare with.
        repetitions: How often each row is measured; medians are printed.
        keep: Whether to leave the weights there.
    """
    from unison_audio.text.quantize_qwen import quantize_language_model

    plain, int8 = folder / model, folder / f"{model}-int8"
    plain.mkdir(parents=True, exist_ok=True)
    try:
        if not (plain / "tokenizer_config.json").exists():  # written last
            write_model(plain, model)
        if not (int8 / "model.safetensors.index.json").exists():
            quantize_language_model(str(plain), int8)
        here = Path(__file__).parents[1] / "src"
        rows: dict[str, tuple[Path, Path, bool]] = {
            **({"earlier version, bfloat16": (earlier, plain, True)} if earlier else {}),
            "bfloat16, prompt not kept before the first": (here, plain, False),
            "bfloat16, prompt kept": (here, plain, True),
            "int8, prompt kept": (here, int8, True),
        }
        taken: dict[str, list[dict[str, list[float]]]] = {name: [] for name in rows}
        for _ in range(repetitions):
            for name, (source, weights, kept) in rows.items():
                taken[name].append(_measure(source, weights, model, window, kept))
                print(name, taken[name][-1], file=sys.stderr, flush=True)
    finally:
        if not keep:
            for written in (plain, int8):
                shutil.rmtree(written, ignore_errors=True)
    _print_table(taken)


def _measure(
    source: Path, weights: Path, model: str, window: int, kept: bool
) -> dict[str, list[float]]:
    cache = weights.parent / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    environment = {**os.environ, "PYTHONPATH": str(source.resolve())}
    command = [sys.executable, __file__, "encode", str(weights), model, str(window), str(cache)]

    def run(*instructions: str) -> str:
        done = subprocess.run(
            [*command, *instructions],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=environment,
        )
        return done.stdout.splitlines()[-1]

    if kept:
        run(WARM_UP)
    forget(weights)
    return json.loads(run(*MEASURED))


def _print_table(taken: dict[str, list[dict[str, list[float]]]]) -> None:
    def middle(name: str, kind: str, call: int) -> float:
        return median(one[kind][call] for one in taken[name])

    print(f"{describe()}\n")
    print(
        "| | first instruction, s | of the first row | second instruction, s | of the first row |"
    )
    print("|---|---|---|---|---|")
    first = next(iter(taken))
    for name in taken:
        cells = []
        for call in (0, 1):
            wall, cpu = (middle(name, kind, call) for kind in ("wall", "cpu"))
            shares = [middle(name, k, call) / middle(first, k, call) for k in ("wall", "cpu")]
            cells += [f"{wall:.1f} ({cpu:.1f})", f"{shares[0]:.2f} ({shares[1]:.2f})"]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    app()

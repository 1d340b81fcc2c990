"""Time of an instruction to the streamed language model: kept prompt, int8, an earlier version.

python benchmarks/kept_prompt.py FOLDER [--model 7b] [--window 126] [--layers 8]
    [--earlier SRC] [--repetitions 3] [--keep]

Writes random weights of true size into FOLDER as `text_encoder.py` does, and int8 ones beside them.
Each row is a process of its own that encodes five instructions, one after the other; the rows run
by turns. Before a process starts, the system is asked to forget the weights, so that its first
instruction reads the disk; the second finds the pages in memory. Caches are those of the command
line: an earlier process has kept the prompt where the version does that, and has cached no state
of these instructions. `--earlier` is the `src` folder of another checkout, measured first.

`--layers` runs that many layers from the first on, where the memory does not hold the pages of all:
the layers are equal, so the ratios are those of all of them.

Times are wall-clock, in brackets those of the processor: where other programs run, only the latter
can be compared.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Literal

import cyclopts
from machine import describe
from text_encoder import BLOCKS_OF_BACKBONE, SYSTEM_PROMPT, TEXT, forget, write_model

FIRST, LATER = (
    tuple(f"[Audio] {one} {where}" for one in ("a dog", "a door", "a train", "a crowd", "a gull"))
    for where in ("far away on a windy day", "close by in a small room")
)
"""Instructions of the rows without a kept prompt, and of those with one."""

app = cyclopts.App(help=__doc__)


@app.command(show=False)
def encode(
    folder: Path, model: str, layers: int, window: int, cache: Path, out: Path, texts: list[str]
) -> None:
    """Encodes in this process and prints the times as JSON."""
    import torch
    from transformers import Qwen2_5OmniThinkerTextModel  # noqa: F401  its import is no part of it

    from unison_audio.text.qwen import QwenEncoder
    from unison_audio.text.states import TextSetup
    from unison_audio.variants import layer_picks

    torch.set_num_threads(1)
    setup = TextSetup(
        picks=layer_picks(layers, BLOCKS_OF_BACKBONE),
        system_prompt=SYSTEM_PROMPT,
        window=window,
        files=folder,
        streamed=True,
        dtype=torch.bfloat16,
        cache=cache,
    )
    encoder = QwenEncoder(setup, model)
    wall, cpu = [], []
    for text in texts:
        start, busy = time.perf_counter(), time.process_time()
        states = encoder.encode([text])
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
        assert torch.isfinite(states.hidden_states.sum())
        if text == FIRST[0]:
            torch.save(states.hidden_states[0], out)  # (K, N, text_dim)
    print(json.dumps({"wall": wall, "cpu": cpu}))


@app.default
def main(
    folder: Path,
    *,
    model: Literal["7b", "3b"] = "7b",
    window: int = 126,
    layers: int | None = None,
    earlier: Path | None = None,
    repetitions: int = 3,
    keep: bool = False,
) -> None:
    """Write random weights, measure by turns, print a table, remove the weights.

    Args:
        folder: Where to write them; it is made, or holds them from a call with --keep.
        model: Which size.
        window: Tokens whose states are returned; 0 for those of the instruction.
        layers: Number of layers, at least one; all of the model's if None.
        earlier: `src` folder of another version to compare with.
        repetitions: How often each row is measured; medians are printed.
        keep: Whether to leave the weights there.
    """
    from unison_audio.text.quantize_qwen import quantize_language_model

    here = Path(__file__).parents[1] / "src"
    plain, int8 = folder / model, folder / f"{model}-int8"
    results = folder / "results"
    for made in (plain, results):
        made.mkdir(parents=True, exist_ok=True)
    try:
        if not (plain / "tokenizer_config.json").exists():  # written last
            write_model(plain, model)
        if not (int8 / "model.safetensors.index.json").exists():
            quantize_language_model(str(plain), int8)
        rows: dict[str, tuple[Path, Path, Sequence[str]]] = {
            **({"earlier version, bfloat16": (earlier, plain, FIRST)} if earlier else {}),
            "bfloat16, not kept before": (here, plain, FIRST),
            "bfloat16, kept": (here, plain, LATER),
            "int8, not kept before": (here, int8, FIRST),
            "int8, kept": (here, int8, LATER),
        }
        taken: dict[str, list[dict[str, list[float]]]] = {name: [] for name in rows}
        for _ in range(repetitions):
            for source in (earlier, here):
                shutil.rmtree(_cache(folder, source), ignore_errors=True)
            for name, (source, weights, texts) in rows.items():
                out = results / f"{list(rows).index(name)}.pt"
                taken[name].append(_measure(source, weights, model, layers, window, out, texts))
                print(name, taken[name][-1], file=sys.stderr, flush=True)
        errors = {
            name: _errors(results / f"{number}.pt", results / "0.pt")
            for number, name in enumerate(rows)
            if number and rows[name][2] is FIRST
        }
    finally:
        done = (results, _cache(folder, here), _cache(folder, earlier))
        for written in done if keep else (*done, plain, int8):
            shutil.rmtree(written, ignore_errors=True)
    _print_table(taken, errors)


def _cache(folder: Path, source: Path | None) -> Path:
    return folder / f"cache-{sha256(str(source).encode()).hexdigest()[:8]}"


def _measure(
    source: Path,
    weights: Path,
    model: str,
    layers: int | None,
    window: int,
    out: Path,
    texts: Sequence[str],
) -> dict[str, list[float]]:
    environment = {**os.environ, "PYTHONPATH": str(source.resolve())}
    count = layers or TEXT[model]["num_hidden_layers"]
    values = (weights, model, count, window, _cache(weights.parent, source), out, *texts)
    forget(weights)
    done = subprocess.run(
        [sys.executable, __file__, "encode", *map(str, values)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _errors(found: Path, exact: Path) -> tuple[float, float]:
    """Relative error of the states: mean over picked layers, and that of the worst."""
    import torch

    ours, theirs = torch.load(found), torch.load(exact)
    layers = ((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).mean(dim=1)
    return float(layers.mean()), float(layers.max())


def _print_table(
    taken: dict[str, list[dict[str, list[float]]]], errors: dict[str, tuple[float, float]]
) -> None:
    def middle(name: str, kind: str, later: int) -> float:
        """Median of the repetitions: of the first call, or of the shortest later one."""
        return median(min(one[kind][1:]) if later else one[kind][0] for one in taken[name])

    print(f"{describe()}\n")
    columns = ("first instruction, s", "of the first row", "a later one, s", "of the first row")
    print(f"| | {' | '.join(columns)} | error of the states |\n|{'---|' * 6}")
    first = next(iter(taken))
    for name in taken:
        cells = []
        for later in (0, 1):
            wall, cpu = (middle(name, kind, later) for kind in ("wall", "cpu"))
            shares = [middle(name, k, later) / middle(first, k, later) for k in ("wall", "cpu")]
            cells += [f"{wall:.1f} ({cpu:.1f})", f"{shares[0]:.2f} ({shares[1]:.2f})"]
        error = "{:.2%}, at most {:.2%}".format(*errors[name]) if name in errors else ""
        print(f"| {name} | {' | '.join(cells)} | {error} |")


if __name__ == "__main__":
    app()

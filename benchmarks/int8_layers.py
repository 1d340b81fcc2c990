"""One linear layer of d24-16k in int8: torch's product, oneDNN's packed one, and torchao's scheme.

pip install --target FOLDER --no-deps torchao
PYTHONPATH=FOLDER python benchmarks/int8_layers.py [--rows 624] [--repetitions 5]

The input is bfloat16, as large as a guided step's of 10 s, with scales for each row on all sides.
torchao runs as it is, without torch.compile. The processor's time on one thread, the least of some
calls by turns; the error is that against bfloat16. A Markdown table.
"""

import copy
import time
from collections.abc import Callable

import cyclopts
import torch
from machine import describe
from torch import Tensor, nn

from unison_audio.model.int8 import Int8Linear, quantize_state

SIZES = ((1536, 6144), (6144, 1536))
"""Inputs and outputs of the two layers of the MLP."""


def ways(linear: nn.Linear) -> dict[str, Callable[[Tensor], Tensor]]:
    """The layer in each of the ways."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    state = quantize_state({f"0.{k}": v for k, v in linear.state_dict().items()}, ["0"])
    plain = Int8Linear(linear.in_features, linear.out_features)
    plain.load_state_dict({name.removeprefix("0."): value for name, value in state.items()})
    packed = copy.deepcopy(plain)
    packed.pack()
    other = nn.Sequential(copy.deepcopy(linear))
    quantize_(other, Int8DynamicActivationInt8WeightConfig())
    return {
        "bfloat16": linear,
        "int8, torch's product": plain,
        "int8, packed": packed,
        "torchao": other,
    }


@torch.inference_mode()
def main(rows: int = 624, repetitions: int = 5) -> None:
    """Print the table.

    Args:
        rows: Rows of the input.
        repetitions: How often each is timed.
    """
    torch.set_num_threads(1)
    print(f"{describe()}\n\n| layer | way | ms | of bfloat16 | error |\n|---|---|---|---|---|")
    for inputs, outputs in SIZES:
        linear, x = nn.Linear(inputs, outputs).bfloat16(), torch.randn(1, rows, inputs).bfloat16()
        calls = ways(linear)
        exact = linear(x).float()
        errors = {n: float((f(x).float() - exact).norm() / exact.norm()) for n, f in calls.items()}
        least = dict.fromkeys(calls, float("inf"))
        for _ in range(repetitions):
            for name, call in calls.items():
                start = time.thread_time()
                call(x)
                least[name] = min(least[name], time.thread_time() - start)
        for name, own in least.items():
            print(
                f"| {inputs} to {outputs} | {name} | {1e3 * own:.1f} "
                f"| {own / least['bfloat16']:.2f} | {errors[name]:.2%} |",
                flush=True,
            )


if __name__ == "__main__":
    cyclopts.run(main)

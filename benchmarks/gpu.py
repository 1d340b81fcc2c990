"""Time of a guided step on a CUDA GPU: types, compiled blocks, CUDA graphs, batches of 1 to 16.

python benchmarks/gpu.py [--variant d24-16k] [--duration 10] [--repetitions 10]

Random weights of true size; one process, a few minutes. Each row is timed by the GPU's own clock
after a first step, which compiles or records. The error is that of the velocity with text against
float32 with one sound. Without a GPU it says so in one sentence and ends with exit code 1.
"""

import sys
from statistics import median

import cyclopts
import torch
from machine import describe
from parity import draw_inputs
from torch import Tensor
from true_size import random_model

from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.graphed import GraphedRun
from unison_audio.model.prepared import PreparedRun
from unison_audio.model.sampling import VelocityField
from unison_audio.variants import VARIANTS

STEPS, STEP = 100, 40

WAYS = (
    ("float32", torch.float32, False, False),
    ("bfloat16", torch.bfloat16, False, False),
    ("bfloat16, CUDA graph", torch.bfloat16, False, True),
    ("bfloat16, compiled", torch.bfloat16, True, False),
    ("bfloat16, compiled, CUDA graph", torch.bfloat16, True, True),
)
"""Name, computing type, whether the blocks are compiled, whether a graph is replayed."""


def milliseconds(field: VelocityField, z_t: Tensor, repetitions: int) -> float:
    """Median time of a guided step."""
    taken = []
    for _ in range(repetitions):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        field.velocities(z_t, STEP, guided=True)
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end))
    return median(taken)


@torch.inference_mode()
def main(
    variant: str = "d24-16k",
    duration: float = 10.0,
    repetitions: int = 10,
    batches: tuple[int, ...] = (1, 2, 4, 8, 16),
) -> None:
    """Print the table.

    Args:
        variant: A variant of fusion O.
        duration: Seconds of sound.
        repetitions: How often each step is timed.
        batches: Sounds at once.
    """
    if not torch.cuda.is_available():
        print("There is no CUDA GPU here; run this on a machine that has one, with its torch.")
        sys.exit(1)
    chosen = VARIANTS[variant]
    given = draw_inputs(chosen, duration)
    del given["penultimate"]
    times = torch.linspace(1, 0, STEPS + 1)[:-1]
    print(f"{describe()}\n\n{variant}, {duration:g} s, one guided step, medians of {repetitions}\n")
    print("| way | batch | step, ms | ms for each sound | error | memory, GB |")
    print("|---|---|---|---|---|---|")
    exact = None
    for name, dtype, compiled, graphed in WAYS:
        backbone = random_model(lambda: UnisonBackbone(chosen.backbone)).to("cuda", dtype)
        if compiled:
            backbone.compile_blocks()
        for batch in batches:
            torch.cuda.reset_peak_memory_stats()
            rows = {
                key: value.to("cuda").repeat(batch, *[1] * (value.ndim - 1))
                for key, value in given.items()
            }
            z_t = rows.pop("z_t")
            run = PreparedRun(backbone, times=times, **rows)
            field: VelocityField = GraphedRun(run) if graphed else run
            v = field.velocities(z_t, STEP, guided=True)[0][:1]
            exact = v.clone() if exact is None else exact
            error = float((v - exact).norm() / exact.norm())
            own = milliseconds(field, z_t, repetitions)
            memory = torch.cuda.max_memory_allocated() / 1e9
            print(
                f"| {name} | {batch} | {own:.1f} | {own / batch:.1f} | {error:.1e} "
                f"| {memory:.1f} |",
                flush=True,
            )
        del backbone, run, field
        torch.cuda.empty_cache()


if __name__ == "__main__":
    cyclopts.run(main)

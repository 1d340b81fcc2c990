"""Time and memory against the length of the sound and the size of the batch.

python benchmarks/growth.py [--out docs/images/growth.png] [--repetitions 3]

Nano with its trained weights and d24-16k with random ones of true size, each in this processor's
default type, on one thread. A guided step is timed at every length with a batch of one, and at
2.5 s with every batch; so is what is prepared once for the fast preset, and at every length the
decoder. Processor time, medians by turns over all points. Memory is the peak beyond the weights:
the kernel's mark of the largest resident size is reset before each call, after freed memory went
back to the system. Linux only. Prints Markdown tables and writes the plot.
"""

import ctypes
import gc
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import cyclopts
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from machine import describe
from parity import draw_inputs
from torch import Tensor
from true_size import INSTRUCTION_TOKENS, random_model

from unison_audio.codecs.mmaudio import CONFIGS, MMAudioCodec
from unison_audio.codecs.table import AudioCodec
from unison_audio.loading import computing_dtype
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.prepared import PreparedRun
from unison_audio.model.solvers import Solver
from unison_audio.output_audio import decode
from unison_audio.pipeline import Unison
from unison_audio.sampling_params import SamplingParams, resolve_sampling
from unison_audio.tasks.table import TASKS
from unison_audio.variants import VARIANTS, Variant

SECONDS = (2.5, 5.0, 10.0, 22.0)
BATCHES = (1, 2, 4, 8, 16)
STATUS = Path("/proc/self/status")


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one length and batch took: median seconds and largest bytes by part."""

    seconds: float
    batch: int
    taken: dict[str, list[float]] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)

    def time(self, part: str) -> float:
        return median(self.taken[part])

    def add(self, part: str, call: Callable[[], object]) -> None:
        """Time a call and watch its memory."""
        before = settle()
        start = time.process_time()
        call()
        self.taken.setdefault(part, []).append(time.process_time() - start)
        self.peaks[part] = max(self.peaks.get(part, 0), resident("VmHWM") - before)


def resident(name: str) -> int:
    """A size out of the kernel's status of this process, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{STATUS} has no {name}.")
    return 1024 * int(found[1])


def settle() -> int:
    """Give freed memory back and reset the mark of the largest; returns what is left, in bytes."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def inputs(variant: Variant, seconds: float, batch: int) -> tuple[Tensor, dict[str, Tensor]]:
    """z_t, and what a run is prepared from."""
    given = draw_inputs(variant, seconds, INSTRUCTION_TOKENS)
    if not variant.reads_penultimate:
        del given["penultimate"]
    given = {name: value.repeat_interleave(batch, 0) for name, value in given.items()}
    return given.pop("z_t"), given


def measure_run(point: Point, variant: Variant, backbone: UnisonBackbone, times: Tensor) -> None:
    """The preparation of a run and one of its guided steps."""
    z_t, given = inputs(variant, point.seconds, point.batch)
    runs: list[PreparedRun] = []
    point.add("once", lambda: runs.append(PreparedRun(backbone, times=times, **given)))
    point.add("step", lambda: runs[0].velocities(z_t, 0, guided=True))


def measure(
    variant: Variant, backbone: UnisonBackbone, codec: AudioCodec, repetitions: int
) -> list[Point]:
    """All points of a variant."""
    chosen = resolve_sampling(variant, SamplingParams(preset="fast")).for_task(TASKS["t2a"])
    times = Solver(chosen.solver, chosen.steps).times
    points = [Point(seconds=s, batch=1) for s in SECONDS]
    points += [Point(seconds=SECONDS[0], batch=b) for b in BATCHES[1:]]
    z_t, given = inputs(variant, SECONDS[0], 1)
    PreparedRun(backbone, times=times, **given).velocities(z_t, 0, guided=True)  # not timed
    for _ in range(repetitions):
        for point in points:
            measure_run(point, variant, backbone, times)
            if point.batch == 1 and "decoder" not in point.taken:
                latent = torch.randn(1, codec.channels, codec.frames(point.seconds))
                point.add("decoder", partial(decode, codec, latent))
        print(f"{variant.name}: a round of {len(points)} points", flush=True)
    return points


def rows(points: list[Point]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield "| sound, s | batch | once, s | step, s | a second of sound | MB | decoder, s | MB |"
    yield f"{'|---' * 8}|"
    for point in points:
        sound = point.seconds * point.batch
        cells = [f"{point.seconds:g}", f"{point.batch}", f"{point.time('once'):.3f}"]
        cells += [f"{point.time('step'):.3f}", f"{1000 * point.time('step') / sound:.1f} ms"]
        cells.append(f"{point.peaks['step'] / 1e6:.0f}")
        if "decoder" in point.taken:
            cells += [f"{point.time('decoder'):.2f}", f"{point.peaks['decoder'] / 1e6:.0f}"]
        else:
            cells += ["", ""]
        yield f"| {' | '.join(cells)} |"


def draw(found: dict[str, list[Point]], path: Path) -> None:
    """A step's time and memory against length and batch."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.8))
    for color, (name, points) in zip(("tab:blue", "tab:orange"), found.items(), strict=True):
        alone = [point for point in points if point.batch == 1]
        batched = [point for point in points if point.seconds == SECONDS[0]]
        for column, (chosen, where) in enumerate(
            ((alone, [p.seconds for p in alone]), (batched, [float(p.batch) for p in batched]))
        ):
            step = [point.time("step") for point in chosen]
            axes[0, column].plot(where, step, "o-", color=color, label=f"{name}: step")
            linear = [step[0] * at / where[0] for at in where]
            axes[0, column].plot(where, linear, ":", color="gray", label="in proportion")
            peaks = [point.peaks["step"] / 1e6 for point in chosen]
            axes[1, column].plot(where, peaks, "o-", color=color)
        decoder = [p.seconds for p in alone], [p.peaks["decoder"] / 1e6 for p in alone]
        axes[1, 0].plot(*decoder, "s--", color=color, label=f"{name}: decoder")
    for column, (ticks, label) in enumerate(
        ((SECONDS, "seconds of sound"), (BATCHES, f"sounds of {SECONDS[0]:g} s in a batch"))
    ):
        for row, title in enumerate(("guided step, s", "peak memory beyond the weights, MB")):
            panel = axes[row, column]
            panel.set(xscale="log", yscale="log", xlabel=label, title=title)
            panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.xaxis.minorticks_off()
    lines = {
        label: line
        for panel in axes.flat
        for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(lines.values(), lines.keys(), loc="lower center", ncols=3)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


@torch.inference_mode()
def main(out: Path = Path("docs/images/growth.png"), repetitions: int = 3) -> None:
    """Measure, print the tables and draw.

    Args:
        out: The plot.
        repetitions: Rounds over all points; the full size has at most two.
    """
    torch.set_num_threads(1)
    print(f"{describe()}\n", flush=True)
    nano, full = VARIANTS["nano"], VARIANTS["d24-16k"]
    unison = Unison.from_pretrained("nano")
    found = {"nano": measure(nano, unison.backbone, unison.codec, repetitions)}
    dtype = computing_dtype(full, torch.device("cpu"))
    backbone = random_model(lambda: UnisonBackbone(full.backbone)).to(dtype)
    codec = random_model(lambda: MMAudioCodec(CONFIGS[full.codec]))
    name = f"{full.name}, {str(dtype).removeprefix('torch.')}"
    found[name] = measure(full, backbone, codec, min(2, repetitions))
    for title, points in found.items():
        print(f"\n{title}\n", *rows(points), sep="\n", flush=True)
    draw(found, out)


if __name__ == "__main__":
    cyclopts.run(main)

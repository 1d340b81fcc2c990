"""Synthesis of a batch of each task beside the training step that it feeds.

    python benchmarks/synthesis.py

Synthesis is what `Task.build` does for 56 clips of 10 s at 16 kHz: drawing clips from pools in
memory, cropping, repeating, laying, levels, mixing, headroom, the instruction. Decoding and
resampling happen in worker processes before, codec and text encoder come after; neither counts.
The pools hold noise with the lengths of real corpora: utterances of 1 to 10 s of 40 speakers,
sounds of 10 s and, one in four, of 1 to 10 s, of 200 kinds.

The step is the forward and backward pass of `d24-16k` in float32 on the same 56 clips, extrapolated
from one of its 24 double blocks: the pass is timed for one clip (312 frames, 32 text tokens) with
backbones of true width that have one block and two. Their difference is a block's time, and what
one block does not explain is that of embedder, time embedding and head:

    step = 56 * (one + 23 * (two - one))

More than one clip at a time takes no less time a clip on one core: the products are large already.
Processor time is measured, the two sides and all tasks by turns in one process; medians count.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import cyclopts
import torch
from machine import describe

from unison_audio.data.pools import MemoryPools
from unison_audio.data.records import Clip, ClipRecord
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.tasks.draw import BuilderConfig
from unison_audio.tasks.table import TASKS
from unison_audio.variants import Variant, find_variant

BAR = 0.05
SPEAKERS, UTTERANCES, KINDS, SOUNDS = 40, 400, 200, 400
TEXT_TOKENS = 32


def clips(sample_rate: int) -> Iterator[Clip]:
    """Utterances and sounds of realistic lengths."""
    generator = torch.Generator().manual_seed(0)
    for number in range(UTTERANCES + SOUNDS):
        spoken = number < UTTERANCES
        short = spoken or number % 4 == 0
        seconds = 1.0 + 9.0 * float(torch.rand((), generator=generator)) if short else 10.0
        record = ClipRecord(
            key=f"clip-{number}",
            kind="speech" if spoken else "sound",
            split="train",
            seconds=seconds,
            licence="CC0-1.0",
            source="drawn",
            text="the words that somebody says in this recording" if spoken else "",
            speaker=f"speaker {number % SPEAKERS}" if spoken else "",
            gender=("male", "female")[number % 2] if spoken else "",
            label="" if spoken else f"event number {number % KINDS}",
            caption="" if spoken else f"Event number {number % KINDS} is heard in a street.",
        )
        wave = 0.1 * torch.randn(round(seconds * sample_rate), generator=generator)
        yield Clip(record=record, waveform=wave)


@contextmanager
def measured(times: list[float]) -> Iterator[None]:
    """Adds the processor time of what is done inside."""
    start = time.process_time()
    yield
    times.append(time.process_time() - start)


def training_pass(variant: Variant, blocks: int, seconds: float) -> Callable[[], None]:
    """Prepares forward and backward of one clip with so many blocks of true size."""
    config = dataclasses.replace(variant.backbone, blocks=blocks)
    backbone = UnisonBackbone(config)
    generator = torch.Generator().manual_seed(blocks)
    frames = round(seconds * variant.sample_rate) // variant.hop
    channels = 2 * config.latent_channels + 1
    inputs = {
        "x": torch.randn(1, channels, frames, generator=generator),
        "t": torch.rand(1, generator=generator),
        "hidden_states": torch.randn(1, blocks, TEXT_TOKENS, config.text_dim, generator=generator),
        "text_mask": torch.ones(1, TEXT_TOKENS, dtype=torch.bool),
    }

    def both_ways() -> None:
        backbone(**inputs).square().mean().backward()

    return both_ways


def main(batch: int = 56, seconds: float = 10.0, rounds: int = 5) -> None:
    """Measures and prints a table.

    Args:
        batch: Clips in a batch.
        seconds: Length of each.
        rounds: Repetitions, of which the medians count.
    """
    torch.set_num_threads(1)
    variant = find_variant("d24-16k")
    pools = MemoryPools(list(clips(variant.sample_rate)), variant.sample_rate)
    config = BuilderConfig(hop=variant.hop)
    passes = [training_pass(variant, blocks, seconds) for blocks in (1, 2)]
    for both_ways in passes:
        both_ways()
    pass_times: tuple[list[float], list[float]] = ([], [])
    task_times: dict[str, list[float]] = {name: [] for name in TASKS}
    for number in range(rounds):
        for both_ways, times in zip(passes, pass_times, strict=True):
            with measured(times):
                both_ways()
        for name, task in TASKS.items():
            generator = torch.Generator().manual_seed(number)
            with measured(task_times[name]):
                task.build(pools, batch, seconds, variant.sample_rate, generator, config=config)
    one, two = map(median, pass_times)
    depth = variant.backbone.blocks
    step = batch * (one + (depth - 1) * (two - one))
    print(f"{describe()}\n")
    print(
        f"Forward and backward of {variant.name} on {batch} clips of {seconds:g} s: {step:.0f} s of"
        f" processor time; one clip through one block {one:.3f} s, through two {two:.3f} s\n"
    )
    print(f"| task | synthesis of a batch, s | share of the step (bar {BAR:.0%}) |")
    print("|---|---|---|")
    slowest = 0.0
    for name, times in task_times.items():
        slowest = max(slowest, median(times))
        print(f"| {name} | {median(times):.2f} | {median(times) / step:.2%} |")
    if slowest > BAR * step:
        raise SystemExit(f"above the bar: {slowest / step:.1%}")


if __name__ == "__main__":
    cyclopts.run(main)

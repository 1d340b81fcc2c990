"""Measure the process time of a training step of the nano codec, on one thread.

python benchmarks/codec_training.py

Prints a Markdown table with a step of encoder and decoder, and of the decoder alone, in float32 and
in bfloat16: seconds, and the share of the first row.
"""

import time
from collections.abc import Callable

import torch

from unison_audio.nano.codec_training import CodecRecipe, CodecTrainer


def seconds(run: Callable[[], object], repetitions: int = 4) -> float:
    """Mean process time of a call, after one that warms up."""
    run()
    began = time.process_time()
    for _ in range(repetitions):
        run()
    return (time.process_time() - began) / repetitions


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    recipe = CodecRecipe()
    trainers = {half: CodecTrainer(recipe, half=half) for half in (False, True)}
    samples = recipe.segment_frames * recipe.model.frame_hop
    target = 0.1 * torch.randn(recipe.batch, samples)
    late = recipe.encoder_until + 500

    rows = {
        "encoder and decoder, float32": seconds(lambda: trainers[False].joint_step(target, 500)),
        "encoder and decoder, bfloat16": seconds(lambda: trainers[True].joint_step(target, 500)),
        "decoder alone, float32": seconds(lambda: trainers[False].decoder_step(target, late)),
        "decoder alone, bfloat16": seconds(lambda: trainers[True].decoder_step(target, late)),
    }
    first = next(iter(rows.values()))
    print("| step | seconds | share of the first |\n|---|---|---|")
    for name, spent in rows.items():
        print(f"| {name} | {spent:.3f} | {spent / first:.2f} |")


if __name__ == "__main__":
    main()

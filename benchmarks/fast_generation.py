"""A whole generation with the fast preset, before and after this project's faster products.

python benchmarks/fast_generation.py [--variant d24-16k] [--repetitions 2]

Estimated from measured parts, the processor's time on one thread, random weights of true size: what
is prepared once a run, some guided steps, and the decoder over a fifth of the latent. All steps
cost the same and the decoder is made of convolutions, so both are multiplied. Before: float32 by
torch's products, and diffusers' forward pass of the vocoder. The text is timed by
`benchmarks/text_encoder.py`. A Markdown table.
"""

import contextlib
import copy
import gc
import time
from collections.abc import Callable
from statistics import median
from unittest import mock

import cyclopts
import torch
from machine import describe
from number_types import in_int8
from parity import draw_inputs
from torch import Tensor
from true_size import INSTRUCTION_TOKENS, random_model

from unison_audio.codecs import mmaudio
from unison_audio.codecs.mmaudio import CONFIGS, MMAudioCodec
from unison_audio.model import linear
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.int8 import int8_layers, pack_int8
from unison_audio.model.prepared import PreparedRun
from unison_audio.model.solvers import Solver
from unison_audio.sampling_params import SamplingParams, resolve_sampling
from unison_audio.tasks.table import TASKS
from unison_audio.variants import VARIANTS, Variant

PART = 5
"""The decoder is timed on this part of the latent."""


def spent(call: Callable[[], object], repetitions: int = 1) -> float:
    """Median processor time of a call."""
    taken = []
    for _ in range(repetitions):
        start = time.thread_time()
        call()
        taken.append(time.thread_time() - start)
    return median(taken)


def sampling_times(
    backbone: UnisonBackbone, variant: Variant, repetitions: int
) -> tuple[float, float, float]:
    """Seconds of the preparation, of a step, and of a whole run with the fast preset."""
    chosen = resolve_sampling(variant, SamplingParams(preset="fast")).for_task(TASKS["t2a"])
    times = Solver(chosen.solver, chosen.steps).times
    given = draw_inputs(variant, variant.default_seconds, INSTRUCTION_TOKENS)
    del given["penultimate"]
    z_t = given.pop("z_t")
    runs: list[PreparedRun] = []
    once = spent(lambda: runs.append(PreparedRun(backbone, times=times, **given)))
    guided = [chosen.guidance.at(t) for t in times.tolist()]
    cost = {}
    for both in sorted(set(guided)):
        runs[0].velocities(z_t, 0, guided=both)  # the first call, not timed
        cost[both] = spent(lambda b=both: runs[0].velocities(z_t, 0, guided=b), repetitions)
    return once, cost[max(cost)], once + sum(cost[both] for both in guided)


def decoding_time(codec: MMAudioCodec, latent: Tensor, repetitions: int) -> float:
    """Seconds of decoding all of a latent, from a part of it."""
    codec.decode(latent[..., :8])
    return PART * spent(lambda: codec.decode(latent), repetitions)


@torch.inference_mode()
def main(variant: str = "d24-16k", repetitions: int = 2) -> None:
    """Print the table.

    Args:
        variant: A variant of fusion O.
        repetitions: How often a step and the decoder are timed.
    """
    torch.set_num_threads(1)
    chosen = VARIANTS[variant]
    codec = random_model(lambda: MMAudioCodec(CONFIGS[chosen.codec]))
    latent = torch.randn(1, codec.channels, codec.frames(chosen.default_seconds) // PART)

    decoders = {"float32": decoding_time(codec, latent, repetitions)}
    codec.vocoder_dtype = torch.bfloat16
    decoders["bfloat16"] = decoding_time(codec, latent, repetitions)
    with mock.patch.object(mmaudio, "is_fast", return_value=False):
        decoders["before"] = decoding_time(codec, latent, repetitions)
    del codec

    backbone = random_model(lambda: UnisonBackbone(chosen.backbone))
    before = mock.patch.object(linear, "has_onednn", return_value=False)
    samplings = {}
    for name, patch in (("before", before), ("float32", contextlib.nullcontext())):
        with patch:
            samplings[name] = sampling_times(backbone, chosen, repetitions)
    samplings["bfloat16"] = sampling_times(
        copy.deepcopy(backbone).to(torch.bfloat16), chosen, repetitions
    )
    small = in_int8(backbone, int8_layers(backbone), torch.bfloat16)
    del backbone
    gc.collect()
    pack_int8(small)
    samplings["int8"] = sampling_times(small, chosen, repetitions)

    print(f"{describe()}\n\n{variant}, {chosen.default_seconds:g} s, fast preset, without text\n")
    print(
        "| backbone | vocoder | once, s | step, s | sampling, s | decoder, s | both, s "
        "| a second of sound, s | of the first |"
    )
    print(f"{'|---' * 9}|")
    ways = [
        *(("before", "before"), ("float32", "float32"), ("bfloat16", "float32")),
        *(("int8", "float32"), ("int8", "bfloat16")),
    ]
    base = samplings["before"][2] + decoders["before"]
    for name, vocoder in ways:
        once, step, sampling = samplings[name]
        both = sampling + decoders[vocoder]
        print(
            f"| {name} | {vocoder} | {once:.1f} | {step:.2f} | {sampling:.1f} "
            f"| {decoders[vocoder]:.1f} | {both:.1f} | {both / chosen.default_seconds:.1f} "
            f"| {both / base:.3f} |"
        )


if __name__ == "__main__":
    cyclopts.run(main)

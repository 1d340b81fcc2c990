"""Seconds of computing per second of sound, beside well-known models, on the same machine.

    python benchmarks/side_by_side.py
    python benchmarks/side_by_side.py --models d24-16k --fast-steps 20 --repetitions 3

Every model has its true size and random weights (`true_size.py`, `true_size_flow.py`), and its
pipeline's own default steps, guidance and length (10 s where it has none); one item at a time. All
steps of a model cost the same, so one is timed and the table multiplies. Peers compute in float32,
their pipelines' default, and the two flow-matching ones in bfloat16 too. This project's variants
have this processor's default type, and int8. Processor time, one thread. What the columns hold:

    text       the text encoders, once. Of Qwen2.5-Omni's 28 equal layers one is timed, with its
               weights in memory; reading 13 GiB of them from the disk comes on top. AudioLDM 2's
               GPT-2, eight positions long, is left out.
    step       the network as its pipeline calls it, both halves of guidance.
    sampling   all steps, and for this project what is prepared once a run.
    decoder    latent to waveform; where so marked from a part of it, since all is convolutions.
"""

import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cyclopts
import torch
import true_size
import true_size_flow as flow
from machine import describe
from number_types import in_int8

from unison_audio.loading import computing_dtype
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.config import count_parameters
from unison_audio.model.int8 import int8_layers, pack_int8
from unison_audio.sampling_params import SamplingParams, resolve_sampling
from unison_audio.tasks.table import TASKS
from unison_audio.variants import VARIANTS, Variant

PEER_TYPES = (torch.float32, torch.bfloat16)
"""Types in which the flow-matching peers are timed; the first is their pipelines' default."""

COLUMNS = (
    "model",
    "type",
    "defaults",
    "network",
    "sound, s",
    "text, s",
    "step, s",
    "sampling, s",
    "decoder, s",
    "total, s",
    "per second of sound",
)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What one model took, in seconds."""

    name: str
    kind: str = "float32"
    """Computing type."""
    defaults: str
    """Steps, guidance and solver."""
    parameters: int
    """Of the network that each step runs."""
    sound: float
    """Length of what it makes."""
    text: float
    step: float
    sampling: float
    decoder: float
    part: int = 1
    """The decoder's time was taken from 1/part of its work."""

    @property
    def total(self) -> float:
        return self.text + self.sampling + self.decoder

    def row(self) -> str:
        share = f" (from 1/{self.part})" if self.part > 1 else ""
        cells = [
            self.name,
            self.kind,
            self.defaults,
            f"{self.parameters / 1e6:.0f} M",
            f"{self.sound:.1f}",
        ]
        cells += [f"{self.text:.2f}", f"{self.step:.2f}", f"{self.sampling:.1f}"]
        cells += [f"{self.decoder:.1f}{share}", f"{self.total:.1f}"]
        return f"| {' | '.join(cells)} | **{self.total / self.sound:.2f}** |"


def stable_audio(repetitions: int) -> Iterator[Timing]:
    """Stable Audio Open 1.0, whose pipeline always computes its whole length."""
    step, parameters = true_size.stable_audio_step(repetitions)
    part = 16
    yield Timing(
        name="Stable Audio Open 1.0",
        defaults="100 steps, guidance 7, cosine DPM-Solver++",
        parameters=parameters,
        sound=true_size.STABLE_AUDIO_FRAMES * 2048 / 44100,
        text=true_size.stable_audio_text(repetitions),
        step=step,
        sampling=100 * step,
        decoder=true_size.stable_audio_decoder(repetitions, part),
        part=part,
    )


def audioldm2(repetitions: int) -> Iterator[Timing]:
    """AudioLDM 2, its smaller model."""
    step, parameters = true_size.audioldm2_step(repetitions)
    yield Timing(
        name="AudioLDM 2",
        defaults="200 steps, guidance 3.5, DDIM",
        parameters=parameters,
        sound=true_size.AUDIOLDM2_FRAMES * 4 * 160 / 16000,
        text=true_size.audioldm2_text(repetitions),
        step=step,
        sampling=200 * step,
        decoder=true_size.audioldm2_decoder(repetitions),
    )


def stable_audio_3_small(repetitions: int) -> Iterator[Timing]:
    """Stable Audio 3 Small, distilled: eight steps without guidance."""
    for dtype in PEER_TYPES:
        step, parameters = flow.stable_audio_3_step(dtype, repetitions)
        yield Timing(
            name="Stable Audio 3 Small",
            kind=name_of(dtype),
            defaults="8 steps, no guidance, ping-pong",
            parameters=parameters,
            sound=10.0,
            text=flow.stable_audio_3_text(dtype, repetitions),
            step=step,
            sampling=8 * step,
            decoder=flow.stable_audio_3_decoder(dtype, repetitions),
        )


def longcat(repetitions: int) -> Iterator[Timing]:
    """LongCat-AudioDiT 1B."""
    part = 4
    for dtype in PEER_TYPES:
        step, parameters = flow.longcat_step(dtype, repetitions)
        gc.collect()
        yield Timing(
            name="LongCat-AudioDiT 1B",
            kind=name_of(dtype),
            defaults="16 steps, guidance 4, Euler",
            parameters=parameters,
            sound=flow.LONGCAT_FRAMES * 2048 / 24000,
            text=flow.longcat_text(dtype, repetitions),
            step=step,
            sampling=16 * step,
            decoder=flow.longcat_decoder(dtype, repetitions, part),
            part=part,
        )


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def backbones(variant: Variant) -> Iterator[tuple[str, UnisonBackbone]]:
    """A variant's backbone in this processor's default type, and with int8 layers."""
    dtype = computing_dtype(variant, torch.device("cpu"))
    exact = true_size.random_model(lambda: UnisonBackbone(variant.backbone))
    small = in_int8(exact, int8_layers(exact), dtype)
    yield name_of(dtype), exact.to(dtype)
    del exact
    gc.collect()
    pack_int8(small)
    yield f"int8, rest {name_of(dtype)}", small


def unison(
    name: str, repetitions: int, fast_steps: int | None, fast_solver: str | None
) -> Iterator[Timing]:
    """One of this project's variants, once a type and preset."""
    variant, part = VARIANTS[name], 5
    if variant.text_encoder != "qwen2.5-omni-7b":
        sys.exit(f"{name} reads {variant.text_encoder}; only qwen2.5-omni-7b is timed here.")
    samplings = {
        "default": resolve_sampling(variant).for_task(TASKS["t2a"]),
        "fast": resolve_sampling(
            variant, SamplingParams(preset="fast", steps=fast_steps, solver=fast_solver)
        ).for_task(TASKS["t2a"]),
    }
    dtype = computing_dtype(variant, torch.device("cpu"))
    text = true_size.unison_text(variant.text_layers, dtype, repetitions)
    decoder = true_size.unison_decoder(variant, repetitions, part)
    for kind, backbone in backbones(variant):
        found = true_size.unison_sampling(variant, backbone, samplings, repetitions)
        for preset, (step, calls, sampling) in found.items():
            chosen = samplings[preset]
            calls_text = "" if calls == chosen.steps else f" ({calls} calls)"
            yield Timing(
                name=f"{name}, {preset}",
                kind=kind,
                defaults=f"{chosen.steps} steps{calls_text}, guidance {chosen.guidance.scale:g}, "
                f"{chosen.solver}",
                parameters=count_parameters(variant.backbone),
                sound=variant.default_seconds,
                text=text,
                step=step,
                sampling=sampling,
                decoder=decoder,
                part=part,
            )


PEERS: dict[str, Callable[[int], Iterator[Timing]]] = {
    "stable-audio-3-small": stable_audio_3_small,
    "longcat": longcat,
    "audioldm2": audioldm2,
    "stable-audio": stable_audio,
}
DEFAULT_MODELS = (*PEERS, "d24-16k", "d20-44k")


@torch.inference_mode()
def main(
    models: tuple[str, ...] = DEFAULT_MODELS,
    repetitions: int = 1,
    fast_steps: int | None = None,
    fast_solver: str | None = None,
) -> None:
    """Time the models one after the other and print a table.

    Args:
        models: stable-audio-3-small, longcat, audioldm2, stable-audio, or variants of this project
            with the 7B text encoder.
        repetitions: How often each part is timed; the median counts.
        fast_steps: Of the fast preset; the variant's if not given.
        fast_solver: Likewise.
    """
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    print(f"{describe()}\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    for name in models:
        peer = PEERS.get(name)
        timings = unison(name, repetitions, fast_steps, fast_solver)
        for timing in timings if peer is None else peer(repetitions):
            print(timing.row(), flush=True)
        gc.collect()
    print("\nStable Audio Open computes its whole length whatever duration is asked for.")


if __name__ == "__main__":
    cyclopts.run(main)

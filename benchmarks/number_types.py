"""Time, memory and error of the backbone in float32, bfloat16 and int8, in one process.

python benchmarks/number_types.py [--variant d24-16k] [--blocks 4] [--repetitions 3]
python benchmarks/number_types.py --layers

The first command times one guided step of random weights of true size, by turns, and compares the
velocities with those of float32. Times are the processor's, on one thread, so that other programs
do not count. `--blocks` takes that many blocks instead of all. For nano it takes the trained
weights. The second command makes one kind of layer of the trained nano int8 at a time and prints
the velocity error of each, at points on the way of sampled speech and sound. Markdown tables.
"""

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Iterator
from statistics import median
from unittest import mock

import cyclopts
import torch
from machine import describe
from parity import draw_inputs
from torch import Tensor, nn
from true_size import random_model

from unison_audio.model import linear
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.flow import add_noise
from unison_audio.model.int8 import int8_layers, pack_int8, quantize_state, use_int8_layout
from unison_audio.model.prepared import PreparedRun
from unison_audio.pipeline import Unison
from unison_audio.variants import VARIANTS, Variant

STEPS, STEP = 100, 40

TORCH = "float32, torch's product"
"""The row that the others are compared with: how all products were computed before."""

TIMES = (0.95, 0.8, 0.6, 0.4, 0.2, 0.05)
"""Flow times of the layers' table."""

INSTRUCTIONS = (
    '[Speech] A female voice saying "the red dog is in the house"',
    '[Speech] A male voice saying "we see snow today"',
    "[Audio] birds singing",
    "[Audio] a car engine",
)

KINDS = (
    "query_key_value",
    "key_value",
    "output.attention",
    "output.mlp_in",
    "output.mlp_out",
    "modulation",
    "fresh_projectors",
    "head.linear",
)
"""Kinds of linear layers, by a part of their names."""


def in_int8(backbone: UnisonBackbone, names: list[str], rest: torch.dtype) -> UnisonBackbone:
    """A copy with int8 layers, and everything else in another type."""
    with torch.device("meta"):
        copied = UnisonBackbone(backbone.config)
    use_int8_layout(copied, names)
    own = tuple(f"{name}." for name in names)
    state = quantize_state(backbone.state_dict(), names)
    kept = {k: v if k.startswith(own) else v.to(rest) for k, v in state.items()}
    copied.load_state_dict(kept, assign=True)
    return copied.eval().requires_grad_(False)


def difference(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def stored_bytes(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def linear_layers(backbone: UnisonBackbone, without: tuple[str, ...]) -> list[str]:
    """Names of the linear layers, but for those that begin with one of `without`."""
    return [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(without)
    ]


@contextlib.contextmanager
def multiplied_by(name: str) -> Iterator[None]:
    """torch's float32 product for the first row, oneDNN's for the others."""
    if name != TORCH:
        yield
        return
    with mock.patch.object(linear, "has_onednn", return_value=False):
        yield


def trained_nano() -> UnisonBackbone:
    return Unison.from_pretrained("nano", dtype=torch.float32).backbone.requires_grad_(False)


def compare_types(variant: Variant, duration: float, repetitions: int) -> None:
    """Time a guided step of each type."""
    exact = (
        trained_nano()
        if variant.name == "nano"
        else random_model(lambda: UnisonBackbone(variant.backbone))
    )
    step_layers, all_layers = int8_layers(exact), linear_layers(exact, ("time.", "head."))
    models: dict[str, UnisonBackbone] = {
        TORCH: exact,
        "float32, oneDNN's product": exact,
        "bfloat16": copy.deepcopy(exact).to(torch.bfloat16),
        "int8, rest bfloat16": in_int8(exact, step_layers, torch.bfloat16),
        "the same, not packed": in_int8(exact, step_layers, torch.bfloat16),
        "int8, rest float32": in_int8(exact, step_layers, torch.float32),
        "int8, modulations and projectors too": in_int8(exact, all_layers, torch.bfloat16),
    }
    sizes = {name: stored_bytes(model) for name, model in models.items()}
    for name, model in models.items():
        if not name.endswith("not packed"):
            pack_int8(model)
    given = draw_inputs(variant, duration)
    del given["penultimate"]
    z_t = given.pop("z_t")
    times = torch.linspace(1, 0, STEPS + 1)[:-1]
    found: dict[str, tuple[Tensor, Tensor | None]] = {}
    calls: dict[str, Callable[[], tuple[Tensor, Tensor | None]]] = {}
    for name, model in models.items():
        run = PreparedRun(model, times=times, **given)
        calls[name] = lambda run=run: run.velocities(z_t, STEP, guided=True)
        with multiplied_by(name):
            found[name] = calls[name]()  # the first call, not timed
    taken: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(repetitions):
        for name, call in calls.items():
            with multiplied_by(name):
                start = time.process_time()
                call()
                taken[name].append(time.process_time() - start)
    blocks = variant.backbone.blocks
    print(f"{variant.name}, {blocks} blocks, {duration:g} s, one guided step by turns")
    print(f"Medians of {repetitions}\n")
    print("| type | step, s | of float32 | error with text | without | weights, MB | of float32 |")
    print("|---|---|---|---|---|---|---|")
    base, size = median(taken[TORCH]), sizes[TORCH]
    for name in models:
        errors = [
            difference(a, b)
            for a, b in zip(found[name], found[TORCH], strict=True)
            if a is not None and b is not None
        ]
        own = median(taken[name])
        print(
            f"| {name} | {own:.3f} | {own / base:.3f} | {errors[0]:.1e} | {errors[1]:.1e} | "
            f"{sizes[name] / 1e6:.0f} | {sizes[name] / size:.3f} |",
            flush=True,
        )


def compare_layers() -> None:
    """Velocity error of nano with one kind of layer in int8 at a time."""
    exact = trained_nano()
    unison = Unison.from_pretrained("nano")
    text = unison.text_encoder.encode(INSTRUCTIONS)
    sounds = [unison.generate(line, num_candidates=1, seed=3) for line in INSTRUCTIONS]
    waves = torch.stack([sound.waveform.flatten() for sound in sounds])
    z = unison.codec.encode(waves)
    eps = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    m = torch.zeros(len(z), 1, z.shape[2])
    steps = [add_noise(z, eps, z.new_full((len(z),), t)) for t in TIMES]

    def velocities(model: UnisonBackbone) -> Tensor:
        run = PreparedRun(
            model, torch.zeros_like(z), m, text.hidden_states, text.mask, times=torch.tensor(TIMES)
        )
        return torch.stack([run.velocities(z_t, k, guided=False)[0] for k, z_t in enumerate(steps)])

    reference = velocities(exact)
    linear_names = linear_layers(exact, ("time.",))
    print("| int8 layers of nano, the rest float32 | number | weights, M | velocity error |")
    print("|---|---|---|---|")
    rows = {kind: [name for name in linear_names if _is(kind, name)] for kind in KINDS}
    rows["all that become int8"] = int8_layers(exact)
    rows["all of these"] = linear_names
    for kind, names in rows.items():
        weights = sum(exact.get_submodule(name).weight.numel() for name in names)
        error = difference(velocities(in_int8(exact, names, torch.float32)), reference)
        print(f"| {kind} | {len(names)} | {weights / 1e6:.2f} | {error:.2%} |")
    half = difference(velocities(copy.deepcopy(exact).to(torch.bfloat16)), reference)
    print(f"| none, all bfloat16 | | | {half:.2%} |")


def _is(kind: str, name: str) -> bool:
    """Whether a layer is of a kind; key_value alone means the text's."""
    return kind in name and not (kind == "key_value" and "query_key_value" in name)


@torch.inference_mode()
def main(
    variant: str = "d24-16k",
    duration: float = 10.0,
    repetitions: int = 3,
    blocks: int | None = None,
    layers: bool = False,
) -> None:
    """Print one of the tables.

    Args:
        variant: A variant of fusion O.
        duration: Seconds of sound.
        repetitions: How often each type is timed.
        blocks: Number of blocks; all of the variant's if None.
        layers: The table of nano's layers instead.
    """
    print(f"{describe()}\n")
    if layers:
        compare_layers()
        return
    chosen = VARIANTS[variant]
    if blocks is not None:
        backbone = dataclasses.replace(chosen.backbone, blocks=blocks)
        chosen = dataclasses.replace(chosen, backbone=backbone)
    torch.set_num_threads(1)
    compare_types(chosen, duration, repetitions)


if __name__ == "__main__":
    cyclopts.run(main)

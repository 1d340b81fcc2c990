"""Compare a training step of nano in float32 and in bfloat16, in one process.

python benchmarks/training_precision.py [--items 24] [--frames 40] [--repeats 5]

Prints a Markdown table: the time of a step (forward, backward, AdamW), its ratio to float32's, and
the relative distance of the gradient from float32's.
"""

import argparse
import time

import torch
from machine import describe
from torch import Tensor

from unison_audio.pipeline import Unison


def gradient(backbone: torch.nn.Module, given: tuple[Tensor, ...], aim: Tensor, half: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        v = backbone(*given)
    (v.float() - aim).square().mean().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    unison = Unison.from_pretrained("nano")
    backbone = unison.backbone.train().requires_grad_(True)
    items, frames, channels = arguments.items, arguments.frames, unison.variant.latent_channels
    text = unison.text_encoder.encode(['[Speech] A male voice saying "stop the red car now"'])
    given = (
        torch.randn(items, 2 * channels + 1, frames),
        torch.rand(items),
        text.hidden_states.expand(items, -1, -1, -1),
        text.mask.expand(items, -1),
    )
    aim = torch.randn(items, channels, frames)
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=0.0, fused=True)
    found: dict[bool, Tensor] = {}
    spent: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(arguments.repeats + 1):  # the first one warms up
        for half in (False, True):
            optimizer.zero_grad()
            began = time.perf_counter()
            gradient(backbone, given, aim, half)
            optimizer.step()
            spent[half].append(time.perf_counter() - began)
            parts = [p.grad.flatten() for p in backbone.parameters() if p.grad is not None]
            found[half] = torch.cat(parts).clone()
    best = {half: min(times[1:]) for half, times in spent.items()}
    away = float((found[True] - found[False]).norm() / found[False].norm())
    print(f"{items} clips of {frames} latent frames; {describe()}\n")
    print("| products | s a step | of float32 | gradient error |\n|---|---|---|---|")
    print(f"| float32 | {best[False]:.3f} | 1.00 | |")
    print(f"| bfloat16 | {best[True]:.3f} | {best[True] / best[False]:.2f} | {away:.1%} |")


if __name__ == "__main__":
    main()

"""A training step of nano: torch's and oneDNN's products in float32, and bfloat16.

python benchmarks/training_precision.py [--items 24] [--frames 40] [--repeats 5]

Prints a Markdown table: the time of a step (forward, backward, AdamW), its ratio to float32's, and
the relative distance of the gradient from float32's. By turns in one process, the processor's time.
"""

import argparse
import time
from statistics import median
from unittest import mock

import torch
from machine import describe
from torch import Tensor

from unison_audio.model import linear
from unison_audio.pipeline import Unison

PLAIN, FAST, HALF = "float32, torch's products", "float32, oneDNN's products", "bfloat16"


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
    torch.set_num_threads(1)
    torch.manual_seed(0)
    unison = Unison.from_pretrained("nano")
    backbone = unison.backbone.train().requires_grad_(True)
    items, frames, channels = arguments.items, arguments.frames, unison.variant.latent_channels
    text = unison.text_encoder.encode(['[Speech] A male voice saying "stop the red car now"'])
    given = (
        torch.randn(items, 2 * channels + 1, frames),
        torch.rand(items),
        text.hidden_states.clone().expand(items, -1, -1, -1),  # no tensor of inference mode
        text.mask.expand(items, -1),
    )
    aim = torch.randn(items, channels, frames)
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=0.0, fused=True)
    found: dict[str, Tensor] = {}
    spent: dict[str, list[float]] = {PLAIN: [], FAST: [], HALF: []}
    for _ in range(arguments.repeats + 1):  # the first one warms up
        for way, taken in spent.items():
            optimizer.zero_grad()
            began = time.process_time()
            allowed = linear.has_onednn() and way != PLAIN
            with mock.patch.object(linear, "has_onednn", return_value=allowed):
                gradient(backbone, given, aim, way == HALF)
            optimizer.step()
            taken.append(time.process_time() - began)
            parts = [p.grad.flatten() for p in backbone.parameters() if p.grad is not None]
            found[way] = torch.cat(parts).clone()
    base = median(spent[PLAIN][1:])
    print(f"{items} clips of {frames} latent frames; {describe()}\n")
    print("| products | s a step | of the first row | gradient error |\n|---|---|---|---|")
    for way, taken in spent.items():
        own = median(taken[1:])
        away = float((found[way] - found[PLAIN]).norm() / found[PLAIN].norm())
        print(f"| {way} | {own:.3f} | {own / base:.2f} | {away:.1e} |")


if __name__ == "__main__":
    main()

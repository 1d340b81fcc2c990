"""One guided step of d24-16k: the release's way against this project's, in one process.

    python benchmarks/guided_step.py
    python benchmarks/guided_step.py --duration 22 --repetitions 3

The release's way pads the text to 256 tokens, computes text queries and projectors at every step,
embeds the latent in each of two passes and keeps q, k and v apart. It is computed here by
`tests/independent_backbone.py` with PyTorch's fused kernels put in, so that the two ways differ in
what they compute and not in how well. Both get the same weights and must agree to 1e-4.

The useful work of a step is what its result cannot do without, at two operations a multiply-add:

    embedder        once, on T' frames: z_t, z_s and m are the same in both halves of guidance
    each block      2 T' frames through q, k, v, out and the MLP: 4 d^2 + 8 d^2 weights a frame
                    N text tokens through k and v: 2 d^2 weights (they change with t)
                    attention: (T' + N) keys with text, T' without; d for scores, d for values
    head            2 T' frames: d C

Norms, activations, modulations and rotations are counted as nothing, and so is whatever one way
does beyond the above. The large fp32 matrix product is timed between the steps.
"""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cyclopts
import torch
from machine import MatrixProduct, describe, seconds
from parity import draw_inputs, imported_backbone, release_size
from torch import Tensor
from torch.nn import functional

from unison_audio.model.config import BackboneConfig
from unison_audio.model.guidance import Guidance
from unison_audio.model.linear import apply_linear
from unison_audio.model.prepared import PreparedRun
from unison_audio.model.solvers import Solver
from unison_audio.variants import VARIANTS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from independent_backbone import (
    TEXT_LENGTH,
    Network,
    Size,
    Weights,
    attend_fused,
    draw_state,
    pad_text,
)

ALLOWED_RATIO = 0.88
REQUIRED_SHARE = 0.70
STEPS = 100
STEP = 40


class AsReleased(Network):
    """The independent computation with PyTorch's own kernels wherever it has one."""

    def __init__(self, weights: Weights, size: Size, frames: int) -> None:
        super().__init__(weights, size, attend_fused)
        angle = torch.arange(frames)[:, None] / 10_000 ** (
            torch.arange(0, size.rope_dim, 2, dtype=torch.float64) / size.rope_dim
        )
        self.turn = torch.polar(torch.ones_like(angle), angle).to(torch.complex64)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return apply_linear(x, self.weights(f"{name}.weight"), self.weights(f"{name}.bias"))

    def layer_norm(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], eps=1e-6)

    def head_norm(self, name: str, x: Tensor) -> Tensor:
        return functional.rms_norm(x, x.shape[-1:], self.weights(f"{name}.weight"), 1e-6)

    def rotate(self, x: Tensor) -> Tensor:
        n = self.size.rope_dim
        pairs = torch.view_as_complex(x[..., :n].unflatten(-1, (-1, 2)))
        return torch.cat([torch.view_as_real(pairs * self.turn).flatten(-2), x[..., n:]], dim=-1)


def embedder_weights(config: BackboneConfig) -> int:
    """Weights that each frame meets in the embedder."""
    hidden = -(-(4 * config.dim * 2 // 3) // 256) * 256
    entry = (2 * config.latent_channels + 1) * config.dim
    return config.embed_kernel * (entry + 3 * config.dim * hidden)


def useful_flop(config: BackboneConfig, frames: int, tokens: int) -> int:
    """Operations that a guided step cannot do without (fusion O); the formula stands above."""
    d = config.dim
    audio = 2 * frames * 12 * d * d
    text = tokens * 2 * d * d
    attention = frames * (frames + tokens + frames) * 2 * d
    head = 2 * frames * d * config.latent_channels
    return 2 * (
        frames * embedder_weights(config) + config.blocks * (audio + text + attention) + head
    )


def released_flop(config: BackboneConfig, frames: int) -> int:
    """Operations of the release's way, by the same rules."""
    d, length = config.dim, frames + TEXT_LENGTH
    text = TEXT_LENGTH * (config.text_dim * d + 3 * d * d)
    block = frames * 12 * d * d + text + length * length * 2 * d
    head = frames * d * config.latent_channels
    one = frames * embedder_weights(config) + config.blocks * block + head
    return 2 * 2 * one


@torch.inference_mode()
def main(
    variant: str = "d24-16k", duration: float = 10.0, tokens: int = 30, repetitions: int = 5
) -> None:
    """Time both ways in turn and print the medians.

    Args:
        variant: One of fusion O.
        duration: Seconds of sound.
        tokens: Of text.
        repetitions: How often each is timed.
    """
    chosen, guidance = VARIANTS[variant], Guidance()
    config = chosen.backbone
    if config.fusion != "O":
        sys.exit(f"{variant} has fusion {config.fusion}; the useful work is counted for O only.")
    size = release_size(chosen)
    state = draw_state(size)
    backbone = imported_backbone(chosen, state)
    given = draw_inputs(chosen, duration, tokens)
    del given["penultimate"]

    z_t = given.pop("z_t")
    frames = z_t.shape[-1]
    released = AsReleased(state.__getitem__, size, frames)
    x = torch.cat((z_t, given["z_s"], given["m"]), dim=1)
    padded = pad_text(given["hidden_states"], given["text_mask"])
    times = Solver("euler", STEPS).times
    run: list[PreparedRun] = []

    def release_step() -> Tensor:
        return released.guided_velocity(x, times[STEP : STEP + 1], *padded, guidance.scale)

    def prepare() -> None:
        run[:] = [PreparedRun(backbone, **given, times=times)]

    def project_step() -> Tensor:
        v1, v0 = run[0].velocities(z_t, STEP, guided=True)
        assert v0 is not None
        return guidance.combine(v1, v0)

    preparation = seconds(prepare)
    ours, theirs = project_step(), release_step()  # the first call of each, not timed
    error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    if not error <= 1e-4:
        sys.exit(f"The two ways differ by {error:.1e}; 1e-4 is allowed.")

    product = MatrixProduct()
    product()
    work: dict[str, Callable[[], object]] = {
        "product": product,
        "release": release_step,
        "product again": product,
        "project": project_step,
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    gc.disable()
    for _ in range(repetitions):
        for name, call in work.items():
            taken[name].append(seconds(call))
    large = product.flop / median(taken["product"] + taken["product again"])
    release, project = median(taken["release"]), median(taken["project"])
    useful, done = useful_flop(config, frames, tokens), released_flop(config, frames)

    print(f"{describe()}\n{variant}, {duration:g} s ({frames} frames), {tokens} text tokens, fp32")
    print(f"{repetitions} repetitions in turn, medians; the two agree to {error:.1e}\n")
    print("| | seconds | GFLOP | GFLOP/s | of the large product |\n|---|---|---|---|---|")
    side = product.a.shape[0]
    for name, time, flop in (
        (f"large product ({side} x {side})", product.flop / large, product.flop),
        ("step, the release's way: all that it does", release, done),
        ("step, the release's way: useful work", release, useful),
        ("step, this project's way: useful work", project, useful),
    ):
        rate = flop / time
        print(f"| {name} | {time:.2f} | {flop / 1e9:.0f} | {rate / 1e9:.1f} | {rate / large:.0%} |")
    print(
        f"\nOnce a run of {STEPS} steps: {preparation:.2f} s, {preparation / STEPS:.3f} s a step."
    )
    amortised = (project + preparation / STEPS) / release
    print(f"Time against the release's way: {project / release:.3f} ({amortised:.3f} with that).")
    print(f"Allowed: {ALLOWED_RATIO}; by operations alone {useful / done:.3f}.")
    share = useful / project / large
    print(f"Useful work against the large product: {share:.1%}; required {REQUIRED_SHARE:.0%}.")
    if project / release > ALLOWED_RATIO or share < REQUIRED_SHARE:
        sys.exit(1)


if __name__ == "__main__":
    cyclopts.run(main)

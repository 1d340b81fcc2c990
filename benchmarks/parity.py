"""Exactness at full size: the project against an independent computation, in fp32.

    python benchmarks/parity.py
    python benchmarks/parity.py --variants d24-16k-ol --duration 5

Weights are drawn by name in the layout of the UNISON release and taken over by the importer that
takes over the released ones. The other side is `tests/independent_backbone.py`: text padded to 256
tokens, one call with text and one without. Both give the velocity of one guided step. An error is
the largest difference over the largest velocity; 1e-4 is allowed.
"""

import gc
import sys
from pathlib import Path

import cyclopts
import torch
from machine import describe, peak_memory_gib

from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.guidance import Guidance
from unison_audio.model.prepared import PreparedRun
from unison_audio.release import import_release_state
from unison_audio.variants import VARIANTS, Variant

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from independent_backbone import Network, Size, draw_state, pad_text

ALLOWED = 1e-4
TOKENS = 30
T = 0.6


def release_size(variant: Variant) -> Size:
    """The variant's sizes for the independent side; what is not given is the paper's."""
    config = variant.backbone
    return Size(
        channels=config.latent_channels,
        blocks=config.blocks,
        text_dim=config.text_dim,
        fusion=config.fusion,  # type: ignore[arg-type]
    )


def imported_backbone(variant: Variant, state: dict[str, torch.Tensor]) -> UnisonBackbone:
    """The project's backbone with the release's weights."""
    with torch.device("meta"):
        backbone = UnisonBackbone(variant.backbone)
    backbone.load_state_dict(import_release_state(state, variant.backbone), assign=True)
    return backbone.eval().requires_grad_(False)


def draw_inputs(variant: Variant, duration: float, tokens: int = TOKENS) -> dict[str, torch.Tensor]:
    """Noise, a source, edit tags and text states of one item."""
    frames, config = int(duration * variant.latent_fps), variant.backbone
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "z_t": draw(1, config.latent_channels, frames),
        "z_s": draw(1, config.latent_channels, frames),
        "m": torch.ones(1, 1, frames),
        "hidden_states": draw(1, config.blocks, tokens, config.text_dim),
        "penultimate": draw(1, tokens, config.text_dim),
        "text_mask": torch.ones(1, tokens, dtype=torch.bool),
    }


@torch.inference_mode()
def compare(name: str, duration: float = 10.0) -> dict[str, float]:
    """Errors of a variant's velocity with text, without, and guided."""
    variant, guidance = VARIANTS[name], Guidance()
    size = release_size(variant)
    state = draw_state(size)
    backbone = imported_backbone(variant, state)
    given = draw_inputs(variant, duration)

    x = torch.cat([given[part] for part in ("z_t", "z_s", "m")], dim=1)
    states, mask = pad_text(given["hidden_states"], given["text_mask"])
    last, _ = pad_text(given["penultimate"], given["text_mask"])
    network, t = Network(state.__getitem__, size), torch.tensor([T])
    with_text = network.velocity(x, t, states, mask, last)
    without = network.velocity(x, t, 0 * states, mask & False, 0 * last)
    guided = without + guidance.scale * (with_text - without)

    z_t = given.pop("z_t")
    v1, v0 = PreparedRun(backbone, **given, times=t).velocities(z_t, 0, guided=True)
    assert v0 is not None
    found = {
        "with text": (v1, with_text),
        "without text": (v0, without),
        "guided": (guidance.combine(v1, v0), guided),
    }
    return {
        what: ((v - reference).abs().max() / reference.abs().max()).item()
        for what, (v, reference) in found.items()
    }


def main(variants: tuple[str, ...] = ("d24-16k", "d20-44k"), duration: float = 10.0) -> None:
    """Print the errors of each variant.

    Args:
        variants: Which.
        duration: Seconds of sound.
    """
    print(f"{describe()}\n{duration:g} s, {TOKENS} text tokens, t = {T}, fp32\n")
    print("| variant | frames | with text | without text | guided | allowed | peak memory |")
    print("|---|---|---|---|---|---|---|")
    worst = 0.0
    for name in variants:
        errors = compare(name, duration)
        worst = max(worst, *errors.values())
        frames = int(duration * VARIANTS[name].latent_fps)
        cells = " | ".join(f"{error:.1e}" for error in errors.values())
        memory = f"{peak_memory_gib():.1f} GiB"
        print(f"| {name} | {frames} | {cells} | {ALLOWED:.0e} | {memory} |", flush=True)
        gc.collect()
    if not worst <= ALLOWED:
        sys.exit(f"The largest error is {worst:.1e}; {ALLOWED:.0e} is allowed.")


if __name__ == "__main__":
    cyclopts.run(main)

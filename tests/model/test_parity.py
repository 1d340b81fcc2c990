"""The backbone against an independent computation of the same mathematics."""

from pathlib import Path

import pytest
import torch
from independent_backbone import Network, Size, draw_state, pad_text, release_shapes
from safetensors.torch import load_file
from torch import Tensor

from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.config import FUSIONS, BackboneConfig
from unison_audio.model.prepared import PreparedRun
from unison_audio.release import import_release_state
from unison_audio.variants import VARIANTS

FIXTURES = Path(__file__).parents[1] / "fixtures"
GOLDEN = {"double-deep": "O", "double-last": "L", "double-both": "OL", "single-deep": "S"}
FRAMES, TOKENS = [21, 30, 30], [5, 0, 8]


def small_size(fusion: str) -> Size:
    return Size(
        channels=4, blocks=3, text_dim=48, fusion=fusion, width=64, heads=2, rope_dim=24
    )  # fmt: skip


def project_config(size: Size) -> BackboneConfig:
    return BackboneConfig(
        latent_channels=size.channels,
        dim=size.width,
        heads=size.heads,
        rope_dim=size.rope_dim,
        blocks=size.blocks,
        text_dim=size.text_dim,
        fusion=size.fusion,
        embed_kernel=size.kernel,
    )


def both(fusion: str) -> tuple[Network, UnisonBackbone]:
    """The same weights in float64 on the independent side and in float32 on the project's."""
    size = small_size(fusion)
    state = draw_state(size)
    backbone = UnisonBackbone(project_config(size))
    backbone.load_state_dict(import_release_state(state, backbone.config))
    return Network(lambda name: state[name].double(), size), backbone.eval()


def inputs() -> dict[str, Tensor]:
    """Three rows of unequal lengths, one of them without text."""
    generator = torch.Generator().manual_seed(11)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "z_t": draw(3, 4, 30),
        "z_s": draw(3, 4, 30),
        "m": torch.randint(0, 3, (3, 1, 30), generator=generator).float(),
        "hidden_states": draw(3, 3, 8, 48),
        "penultimate": draw(3, 8, 48),
        "text_mask": torch.arange(8) < torch.tensor(TOKENS)[:, None],
    }


def literally(network: Network, given: dict[str, Tensor], row: int, t: float) -> list[Tensor]:
    """v with and without text of one row alone, in float64 and with the text padded to 20."""
    x = torch.cat([given[name] for name in ("z_t", "z_s", "m")], dim=1)[row : row + 1].double()
    states, mask = pad_text(given["hidden_states"][row : row + 1].double(), given["text_mask"], 20)
    last, mask = pad_text(given["penultimate"][row : row + 1].double(), given["text_mask"], 20)
    mask, time = mask[row : row + 1], torch.tensor([t], dtype=torch.float64)
    x = x[..., : FRAMES[row]]
    return [
        network.velocity(x, time, states, mask, last),
        network.velocity(x, time, 0 * states, mask & False, 0 * last),
    ]


def relative_error(v: Tensor, reference: Tensor) -> float:
    return ((v - reference).abs().max() / reference.abs().max()).item()


@pytest.mark.parametrize(("name", "fusion"), GOLDEN.items())
def test_the_independent_computation_gives_the_releases_outputs(name: str, fusion: str) -> None:
    golden = load_file(FIXTURES / f"backbone-{name}.safetensors")
    state = draw_state(small_size(fusion))
    network = Network(lambda key: state[key], small_size(fusion))
    names = ("x", "t", "hidden_states", "text_mask", "penultimate")
    x, t, states, mask, last = (golden[f"in.{key}"] for key in names)
    v = network.velocity(x, t, states, mask, last)
    without = network.velocity(x, t, 0 * states, 0 * mask, 0 * last)
    assert relative_error(v, golden["out.v"]) < 1e-5
    assert relative_error(without, golden["out.v_unconditional"]) < 1e-5


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [
        ("d20-44k", 620_775_464),
        ("d24-16k", 731_705_364),
        ("d24-16k-l", 974_672_916),
        ("d24-16k-ol", 1_062_777_876),
        ("s32-16k", 685_441_044),
        ("d24-16k-3b", 693_956_628),
    ],
)
def test_its_weights_are_as_many_as_the_paper_says(variant: str, parameters: int) -> None:
    config = VARIANTS[variant].backbone
    size = Size(
        channels=config.latent_channels,
        blocks=config.blocks,
        text_dim=config.text_dim,
        fusion=config.fusion,
    )
    assert sum(torch.Size(shape).numel() for shape in release_shapes(size).values()) == parameters


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_a_padded_batch_agrees(fusion: str) -> None:
    network, backbone = both(fusion)
    given, t = inputs(), 0.37
    x = torch.cat([given[name] for name in ("z_t", "z_s", "m")], dim=1)
    text = (given["hidden_states"], given["text_mask"], given["penultimate"])
    v1 = backbone(x, torch.full((3,), t), *text)
    v0 = backbone(x, torch.full((3,), t), 0 * text[0], text[1] & False, 0 * text[2])
    for row in (1, 2):  # row 0 is shorter than the batch, which padding the latents would change
        for v, reference in zip((v1, v0), literally(network, given, row, t), strict=True):
            assert relative_error(v[row : row + 1], reference) < 1e-4


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_a_prepared_run_agrees_row_by_row(fusion: str) -> None:
    network, backbone = both(fusion)
    given, times = inputs(), torch.tensor([1.0, 0.62, 0.004])
    z_t = given.pop("z_t")
    run = PreparedRun(backbone, **given, times=times, frames=FRAMES)
    for step, t in enumerate(times.tolist()):
        guided = run.velocities(z_t, step, guided=True)
        v1, nothing = run.velocities(z_t, step, guided=False)
        assert nothing is None
        for row, frames in enumerate(FRAMES):
            references = literally(network, {**given, "z_t": z_t}, row, t)
            for v, reference in zip((*guided, v1), (*references, references[0]), strict=True):
                assert v is not None
                assert relative_error(v[row : row + 1, :, :frames], reference) < 1e-4
                assert not v[row, :, frames:].any()


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["d24-16k", "d20-44k"])
def test_full_size_agrees(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's own computation; several GB of memory and a minute or so each."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    from parity import compare

    errors = compare(variant)
    assert max(errors.values()) <= 1e-4

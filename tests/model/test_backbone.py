"""The backbone: initialization, independence of padding and other rows, gradients."""

import re
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.config import FUSIONS, BackboneConfig
from unison_audio.model.layers import HeadNorm


def tiny_config(fusion: str) -> BackboneConfig:
    return BackboneConfig(
        latent_channels=4, dim=64, heads=2, rope_dim=24, blocks=3, text_dim=48, fusion=fusion
    )


def random_backbone(fusion: str) -> UnisonBackbone:
    """A backbone in which every weight does something, unlike at the start of training."""
    torch.manual_seed(0)
    backbone = UnisonBackbone(tiny_config(fusion))
    for name, parameter in backbone.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
        nn.init.normal_(parameter, mean=float("norm" in name), std=fan_in**-0.5)
    return backbone.eval()


def random_inputs(batch: int = 2, frames: int = 13, tokens: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "x": draw(batch, 9, frames),
        "t": torch.rand(batch, generator=generator),
        "hidden_states": draw(batch, 3, tokens, 48),
        "text_mask": torch.arange(tokens).expand(batch, -1) < tokens - 2,
        "penultimate": draw(batch, tokens, 48),
    }


@pytest.mark.parametrize("fusion", FUSIONS)
def test_initialization(fusion: str) -> None:
    torch.manual_seed(0)
    config = tiny_config(fusion)
    backbone = UnisonBackbone(config)
    conv = backbone.embed.conv
    assert not conv.weight[:, config.latent_channels :].any()
    assert conv.bias is not None
    assert not conv.bias.any()
    bound = (6 / (7 * 9 + 7 * config.dim)) ** 0.5  # Xavier of the whole convolution
    trained = conv.weight[:, : config.latent_channels].abs()
    assert 0.95 * bound < trained.max() <= bound
    for linear in (backbone.time.linear_in, backbone.time.linear_out):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
    zero = {name for name, p in backbone.named_parameters() if not p.any()}
    modulations = {name for name, _ in backbone.named_parameters() if "modulation" in name}
    assert zero == modulations | {"embed.conv.bias", "head.linear.weight", "head.linear.bias"}
    for name, module in backbone.named_modules():
        if isinstance(module, HeadNorm):
            assert (module.weight == 1).all()
        elif isinstance(module, nn.Linear) and not re.match(r"time|head|.*modulation", name):
            # PyTorch's default is uniform up to 1 / sqrt(inputs).
            assert 0.9 < module.weight.abs().max() * module.in_features**0.5 <= 1
    assert not backbone(**random_inputs()).any()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_only_z_t_matters_at_the_start(fusion: str) -> None:
    backbone, inputs = UnisonBackbone(tiny_config(fusion)), random_inputs()
    tokens = backbone.embed(inputs["x"])
    inputs["x"][:, 4:] = 7.0
    torch.testing.assert_close(backbone.embed(inputs["x"]), tokens, atol=0, rtol=0)
    inputs["x"][:, :4] = 7.0
    assert not torch.allclose(backbone.embed(inputs["x"]), tokens)


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_padding_has_no_influence(fusion: str) -> None:
    backbone, inputs = random_backbone(fusion), random_inputs()
    v = backbone(**inputs)
    padded = ~inputs["text_mask"]
    louder = dict(inputs)
    louder["hidden_states"] = inputs["hidden_states"].masked_fill(padded[:, None, :, None], 1e4)
    louder["penultimate"] = inputs["penultimate"].masked_fill(padded[..., None], -1e4)
    torch.testing.assert_close(backbone(**louder), v, atol=0, rtol=0)
    for length in (4, 17):  # without the padding, and with more of it
        other = random_inputs(tokens=length)
        other |= {"x": inputs["x"], "t": inputs["t"]}
        other["text_mask"] = torch.arange(length).expand(2, -1) < 4
        other["hidden_states"][:, :, :4] = inputs["hidden_states"][:, :, :4]
        other["penultimate"][:, :4] = inputs["penultimate"][:, :4]
        torch.testing.assert_close(backbone(**other), v, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_wholly_masked_rows_are_attention_over_audio_alone(fusion: str) -> None:
    backbone, inputs = random_backbone(fusion), random_inputs()
    with_text = backbone(**inputs)
    inputs["text_mask"] = inputs["text_mask"] & torch.tensor([[True], [False]])
    v = backbone(**inputs)
    v.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in backbone.parameters() if p.grad is not None)
    torch.testing.assert_close(v[0], with_text[0], atol=0, rtol=0)
    assert not torch.allclose(v[1], with_text[1])
    no_tokens = {name: inputs[name] for name in ("x", "t")} | {
        "hidden_states": torch.zeros(2, 3, 0, 48),
        "penultimate": torch.zeros(2, 0, 48),
        "text_mask": torch.zeros(2, 0, dtype=torch.bool),
    }
    torch.testing.assert_close(v[1], backbone(**no_tokens)[1], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_rows_of_a_batch_do_not_mix(fusion: str) -> None:
    backbone, inputs = random_backbone(fusion), random_inputs()
    alone = backbone(**{name: value[1:] for name, value in inputs.items()})
    torch.testing.assert_close(backbone(**inputs)[1:], alone, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_trained_parameter_gets_a_gradient(fusion: str) -> None:
    """DistributedDataParallel demands it; what no velocity depends on is frozen instead."""
    backbone = random_backbone(fusion)
    backbone(**random_inputs()).square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    frozen = [name for name, p in backbone.named_parameters() if not p.requires_grad]
    assert all(".text." in name for name in frozen)
    blocks = {"O": {0, 1, 2}, "L": {2}, "OL": {2}, "S": set()}[fusion]
    assert {int(name.split(".")[1]) for name in frozen} == blocks


@pytest.fixture
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.usefixtures("process_group")
def test_trains_under_distributed_data_parallel(fusion: str) -> None:
    backbone = random_backbone(fusion)
    before = {name: p.detach().clone() for name, p in backbone.named_parameters()}
    parallel = nn.parallel.DistributedDataParallel(backbone)
    optimizer = torch.optim.AdamW(parallel.parameters(), lr=1e-2)
    for _ in range(2):  # parameters without a gradient would be reported at the second step
        optimizer.zero_grad()
        parallel(**random_inputs()).square().mean().backward()
        optimizer.step()
    for name, parameter in backbone.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


@pytest.mark.parametrize("fusion", FUSIONS)
def test_text_queries_are_computed_only_where_text_is_persistent(fusion: str) -> None:
    backbone, inputs = random_backbone(fusion), random_inputs()
    rows: list[tuple[str, int]] = []
    for name, module in backbone.named_modules():
        if name.endswith("query"):
            module.register_forward_hook(
                lambda module, args, out, name=name: rows.append((name, args[0].shape[1]))
            )
    backbone(**inputs)
    text = [(name, length) for name, length in rows if ".text." in name]
    carried = [("blocks.0.text.query", 6), ("blocks.1.text.query", 6)]
    assert text == (carried if fusion in ("L", "OL") else [])
    assert all(length == 13 for name, length in rows if ".text." not in name)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_trains_after_a_run_in_inference_mode(fusion: str) -> None:
    backbone, inputs = random_backbone(fusion), random_inputs(frames=29)
    with torch.inference_mode():
        v = backbone(**inputs)
    trained = backbone(**inputs)
    trained.sum().backward()
    torch.testing.assert_close(trained, v.clone(), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_runs_in_bfloat16(fusion: str) -> None:
    backbone, inputs = random_backbone(fusion), random_inputs()
    v = backbone(**inputs)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = backbone(**inputs)
    cast = {n: x.bfloat16() if x.is_floating_point() else x for n, x in inputs.items()}
    whole = backbone.bfloat16()(**cast)
    for other in (autocast, whole):
        assert (other.float() - v).norm() < 0.05 * v.norm()


def test_missing_or_misshapen_text_is_refused() -> None:
    backbone, inputs = UnisonBackbone(tiny_config("OL")), random_inputs()
    for name in ("hidden_states", "penultimate", "text_mask"):
        with pytest.raises(InputError, match=f"{name} is missing"):
            backbone(**{**inputs, name: None})
    with pytest.raises(InputError, match=r"hidden_states has shape \(2, 2, 6, 48\)"):
        backbone(**{**inputs, "hidden_states": inputs["hidden_states"][:, :2]})
    with pytest.raises(InputError, match=r"penultimate has shape \(2, 6, 47\)"):
        backbone(**{**inputs, "penultimate": inputs["penultimate"][..., :47]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fusion": "X"}, "use one of O, L, OL, S"),
        ({"heads": 3}, "dim 64 over 3 heads"),
        ({"rope_dim": 34}, "rope_dim is 34"),
        ({"rope_dim": 7}, "rope_dim is 7"),
        ({"blocks": 0}, "blocks is 0"),
        ({"embed_kernel": 4}, "embed_kernel is 4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    sizes = {"latent_channels": 4, "dim": 64, "heads": 2, "rope_dim": 24, "blocks": 3}
    with pytest.raises(InputError, match=message):
        BackboneConfig(**{**sizes, "text_dim": 48, **change})

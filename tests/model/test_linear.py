"""Linear layers by oneDNN: the same products, only for inference, and nothing of nano's."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unison_audio.model import linear
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.linear import LARGE_WEIGHT, Linear, apply_linear, has_onednn
from unison_audio.variants import VARIANTS

WIDTH = 1024


@pytest.fixture(scope="module")
def layer() -> Linear:
    torch.manual_seed(0)
    return Linear(WIDTH, LARGE_WEIGHT // WIDTH + 3)


def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes that torch's own product is called with."""
    seen: list[torch.Size] = []
    plain = F.linear
    monkeypatch.setattr(
        linear.F, "linear", lambda x, *rest: seen.append(x.shape) or plain(x, *rest)
    )
    return seen


@pytest.mark.parametrize("shape", [(1,), (1, 1), (2, 7), (3, 1, 5)])
def test_the_product_is_that_of_float64(layer: Linear, shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(1))
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double())
    with torch.no_grad():
        found = layer(x)
        turned = layer(x.transpose(0, -2)) if len(shape) > 1 else None
    assert found.shape == exact.shape
    assert (found - exact).norm() < 5e-7 * exact.norm()
    if turned is not None:  # strides other than those of a contiguous tensor
        assert torch.allclose(turned, found.transpose(0, -2), atol=1e-5)


@pytest.mark.skipif(not has_onednn(), reason="needs AVX-512")
def test_torch_multiplies_where_onednn_must_not(
    layer: Linear, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, x = calls(monkeypatch), torch.randn(2, WIDTH)
    with torch.inference_mode():
        layer(x)
        assert not seen
        layer(x[:0])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            layer(x)
        copy.deepcopy(layer).bfloat16()(x.bfloat16())
        assert len(seen) == 3
        apply_linear(x, layer.weight[:-4], layer.bias[:-4])  # one row below the limit
        assert len(seen) == 4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x).sum().backward()
    assert len(seen) == 5
    layer.weight.grad = layer.bias.grad = None


@pytest.mark.skipif(not has_onednn(), reason="needs AVX-512")
@pytest.mark.parametrize("shape", [(130,), (1, 130), (2, 7, 130)])
@pytest.mark.parametrize("frozen", [(), ("x",), ("weight", "bias")])
def test_gradients_are_those_of_float64(
    shape: tuple[int, ...], frozen: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    small = Linear(130, 140)
    seen = calls(monkeypatch)
    found, exact = {}, {}
    for results, dtype in ((found, torch.float32), (exact, torch.float64)):
        one = copy.deepcopy(small).to(dtype)
        torch.manual_seed(1)
        given = {"x": torch.randn(shape).to(dtype).requires_grad_(), **dict(one.named_parameters())}
        for name in frozen:
            given[name].requires_grad_(False)
        y = one(given["x"])
        (y.square().sum() + y.sum()).backward()
        results.update({name: tensor.grad for name, tensor in given.items()})
    assert len(seen) == 1  # float64 alone
    for name, gradient in exact.items():
        if name in frozen:
            assert gradient is None
            assert found[name] is None
        else:
            assert found[name].shape == gradient.shape
            assert (found[name] - gradient).norm() < 5e-7 * gradient.norm()


def test_a_frozen_layer_with_gradients_on_and_a_batch_of_equal_rows(layer: Linear) -> None:
    rows = torch.randn(1, WIDTH).expand(6, -1)
    frozen = copy.deepcopy(layer).requires_grad_(False)
    assert not frozen(rows).requires_grad
    with torch.no_grad():
        assert torch.allclose(layer(rows), layer(rows[:1]).expand(6, -1), atol=1e-6)


def test_nano_has_no_large_layer_and_the_state_dict_is_plain(layer: Linear) -> None:
    with torch.device("meta"):
        backbone = UnisonBackbone(VARIANTS["nano"].backbone)
    sizes = [m.weight.numel() for m in backbone.modules() if isinstance(m, nn.Linear)]
    assert max(sizes) < LARGE_WEIGHT
    plain = nn.Linear(WIDTH, layer.out_features)
    plain.load_state_dict(layer.state_dict())
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert torch.equal(plain.weight, layer.weight)

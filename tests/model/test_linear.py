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
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    layer.weight.grad = layer.bias.grad = None


def test_nano_has_no_large_layer_and_the_state_dict_is_plain(layer: Linear) -> None:
    with torch.device("meta"):
        backbone = UnisonBackbone(VARIANTS["nano"].backbone)
    sizes = [m.weight.numel() for m in backbone.modules() if isinstance(m, nn.Linear)]
    assert max(sizes) < LARGE_WEIGHT
    plain = nn.Linear(WIDTH, layer.out_features)
    plain.load_state_dict(layer.state_dict())
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert torch.equal(plain.weight, layer.weight)

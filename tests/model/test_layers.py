"""The parts of a block against closed forms written out with plain loops."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unison_audio.model.layers import (
    ConvMLP,
    HeadNorm,
    LatentEmbedder,
    TimeEmbedder,
    attention,
    modulate,
    rotary_table,
    rotate,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(("head_dim", "rope_dim"), [(128, 96), (64, 48), (8, 8)])
def test_rotation_turns_pairs_and_leaves_the_rest(head_dim: int, rope_dim: int) -> None:
    x = torch.randn(2, 11, 3, head_dim, generator=torch.Generator().manual_seed(0))
    rotated = rotate(x, rotary_table(11, head_dim, rope_dim, CPU))
    for position in (0, 1, 10):
        for i in range(rope_dim // 2):
            angle = position / 10_000 ** (2 * i / rope_dim)
            turn = torch.tensor(
                [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
            )
            expected = x[:, position, :, 2 * i : 2 * i + 2] @ turn.T
            torch.testing.assert_close(rotated[:, position, :, 2 * i : 2 * i + 2], expected)
    assert torch.equal(rotated[..., rope_dim:], x[..., rope_dim:])


def test_rotated_products_depend_on_the_distance_only() -> None:
    q, k = torch.randn(2, 1, 1, 1, 64, generator=torch.Generator().manual_seed(1))
    table = rotary_table(1000, 64, 48, CPU)
    q, k = (rotate(x.expand(1, 1000, 1, 64), table)[0, :, 0] for x in (q, k))
    products = q @ k.T
    for distance in (-900, -3, 0, 40):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-3, rtol=0)


def test_rotary_table_needs_no_float64_on_the_device() -> None:
    expected = rotary_table(13, 64, 48, CPU)
    rotary_table.cache_clear()
    # Meta stands for a device without float64: on it the table would have no values to compare.
    with torch.device("meta"):
        table = rotary_table(13, 64, 48, CPU)
    assert torch.equal(table, expected)
    seen: list[tuple[str, torch.dtype]] = []

    class Noted(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = function(*args, **(kwargs or {}))
            seen.extend((x.device.type, x.dtype) for x in tree_leaves(out) if torch.is_tensor(x))
            return out

    rotary_table.cache_clear()
    with Noted():
        rotary_table(13, 64, 48, torch.device("meta"))
    assert ("cpu", torch.float64) in seen
    assert [kind for place, kind in seen if place == "meta"] == [torch.complex64]
    rotary_table.cache_clear()


def test_rotary_table_is_made_once() -> None:
    assert rotary_table(77, 64, 48, CPU) is rotary_table(77, 64, 48, CPU)


def test_attention_is_a_softmax_over_unmasked_keys() -> None:
    generator = torch.Generator().manual_seed(2)
    q = torch.randn(2, 5, 3, 8, generator=generator)
    k, v = torch.randn(2, 2, 7, 3, 8, generator=generator)
    mask = torch.rand(2, 7, generator=generator) < 0.6
    mask[:, 0] = True
    out = attention(q, k, v, mask[:, None, None])
    for b in range(2):
        kept = mask[b].nonzero()[:, 0]
        for head in range(3):
            weights = (q[b, :, head] @ k[b, kept, head].T / 8**0.5).softmax(-1)
            torch.testing.assert_close(
                out[b, :, 8 * head : 8 * head + 8], weights @ v[b, kept, head]
            )


def test_modulation_normalizes_then_shifts_and_scales() -> None:
    generator = torch.Generator().manual_seed(3)
    x = 5 + 3 * torch.randn(2, 4, 16, generator=generator)
    shift, scale = torch.randn(2, 2, 1, 16, generator=generator)
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    expected = (x - mean) / (variance + 1e-6).sqrt() * (1 + scale) + shift
    torch.testing.assert_close(modulate(x, shift, scale), expected)


def test_head_norm_divides_by_the_root_mean_square() -> None:
    norm = HeadNorm(4)
    norm.weight.data = torch.tensor([1.0, 2.0, -1.0, 0.5])
    x = torch.tensor([1.0, -2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    expected = x / (30 / 4 + 1e-6) ** 0.5 * norm.weight
    torch.testing.assert_close(norm(x), expected)
    assert norm(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(("dim", "hidden"), [(1024, 2816), (256, 768), (64, 256)])
def test_conv_mlp_width(dim: int, hidden: int) -> None:
    with torch.device("meta"):
        mlp = ConvMLP(dim, 7)
    assert mlp.out.weight.shape == (dim, hidden, 7)
    assert mlp.gate_value.weight.shape == (2 * hidden, dim, 7)


@pytest.mark.parametrize("kernel", [3, 7])
def test_embedder_keeps_the_length_and_sees_both_sides(kernel: int) -> None:
    torch.manual_seed(4)
    embed = LatentEmbedder(4, 64, kernel)
    x = torch.randn(1, 9, 30, requires_grad=True)
    tokens = embed(x)
    assert tokens.shape == (1, 30, 64)
    (gradient,) = torch.autograd.grad(tokens[0, 15].sum(), x)
    context = 3 * (kernel // 2)  # three convolutions in a row
    seen = gradient[0, :4].abs().sum(0).nonzero()[:, 0]
    assert (seen.min(), seen.max()) == (15 - context, 15 + context)


def test_time_waves() -> None:
    embed = TimeEmbedder(256)
    seen: list[torch.Tensor] = []
    embed.linear_in.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    assert embed(torch.tensor([0.0, 0.7])).shape == (2, 256)
    angles = [0.7 / 10_000 ** (i / 128) for i in range(128)]
    expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
    torch.testing.assert_close(seen[0][1], torch.tensor(expected))
    assert seen[0][0].tolist() == [1.0] * 128 + [0.0] * 128

"""The flow against closed forms of the Euler steps and against the scheduler's own loop."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unison_audio.model import flow

B, C, FRAMES, TOKENS = 3, 4, 10, 5


class Field:
    """A velocity field given as a function of (z_t, t, rows with text, z_s, m)."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.batches: list[int] = []
        self.times: list[float] = []
        self.projections: list[Tensor] = []

    def project_text(self, hidden_states: Tensor, penultimate: Tensor | None = None) -> Tensor:
        self.projections.append(hidden_states)
        return hidden_states

    def velocity(self, x: Tensor, t: Tensor, projected: Tensor, text_mask: Tensor) -> Tensor:
        self.batches.append(len(x))
        self.times.append(t.unique().item())
        has_text = text_mask.any(1)
        assert torch.equal(projected.flatten(1).any(1), has_text)
        return self.function(
            x[:, :C], t[:, None, None], has_text[:, None, None], x[:, C:-1], x[:, -1:]
        )


def inputs(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "z_s": torch.randn(B, C, FRAMES, generator=generator),
        "m": torch.randint(3, (B, 1, FRAMES), generator=generator).float(),
        "hidden_states": torch.randn(B, 2, TOKENS, 8, generator=generator),
        "text_mask": torch.ones(B, TOKENS, dtype=torch.bool),
        "noise": torch.randn(B, C, FRAMES, generator=generator),
    }


def euler_sigmas(steps: int) -> list[float]:
    """1 down to 0.001 evenly, then 0: the scheduler's default, from its documentation."""
    spread = [1 - 0.999 * i / (steps - 1) for i in range(steps)] if steps > 1 else [1.0]
    return [*spread, 0.0]


def test_noising_goes_from_data_to_noise() -> None:
    z, eps = torch.randn(2, B, C, FRAMES, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.0, 0.25, 1.0])
    z_t = flow.add_noise(z, eps, t)
    torch.testing.assert_close(z_t[0], z[0], atol=0, rtol=0)
    torch.testing.assert_close(z_t[1], 0.75 * z[1] + 0.25 * eps[1])
    torch.testing.assert_close(z_t[2], eps[2], atol=0, rtol=0)
    nearer = flow.add_noise(z, eps, t + 1e-3)
    torch.testing.assert_close(
        (nearer - z_t) / 1e-3, flow.target_velocity(z, eps), atol=2e-3, rtol=0
    )


def test_loss_is_the_mean_over_unmasked_elements() -> None:
    v, z, eps = torch.randn(3, B, C, FRAMES, generator=torch.Generator().manual_seed(0))
    square = (v - (eps - z)) ** 2
    torch.testing.assert_close(flow.flow_loss(v, z, eps), square.mean())
    mask = torch.ones(B, 1, FRAMES)
    mask[0, :, :7] = 0
    counted = torch.cat((square[0, :, 7:].flatten(), square[1:].flatten()))
    torch.testing.assert_close(flow.flow_loss(v, z, eps, mask), counted.mean())
    torch.testing.assert_close(flow.flow_loss(v, z, eps, mask.bool()), counted.mean())
    v.requires_grad_()
    flow.flow_loss(v, z, eps, mask).backward()
    assert v.grad is not None
    assert not v.grad[0, :, :7].any()
    assert v.grad[0, :, 7:].all()


def test_times_are_logit_normal() -> None:
    t = flow.sample_t(200_000, torch.Generator().manual_seed(0))
    assert ((t > 0) & (t < 1)).all()
    logits = torch.logit(t.double())
    assert logits.mean().item() == pytest.approx(0, abs=0.01)
    assert logits.std().item() == pytest.approx(1, abs=0.01)
    below = (logits < 1).double().mean().item()
    assert below == pytest.approx(0.8413, abs=0.005)
    shifted = torch.logit(flow.sample_t(200_000, torch.Generator().manual_seed(0), 0.5, 2.0))
    torch.testing.assert_close(shifted.double(), 0.5 + 2 * logits, atol=2e-2, rtol=0)
    assert torch.equal(t, flow.sample_t(200_000, torch.Generator().manual_seed(0)))


def test_dropped_text_is_removed_and_the_rest_unchanged() -> None:
    states = torch.randn(4000, 2, TOKENS, 3)
    mask = torch.rand(4000, TOKENS) < 0.8
    mask[:, 0] = True
    rows = flow.draw_dropped(4000, torch.Generator().manual_seed(0))
    dropped_states, dropped_mask = flow.remove_text(rows, states, mask)
    assert rows.double().mean().item() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(rows, ~dropped_mask.any(1))
    assert not dropped_states[rows].any()
    assert torch.equal(dropped_states[~rows], states[~rows])
    assert torch.equal(dropped_mask[~rows], mask[~rows])
    assert not flow.draw_dropped(4000, torch.Generator().manual_seed(0), 0.0).any()

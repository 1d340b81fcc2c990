"""Best of n: the denoising error against a closed form and against training's own loss."""

from typing import Any

import torch
from tiny_unison import random_backbone, tiny_variant
from torch import Tensor, nn

from unison_audio.model import flow
from unison_audio.model.rerank import DRAWS, EVALUATIONS, TIMES, denoising_error
from unison_audio.model.sampling import ModelInputs

VARIANT = tiny_variant()
BACKBONE = random_backbone(VARIANT)
C, FRAMES, TOKENS = VARIANT.latent_channels, 9, 4


class Leading(nn.Module):
    """A flow that leads exactly to zero."""

    config, dtype = VARIANT.backbone, torch.float32

    def project_text(self, hidden_states: Any, penultimate: Any = None) -> None:
        return None

    def embed(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)

    def modulations(self, t: Tensor) -> list[tuple[Tensor]]:
        return [(t[:, None, None],)]

    def decode_tokens(self, audio: Tensor, text: Any, modulations: Any, layout: Any) -> Tensor:
        return audio[..., :C] / modulations[0][0]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error_of(model: Any, given: dict[str, Tensor], **more: Any) -> Tensor:
    read = ("z_s", "m", "hidden_states", "text_mask")
    inputs = ModelInputs(**{name: given[name] for name in read}, frames=more.pop("frames", None))
    return denoising_error(model, inputs, given["z"], loss_mask=given["loss_mask"], **more)


def batch(rows: int) -> dict[str, Any]:
    config = VARIANT.backbone
    return {
        "z": draw(rows, C, FRAMES),
        "z_s": draw(rows, C, FRAMES, seed=1),
        "m": torch.ones(rows, 1, FRAMES),
        "hidden_states": draw(rows, config.blocks, TOKENS, config.text_dim, seed=2),
        "text_mask": torch.ones(rows, TOKENS, dtype=torch.bool),
        "loss_mask": torch.ones(rows, 1, FRAMES),
    }


def test_it_is_the_distance_to_where_the_flow_leads() -> None:
    inputs = batch(3)
    keep = torch.ones(3, 1, FRAMES)
    keep[1, :, 4:] = 0
    found = error_of(Leading(), inputs | {"loss_mask": keep})
    squares = inputs["z"].square().mean(dim=1, keepdim=True)
    distance = (squares * keep).sum(dim=(1, 2)) / keep.sum(dim=(1, 2))
    factor = torch.tensor(TIMES).square().reciprocal().mean()
    torch.testing.assert_close(found, distance * factor)


def test_it_is_the_loss_that_training_minimises() -> None:
    inputs = batch(2)
    z, mask = inputs["z"], inputs["text_mask"]
    mask[1, 2:] = False
    keep = torch.zeros(2, 1, FRAMES)
    keep[:, :, 3:] = 1
    found = error_of(BACKBONE, inputs | {"loss_mask": keep})
    losses = []
    for seed in range(DRAWS):
        eps = draw(C, FRAMES, seed=seed).expand_as(z)
        for t in TIMES:
            times = torch.full((2,), t)
            x = torch.cat((flow.add_noise(z, eps, times), inputs["z_s"], inputs["m"]), dim=1)
            with torch.no_grad():
                v = BACKBONE(x, times, inputs["hidden_states"], mask)
            parts = [[x[r : r + 1] for x in (v, z, eps, keep)] for r in range(2)]
            rows = [flow.flow_loss(*part) for part in parts]
            losses.append(torch.stack(rows))
    assert len(losses) == EVALUATIONS
    torch.testing.assert_close(found, torch.stack(losses).mean(dim=0), rtol=1e-4, atol=1e-5)


def test_a_row_does_not_depend_on_longer_neighbours() -> None:
    inputs = batch(2)
    for name in ("z", "z_s", "m", "loss_mask"):
        inputs[name][0, :, 5:] = 0
    done: list[int] = []
    both = error_of(BACKBONE, inputs, frames=[5, FRAMES], on_evaluation=done.append)
    assert done == list(range(1, EVALUATIONS + 1))
    alone = {name: value[:1] for name, value in inputs.items()}
    for name in ("z", "z_s", "m", "loss_mask"):
        alone[name] = alone[name][:, :, :5]
    torch.testing.assert_close(error_of(BACKBONE, alone), both[:1], rtol=1e-4, atol=1e-5)

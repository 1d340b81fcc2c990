"""The estimate of a run against sums done by hand."""

import pytest
import torch

from unison_audio.cli import main as cli
from unison_audio.errors import InputError
from unison_audio.training.configs import EstimateConfig
from unison_audio.training.estimate import count, estimate_training, measure_tflops, meta_step
from unison_audio.variants import VARIANTS

D24 = VARIANTS["d24-16k"]


def test_work_of_a_forward_pass_is_that_of_its_products() -> None:
    frames, tokens, d, blocks = 312, 32, 1024, 24
    backbone, inputs = meta_step(D24, 1, frames, tokens, torch.float32)
    embed = frames * (41 * d * 7 + 3 * d * 2816 * 7)
    time = 256 * d + d * d + blocks * 8 * d * d + 2 * d * d
    audio = blocks * frames * 12 * d * d
    text = blocks * tokens * (3584 * d + 2 * d * d)
    attention = blocks * 2 * frames * (frames + tokens) * d
    head = frames * d * 20
    by_hand = 2 * (embed + time + audio + text + attention + head)
    assert count(backbone, inputs)[0] == pytest.approx(by_hand, rel=1e-3)


def test_memory_follows_the_parameters_and_the_strategy() -> None:
    common = {"gpus": 8, "batch": 4, "throughput": 100.0}
    ddp = estimate_training(D24, EstimateConfig(**common))
    assert ddp.parameters == 731_705_364
    assert ddp.memory["weights"] == 4 * ddp.parameters
    assert ddp.memory["optimizer"] == 8 * ddp.parameters
    fsdp = estimate_training(D24, EstimateConfig(**common, strategy="fsdp"))
    for part in ("weights", "gradients", "optimizer", "average"):
        assert fsdp.memory[part] == ddp.memory[part] // 8
    text = ddp.memory["text encoder"]  # an eighth of it, and two of 28 layers whole
    assert fsdp.memory["text encoder"] == pytest.approx(text / 8 + text * 2 / 28)
    again = estimate_training(D24, EstimateConfig(**common, gradient_checkpointing=True))
    assert again.memory["activations"] < 0.1 * ddp.memory["activations"]
    assert again.flop_by_part["backbone"] == pytest.approx(4 / 3 * ddp.flop_by_part["backbone"])
    twice = estimate_training(D24, EstimateConfig(**{**common, "batch": 8}))
    assert twice.memory["activations"] == 2 * ddp.memory["activations"]


def test_days_follow_from_work_and_throughput() -> None:
    found = estimate_training(D24, EstimateConfig(throughput=100.0, steps=1000))
    assert found.clips_per_step == 448
    assert found.seconds_per_step == pytest.approx(found.step_flop / 8e14)
    assert found.days == pytest.approx(1000 * found.seconds_per_step / 86_400)


def test_activations_are_what_a_real_pass_keeps() -> None:
    """Counted without numbers, and measured as what a real pass holds on to."""
    backbone, inputs = meta_step(VARIANTS["nano"], 2, 40, 8, torch.float32)
    counted = count(backbone, inputs)[1]
    real = type(backbone)(VARIANTS["nano"].backbone)
    given = {
        name: None if x is None else torch.ones(x.shape, dtype=x.dtype)
        for name, x in inputs.items()
    }
    weights = {p.data_ptr() for p in real.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        real(**given)
    assert sum(kept.values()) == pytest.approx(counted, rel=0.15)


def test_every_variant_can_be_estimated_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for name in VARIANTS:
        options = ["--variant", name, "--gpus", "2", "--batch", "4", "--seconds", "5"]
        assert cli.main(["plan", *options]) == 0
        printed = capsys.readouterr().out
        assert "activations" in printed
        assert "days for 300,000 steps" in printed


def test_this_machine_can_be_measured() -> None:
    found = measure_tflops(VARIANTS["nano"], torch.device("cpu"), seconds=2.0, rounds=1)
    assert 1e-4 < found < 100


def test_invalid_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="gpus is 0"):
        estimate_training(D24, EstimateConfig(gpus=0))
    with pytest.raises(InputError, match="throughput is 0"):
        estimate_training(D24, EstimateConfig(throughput=0.0))
    assert cli.main(["plan", "--variant", "d99"]) == 2

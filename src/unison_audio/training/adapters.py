"""LoRA adapters of a backbone: added for fine-tuning, merged into the weights afterwards."""

from typing import Any

from torch import nn

from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone

TARGETS = (
    "query_key_value",
    "query",
    "key_value",
    "output.attention",
    "mlp_in",
    "mlp_out",
    "out",
)
"""Name endings of the linear layers inside blocks that get an adapter: attention and MLP."""


def add_adapters(backbone: UnisonBackbone, rank: int = 16, alpha: int | None = None) -> None:
    """Adds adapters to the attention and MLP layers, in place, and freezes all other weights.

    Args:
        backbone: The backbone to fine-tune.
        rank: Rank of the adapters.
        alpha: The adapters are scaled by `alpha / rank`; None means twice the rank.

    Raises:
        InputError: If the rank is below 1, or peft is not installed.
    """
    if rank < 1:
        raise InputError(f"rank is {rank}; it must be at least 1.")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise InputError("Adapters need peft; install it with: pip install peft") from error
    # A fusion leaves some layers unused; they have no gradient, so an adapter would learn nothing.
    used = {name for name, p in backbone.named_parameters() if p.requires_grad}
    names = [
        name
        for name, module in backbone.blocks.named_modules()
        if isinstance(module, nn.Linear)
        and any(name.endswith(f".{target}") for target in TARGETS)
        and f"blocks.{name}.weight" in used
    ]
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        target_modules=[f"blocks.{name}" for name in names],
        bias="none",
    )
    # First everything is frozen; the adapters that are then added are the only parameters to train.
    backbone.requires_grad_(False)
    inject_adapter_in_model(config, backbone)


def merge_adapters(backbone: UnisonBackbone) -> None:
    """Adds the adapters to the weights of their layers and removes them, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [
        (name, module)
        for name, module in backbone.named_modules()
        if isinstance(module, BaseTunerLayer)
    ]
    for name, module in adapted:
        module.merge()
        _replace(backbone, name, module.get_base_layer())


def _replace(root: nn.Module, name: str, module: Any) -> None:
    """Replaces the submodule of a name."""
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, module)


def base_name(name: str) -> str | None:
    """The name of a weight in a backbone without adapters; None for a weight of an adapter."""
    return None if ".lora_" in name else name.replace(".base_layer.", ".")

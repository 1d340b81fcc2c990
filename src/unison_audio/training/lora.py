"""Low-rank adapters on the attention and MLP products of a backbone (peft; Hu et al. 2022)."""

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
"""Ends of the names of the products inside blocks that are adapted."""


def add_adapters(backbone: UnisonBackbone, rank: int = 16, alpha: int | None = None) -> None:
    """Puts adapters beside the products of attention and MLP, in place; all else is frozen.

    Args:
        backbone: What is to be fine-tuned.
        rank: Of the adapters.
        alpha: Their scale is `alpha / rank`; twice the rank if None.

    Raises:
        InputError: If the rank is below 1, or peft is not installed.
    """
    if rank < 1:
        raise InputError(f"rank is {rank}; it must be at least 1")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise InputError("Adapters need peft; install it with: pip install peft") from error
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
    backbone.requires_grad_(False)
    inject_adapter_in_model(config, backbone)


def merge_adapters(backbone: UnisonBackbone) -> None:
    """Adds the adapters into the weights they stand beside and takes them away, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [
        (name, module)
        for name, module in backbone.named_modules()
        if isinstance(module, BaseTunerLayer)
    ]
    for name, module in adapted:
        module.merge()
        _put(backbone, name, module.get_base_layer())


def _put(root: nn.Module, name: str, module: Any) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, module)

"""A causal model's keys, values and states of a system prompt: computed once, kept on the disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unison_audio.text.cache import TensorCache, states_of, tensors_of
from unison_audio.text.states import TextStates


@dataclass(frozen=True, kw_only=True)
class KeptPrompt:
    """What instructions need of the prompt in front of them.

    Attention is causal, so nothing of the prompt depends on an instruction.
    """

    keys: Sequence[Tensor]
    """Of each layer, with their rotary positions, (1, heads, P, head_dim)."""
    values: Sequence[Tensor]
    """Of each layer, the same shape."""
    end: TextStates
    """States of the prompt's last tokens, as many as a window reads."""


class Recorder:
    """Takes a layer's keys and values; to the layer it is a cache of transformers."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Called by the attention of each layer in turn."""
        self.keys.append(keys)
        self.values.append(values)
        return keys, values


class Behind:
    """Puts kept keys and values in front of a layer's own; to the layer it is a cache, too.

    Args:
        keys: The prompt's in this layer.
        values: The prompt's in this layer.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Called by the attention of the layer."""
        return torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)


def write_prompt(cache: TensorCache, key: str, prompt: KeptPrompt) -> None:
    """Stores a prompt in the cache; a folder that cannot be written gives a warning."""
    tensors = tensors_of(prompt.end)
    tensors |= {"keys": torch.stack(list(prompt.keys)), "values": torch.stack(list(prompt.values))}
    cache.write(key, {name: tensor.cpu().contiguous() for name, tensor in tensors.items()})


def read_prompt(
    cache: TensorCache, key: str, like: dict[str, Tensor], device: torch.device
) -> KeptPrompt | None:
    """Reads a prompt from the cache; None if there is none.

    Args:
        cache: The cache.
        key: Key of the prompt.
        like: Expected names, types and shapes. A file with others is removed with a warning.
        device: Device of the result.
    """

    def fits(found: dict[str, Tensor]) -> bool:
        return found.keys() == like.keys() and all(
            (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
            for name, tensor in like.items()
        )

    tensors = cache.read(key, fits)
    if tensors is None:
        return None
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    return KeptPrompt(
        keys=tensors["keys"].unbind(), values=tensors["values"].unbind(), end=states_of(tensors)
    )


def copy_end(states: TextStates, row: int, end: TextStates, count: int) -> None:
    """Copies the prompt's last states to the beginning of a row."""
    states.hidden_states[row, :, :count] = end.hidden_states[0, :, -count:]
    if states.penultimate is not None and end.penultimate is not None:
        states.penultimate[row, :count] = end.penultimate[0, -count:]

"""Packs texts one after the other behind one prefix, so that a causal model needs no padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Texts in one row of N tokens. The prefix, P tokens, is not in it, only in front of it."""

    tokens: list[int]
    """N tokens."""
    positions: Tensor
    """(N,) Position of each token in its own text, counted from the beginning of the prefix."""
    mask: Tensor | None
    """(N, P + N) booleans, True where a token (row) attends to another (column).

    A token attends to the prefix and to the tokens before it in its own text. None for one text
    without a prefix, which is causal."""
    spans: list[tuple[int, slice]]
    """Number and place of each text."""


def pack(texts: Sequence[Sequence[int]], prefix: int, most: int) -> list[Pack]:
    """Distributes texts over packs in their order.

    Args:
        texts: B texts of tokens.
        prefix: Number of tokens before every text.
        most: Maximum tokens of texts in a pack; a longer text gets a pack of its own.

    Returns:
        Packs that together hold each text once.
    """
    groups: list[list[int]] = []
    room = 0
    for number, text in enumerate(texts):
        if not groups or len(text) > room:
            groups.append([])
            room = most
        groups[-1].append(number)
        room -= len(text)
    return [_pack(texts, prefix, group) for group in groups]


def _pack(texts: Sequence[Sequence[int]], prefix: int, group: Sequence[int]) -> Pack:
    tokens: list[int] = []
    positions: list[int] = []
    owners: list[int] = []
    spans = []
    for number in group:
        text = texts[number]
        spans.append((number, slice(len(tokens), len(tokens) + len(text))))
        tokens += text
        positions += range(prefix, prefix + len(text))
        owners += [number] * len(text)
    mask = None
    if prefix or len(group) > 1:
        owner = torch.tensor(owners)
        own = (owner[:, None] == owner[None, :]).tril()  # (N, N)
        mask = torch.cat([own.new_ones(len(tokens), prefix), own], dim=1)  # (N, P + N)
    return Pack(tokens=tokens, positions=torch.tensor(positions), mask=mask, spans=spans)

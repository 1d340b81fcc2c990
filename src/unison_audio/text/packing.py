"""Packs texts one after the other behind one prefix, so that a causal model needs no padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Texts in one row of N tokens: the prefix, then each text."""

    tokens: list[int]
    """N tokens."""
    positions: Tensor
    """(N,) Position of each token in its own text, counted from the beginning of the prefix."""
    mask: Tensor | None
    """(N, N) booleans, True where a token (row) attends to another (column); None for causal.

    A token attends to the prefix and to the tokens before it in its own text."""
    spans: list[tuple[int, slice]]
    """Number and place of each text."""
    prefix: int
    """Tokens of the prefix."""

    def last(self, span: slice, count: int) -> Tensor:
        """Indices of the last tokens of the prefix and one text, read as one sequence.

        The prefix attends to no text, so its states are the same in front of every text: those
        computed once in this pack serve all of its texts.

        Args:
            span: Where the text lies in the pack.
            count: How many tokens, at most those of prefix and text together.

        Returns:
            (count,).
        """
        whole = [*range(self.prefix), *range(span.start, span.stop)]
        return torch.tensor(whole[len(whole) - count :], dtype=torch.long)


def pack(texts: Sequence[Sequence[int]], prefix: Sequence[int], most: int) -> list[Pack]:
    """Distributes texts over packs in their order.

    Args:
        texts: B texts of tokens.
        prefix: Tokens before every text, once in a pack.
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


def _pack(texts: Sequence[Sequence[int]], prefix: Sequence[int], group: Sequence[int]) -> Pack:
    tokens, spans = list(prefix), []
    positions, owners = list(range(len(prefix))), [-1] * len(prefix)
    for number in group:
        text = texts[number]
        spans.append((number, slice(len(tokens), len(tokens) + len(text))))
        tokens += text
        positions += range(len(prefix), len(prefix) + len(text))
        owners += [number] * len(text)
    mask = None
    if len(group) > 1:
        owner = torch.tensor(owners)
        own = owner[:, None] == owner[None, :]
        mask = (own | (owner == -1)[None, :]).tril()  # (N, N)
    return Pack(
        tokens=tokens,
        positions=torch.tensor(positions),
        mask=mask,
        spans=spans,
        prefix=len(prefix),
    )

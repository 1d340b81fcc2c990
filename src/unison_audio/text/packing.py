"""Texts put one after the other behind one prefix, so that they pass a causal model unpadded."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Some texts in one row of N tokens: those of the prefix, then those of each text."""

    tokens: list[int]
    """N tokens."""
    positions: Tensor
    """(N,) Place of each token in its own text, counted from the prefix's beginning."""
    mask: Tensor | None
    """(N, N) booleans, True where a token (row) attends to another (column); None if to all before.

    A token attends to the prefix and to what comes before it in its own text."""
    spans: list[tuple[int, slice]]
    """For each text its number and where it lies."""
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
        most: The most tokens of texts in a pack; a longer text has a pack of its own.

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

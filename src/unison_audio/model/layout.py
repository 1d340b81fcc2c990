"""How the tokens of a batch lie in memory, and how each row attends to its own.

In training rows are padded to one length and masked. In a sampling run they lie one behind the
other without any padding, so that products are done for real tokens only; rows of equal length
share one attention, which then needs no mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from unison_audio.model.layers import attention, rotate

AudioTokens: TypeAlias = tuple[Tensor, Tensor, Tensor]

TextTokens: TypeAlias = tuple[Tensor | None, Tensor, Tensor]


class TokenLayout(Protocol):
    """What a block needs to know about its rows."""

    def rotate(self, x: Tensor) -> Tensor:
        """Gives queries or keys (B, T', heads, head_dim) of audio their positions."""
        ...

    def attend(self, audio: AudioTokens, text: TextTokens) -> tuple[Tensor, Tensor | None]:
        """Joint attention of each row over its own tokens.

        Args:
            audio: q, k and v of the audio, (B, T', heads, head_dim) each.
            text: q of the text that is carried on, or None, and k and v of all text. Where text
                is both carried on and fresh, it lies as [persistent | fresh].

        Returns:
            For the audio (B, T', d), and for the text's queries (B, N, d) or None.
        """
        ...


class PaddedLayout:
    """Rows of equal length, their text padded on the right and masked.

    Args:
        rotation: Rotary table of T' positions.
        text_mask: (B, N) booleans, True where a token is real.
        frames: T'.
    """

    def __init__(self, rotation: Tensor, text_mask: Tensor, frames: int) -> None:
        self.rotation, self.text_mask = rotation, text_mask
        self.audio_mask = text_mask.new_ones(len(text_mask), frames)

    def rotate(self, x: Tensor) -> Tensor:
        """As in `TokenLayout`."""
        return rotate(x, self.rotation)

    def attend(self, audio: AudioTokens, text: TextTokens) -> tuple[Tensor, Tensor | None]:
        """As in `TokenLayout`."""
        (q, k, v), (text_q, text_k, text_v) = audio, text
        parts = text_k.shape[1] // max(1, self.text_mask.shape[1])
        key_mask = torch.cat((self.audio_mask, *[self.text_mask] * parts), dim=1)[:, None, None]
        k, v = torch.cat((k, text_k), dim=1), torch.cat((v, text_v), dim=1)
        if text_q is None:
            return attention(q, k, v, key_mask), None
        attended = attention(torch.cat((q, text_q), dim=1), k, v, key_mask)
        return attended[:, : q.shape[1]], attended[:, q.shape[1] :]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Neighbouring rows of equal lengths."""

    rows: int
    """How many."""
    audio: slice
    """Where their audio tokens lie."""
    text: slice
    """Where their text tokens lie, within the persistent or the fresh ones."""


class PackedLayout:
    """Rows of any lengths, one behind the other in tensors whose batch is 1.

    Args:
        rotation: Rotary table of at least as many positions as the longest row has.
        frames: Audio tokens of each row.
        tokens: Text tokens of each row.
    """

    def __init__(self, rotation: Tensor, frames: Sequence[int], tokens: Sequence[int]) -> None:
        self.rotation = torch.cat([rotation[:count] for count in frames])
        self.text_length = sum(tokens)
        self.groups: list[Group] = []
        audio_end = text_end = 0
        for (audio, text), same in groupby(zip(frames, tokens, strict=True)):
            rows = len(list(same))
            audio_start, audio_end = audio_end, audio_end + rows * audio
            text_start, text_end = text_end, text_end + rows * text
            self.groups.append(
                Group(
                    rows=rows,
                    audio=slice(audio_start, audio_end),
                    text=slice(text_start, text_end),
                )
            )

    def rotate(self, x: Tensor) -> Tensor:
        """As in `TokenLayout`."""
        return rotate(x, self.rotation)

    def attend(self, audio: AudioTokens, text: TextTokens) -> tuple[Tensor, Tensor | None]:
        """As in `TokenLayout`, with B = 1 and the tokens of all rows one behind the other."""
        (q, k, v), (text_q, text_k, text_v) = audio, text
        parts = text_k.shape[1] // max(1, self.text_length)
        heard, read = [], []
        for group in self.groups:
            texts = [
                slice(offset + group.text.start, offset + group.text.stop)
                for offset in range(0, parts * self.text_length, max(1, self.text_length))
            ]
            keys, values = (
                torch.cat([_rows(x, group.audio, group), *(_rows(y, t, group) for t in texts)], 1)
                for x, y in ((k, text_k), (v, text_v))
            )
            queries = _rows(q, group.audio, group)
            if text_q is not None:
                queries = torch.cat((queries, _rows(text_q, group.text, group)), dim=1)
            attended = attention(queries, keys, values)  # (rows, T' [+ N], d)
            frames = (group.audio.stop - group.audio.start) // group.rows
            heard.append(attended[:, :frames].flatten(0, 1))
            read.append(attended[:, frames:].flatten(0, 1))
        return torch.cat(heard)[None], None if text_q is None else torch.cat(read)[None]


def _rows(x: Tensor, where: slice, group: Group) -> Tensor:
    """(1, all tokens, heads, head_dim) -> (rows, tokens of one row, heads, head_dim)."""
    length = (where.stop - where.start) // group.rows
    return x[0, where].view(group.rows, length, *x.shape[2:])

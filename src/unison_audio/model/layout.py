"""Memory layouts of a batch's tokens, and the attention of each row over its own tokens.

Training pads rows to one length and masks the padding (`PaddedLayout`). Sampling concatenates the
rows without padding (`PackedLayout`), so linear layers process real tokens only. Rows of equal
length share one attention call, which then needs no mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from unison_audio.model.layers import attention, rotate

AudioTokens: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values of the audio tokens, (B, T', heads, head_dim) each."""

TextTokens: TypeAlias = tuple[Tensor | None, Tensor, Tensor]
"""Queries of the persistent text or None, then keys and values of all text tokens."""


class TokenLayout(Protocol):
    """Positions and attention of a batch, as a block needs them."""

    def rotate(self, x: Tensor) -> Tensor:
        """Applies rotary positions to audio queries or keys, (B, T', heads, head_dim)."""
        ...

    def attend(self, audio: AudioTokens, text: TextTokens) -> tuple[Tensor, Tensor | None]:
        """Computes the joint attention of each row over its own tokens.

        Args:
            audio: q, k and v of the audio, (B, T', heads, head_dim) each.
            text: q of the persistent text or None, and k and v of all text. With both kinds of
                text (fusion OL) the tokens are ordered [persistent | fresh].

        Returns:
            Attention output for the audio, (B, T', d), and for the text queries, (B, N, d) or None.
        """
        ...


class PaddedLayout:
    """Rows of equal length, with text padded on the right and masked.

    Args:
        rotation: Rotary table of T' positions.
        text_mask: (B, N) booleans, True where a token is real.
        frames: T'.
    """

    def __init__(self, rotation: Tensor, text_mask: Tensor, frames: int) -> None:
        self.rotation, self.text_mask = rotation, text_mask
        self.audio_mask = text_mask.new_ones(len(text_mask), frames)

    def rotate(self, x: Tensor) -> Tensor:
        """See `TokenLayout`."""
        return rotate(x, self.rotation)

    def attend(self, audio: AudioTokens, text: TextTokens) -> tuple[Tensor, Tensor | None]:
        """See `TokenLayout`."""
        (q, k, v), (text_q, text_k, text_v) = audio, text
        # Fusion OL gives the same N tokens twice, persistent and fresh, hence the mask twice.
        copies = text_k.shape[1] // max(1, self.text_mask.shape[1])
        key_mask = torch.cat((self.audio_mask, *[self.text_mask] * copies), dim=1)
        key_mask = key_mask[:, None, None]  # (B, 1, 1, T' + copies N)
        k, v = torch.cat((k, text_k), dim=1), torch.cat((v, text_v), dim=1)
        if text_q is None:
            return attention(q, k, v, key_mask), None
        # A row without text has masked text queries too. They still attend to the audio, so no
        # softmax runs over an empty set and no NaN arises.
        attended = attention(torch.cat((q, text_q), dim=1), k, v, key_mask)  # (B, T' + N, d)
        return attended[:, : q.shape[1]], attended[:, q.shape[1] :]


@dataclass(frozen=True, kw_only=True)
class EqualRows:
    """Adjacent rows of equal audio and text lengths."""

    rows: int
    """Number of rows."""
    audio: slice
    """Range of their audio tokens."""
    text: slice
    """Range of their text tokens, within the persistent or the fresh ones."""


class PackedLayout:
    """Rows of any lengths, concatenated in tensors whose batch size is 1.

    Args:
        rotation: Rotary table of at least as many positions as the longest row has.
        frames: Audio tokens of each row.
        tokens: Text tokens of each row.
    """

    def __init__(self, rotation: Tensor, frames: Sequence[int], tokens: Sequence[int]) -> None:
        # Positions restart at 0 in each row: a row must not depend on its neighbors in the batch.
        self.rotation = torch.cat([rotation[:count] for count in frames])  # (sum of frames, 1, .)
        self.text_length = sum(tokens)
        self.groups: list[EqualRows] = []
        audio_end = text_end = 0
        for (audio, text), same in groupby(zip(frames, tokens, strict=True)):
            rows = len(list(same))
            audio_start, audio_end = audio_end, audio_end + rows * audio
            text_start, text_end = text_end, text_end + rows * text
            self.groups.append(
                EqualRows(
                    rows=rows,
                    audio=slice(audio_start, audio_end),
                    text=slice(text_start, text_end),
                )
            )

    def rotate(self, x: Tensor) -> Tensor:
        """See `TokenLayout`."""
        return rotate(x, self.rotation)

    def attend(self, audio: AudioTokens, text: TextTokens) -> tuple[Tensor, Tensor | None]:
        """See `TokenLayout`; here B is 1 and the rows are concatenated."""
        (q, k, v), (text_q, text_k, text_v) = audio, text
        copies = text_k.shape[1] // max(1, self.text_length)  # 2 in fusion OL
        audio_outputs, text_outputs = [], []
        for group in self.groups:
            # [persistent of all rows | fresh of all rows]: a row's text lies in two places.
            texts = [
                slice(offset + group.text.start, offset + group.text.stop)
                for offset in range(0, copies * self.text_length, max(1, self.text_length))
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
            audio_outputs.append(attended[:, :frames].flatten(0, 1))
            text_outputs.append(attended[:, frames:].flatten(0, 1))
        attended_text = None if text_q is None else torch.cat(text_outputs)[None]
        return torch.cat(audio_outputs)[None], attended_text


def _rows(x: Tensor, where: slice, group: EqualRows) -> Tensor:
    """Cuts out a group: (1, all tokens, heads, head_dim) -> (rows, length, heads, head_dim)."""
    length = (where.stop - where.start) // group.rows
    return x[0, where].view(group.rows, length, *x.shape[2:])

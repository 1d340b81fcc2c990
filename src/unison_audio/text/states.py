"""Text states: hidden states of a frozen language model, and what is asked of a text encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

MAX_TOKENS = 256


@dataclass(frozen=True, kw_only=True)
class TextStates:
    """Hidden states of a batch of instructions, padded on the right."""

    hidden_states: Tensor
    """(B, K, N, text_dim), K the number of picked layers, 0 where a fusion reads none."""
    mask: Tensor
    """(B, N) bool, True where a token is real."""
    penultimate: Tensor | None = None
    """(B, N, text_dim), transformers' ``hidden_states[-2]``; None if no fusion reads it."""

    @property
    def nbytes(self) -> int:
        """Bytes of the states."""
        return self.hidden_states.nbytes + (
            0 if self.penultimate is None else self.penultimate.nbytes
        )

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "TextStates":
        """Copies the states to another device or type; the mask stays boolean."""
        penultimate = self.penultimate
        return TextStates(
            hidden_states=self.hidden_states.to(device, dtype),
            mask=self.mask.to(device),
            penultimate=None if penultimate is None else penultimate.to(device, dtype),
        )

    def select(self, rows: Sequence[int]) -> "TextStates":
        """Text states of some rows, which may repeat."""
        chosen = list(rows)
        return TextStates(
            hidden_states=self.hidden_states[chosen],
            mask=self.mask[chosen],
            penultimate=None if self.penultimate is None else self.penultimate[chosen],
        )


@dataclass(frozen=True, kw_only=True)
class TextSetup:
    """States that a text encoder returns, and how it runs."""

    picks: tuple[int, ...]
    """1-based layers, one for each block; layer l is transformers' ``hidden_states[l]``."""
    penultimate: bool = False
    """Whether ``hidden_states[-2]`` is returned too."""
    system_prompt: str = ""
    """System prompt in front of every instruction, for chat models; empty for none."""
    window: int = 0
    """States returned: of the last so many tokens of the whole prompt, system turn included.
    0 returns those of the user's turn."""
    edit_tag_spelling: str = ""
    """How the tags of edits are spelled before the language model reads them, whoever asks: a key
    of `tasks.instructions.SPELLINGS`. Empty leaves instructions as they are."""
    letters: bool = False
    """Whether the words to be spoken are read letter by letter (`text.spelling.letters`)."""
    files: Path | None = None
    """Folder of the language model; None for the package or the hub."""
    device: torch.device | str = "cpu"
    """Device to run on."""
    dtype: torch.dtype | None = None
    """Computing type; None lets the device decide."""
    streamed: bool | None = None
    """Whether layers are read from the disk one by one; None decides by the available memory."""
    cache: Path | None = None
    """Folder that caches the states of large encoders; None for no cache."""
    keep_prompt: bool = True
    """Whether the system prompt's keys, values and states are kept, in memory and in the cache.
    Otherwise every call computes them again, to the same bits."""


class TextEncoder(Protocol):
    """Turns instructions into hidden states."""

    def encode(self, instructions: Sequence[str]) -> TextStates:
        """Encodes B instructions."""
        ...


def stack(states: Sequence[TextStates]) -> TextStates:
    """Joins batches into one, padded on the right with zeros to the longest text."""
    rows, longest = [], max(part.mask.shape[1] for part in states)
    for part in states:
        short = longest - part.mask.shape[1]
        padded = TextStates(
            hidden_states=nn.functional.pad(part.hidden_states, (0, 0, 0, short)),
            mask=nn.functional.pad(part.mask, (0, short)),
            penultimate=None
            if part.penultimate is None
            else nn.functional.pad(part.penultimate, (0, 0, 0, short)),
        )
        rows.append(padded)
    penultimates = [row.penultimate for row in rows if row.penultimate is not None]
    return TextStates(
        hidden_states=torch.cat([row.hidden_states for row in rows]),
        mask=torch.cat([row.mask for row in rows]),
        penultimate=torch.cat(penultimates) if penultimates else None,
    )


def split(states: TextStates) -> list[TextStates]:
    """Splits a batch into instructions, each a batch of one without padding."""
    parts = []
    for row, tokens in enumerate(states.mask.sum(dim=1).tolist()):
        penultimate = states.penultimate
        parts.append(
            TextStates(
                hidden_states=states.hidden_states[row : row + 1, :, :tokens],
                mask=states.mask[row : row + 1, :tokens],
                penultimate=None if penultimate is None else penultimate[row : row + 1, :tokens],
            )
        )
    return parts


def last_tokens(states: TextStates, count: int) -> TextStates:
    """States of the last tokens of texts without padding."""
    penultimate = states.penultimate
    return TextStates(
        hidden_states=states.hidden_states[:, :, -count:],
        mask=states.mask[:, -count:],
        penultimate=None if penultimate is None else penultimate[:, -count:],
    )

"""The pattern that carries a number of 16 bits: small changes of level in cells of time and pitch.

A cell lasts 80 ms and spans a sixth of an octave. A tile of 16 by 27 cells, from 300 Hz to 6.8 kHz,
repeats every 1.28 s. A fixed key draws the sign of each cell. A part of the cells is known and
finds the tile; the others carry an extended BCH code (64, 16).
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

BANDS = 54
"""Bands of a twelfth of an octave."""
FRAMES, ROWS = 5, 2
"""Frames and bands of a cell."""
SLOTS, LINES = 16, BANDS // ROWS
"""Cells of a tile in time and in pitch."""
PERIOD = SLOTS * FRAMES
"""Frames of a tile."""

_CODE = 64
_GENERATOR = 0o6331141367235453
"""Generator polynomial of the BCH code (63, 16), which corrects 11 errors."""
_COPIES = 4
"""Cells of each bit of the code."""
_KEY = 20261128


@cache
def codebook() -> Tensor:
    """The words of the extended BCH code (64, 16) as signs, (65536, 64)."""
    rows = []
    for shift in range(16):
        bits = [_GENERATOR << shift >> place & 1 for place in range(_CODE - 1)]
        rows.append([*bits, sum(bits) % 2])
    messages = torch.arange(1 << 16)[:, None] >> torch.arange(16) & 1
    # In float: products of whole numbers have no fast kernel.
    return 1 - 2 * ((messages.float() @ torch.tensor(rows).float()) % 2)


@cache
def _key() -> tuple[Tensor, Tensor]:
    """Sign of each cell, (432,), and its place in the code, -1 where the cell is known."""
    draw = torch.Generator().manual_seed(_KEY)
    signs = 1.0 - 2.0 * torch.randint(0, 2, (SLOTS * LINES,), generator=draw)
    places = torch.full((SLOTS * LINES,), -1)
    order = torch.randperm(SLOTS * LINES, generator=draw)
    places[order[: _COPIES * _CODE]] = torch.arange(_COPIES * _CODE) % _CODE
    return signs, places


def tile(payload: int) -> Tensor:
    """Signs of the tile of a number: (16, 27)."""
    signs, places = _key()
    word = torch.cat([codebook()[payload], torch.ones(1)])
    return (signs * word[places]).reshape(SLOTS, LINES)


def correlators() -> Tensor:
    """Maps cells, (..., 432), to the known cells' sum and those of the code's bits: (432, 65)."""
    signs, places = _key()
    return F.one_hot(places + 1, _CODE + 1).float() * signs[:, None]


def spread(cells: Tensor, frames: int) -> Tensor:
    """Cells (B, slots, lines) as a smooth map (B, frames, bands)."""
    wide = cells.repeat_interleave(FRAMES, 1).repeat_interleave(ROWS, 2)[:, :frames]
    kernel = torch.tensor([0.25, 0.5, 0.25])
    kernel = (kernel[:, None] * kernel)[None, None]
    return F.conv2d(F.pad(wide[:, None], (1, 1, 1, 1), mode="replicate"), kernel)[:, 0]

"""A backbone made ready for one sampling run, so that a step does only what a step must.

Done once a run: text projectors, every block's modulations at all times of the schedule, the order
of the rows. Not done at all: padding, text queries that nothing reads, and text in the half of
guidance that has none. The latent embedder runs once for both halves of guidance.
"""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.layers import rotary_table
from unison_audio.model.layout import PackedLayout


class PreparedRun:
    """The velocity field of one batch at the times of one schedule.

    Args:
        backbone: The model, in evaluation mode.
        z_s: Source or reference latents, zeros where there is none, (B, C, T').
        m: Task tag of each frame, (B, 1, T').
        hidden_states: (B, D, N, text_dim); None where the fusion reads none.
        text_mask: (B, N) booleans, True where a token is real; a row without any has no text.
        times: Flow times at which velocities will be asked for, (S,).
        penultimate: (B, N, text_dim); None where the fusion reads none.
        frames: Frames of each row that count, B numbers up to T'; None if all do.

    Raises:
        InputError: If the shapes do not agree.
    """

    def __init__(
        self,
        backbone: UnisonBackbone,
        z_s: Tensor,
        m: Tensor,
        hidden_states: Tensor | None,
        text_mask: Tensor,
        *,
        times: Tensor,
        penultimate: Tensor | None = None,
        frames: Sequence[int] | None = None,
    ) -> None:
        batch, _, longest = z_s.shape
        counts = [longest] * batch if frames is None else list(frames)
        if m.shape != (batch, 1, longest) or len(counts) != batch or max(counts) > longest:
            raise InputError(
                f"m {tuple(m.shape)} and frames {counts} do not fit z_s {tuple(z_s.shape)}; give "
                f"m of {(batch, 1, longest)} and {batch} numbers of frames up to {longest}."
            )
        text_mask = text_mask.bool()
        tokens = text_mask.sum(dim=1).tolist()
        # Rows of equal lengths become neighbours: they share one attention.
        self.order = sorted(range(batch), key=lambda row: (counts[row], tokens[row]))
        self.frames = [counts[row] for row in self.order]
        self.backbone, self.dtype = backbone, backbone.dtype
        self.context = torch.cat((z_s, m.to(z_s.dtype)), dim=1)[self.order].to(self.dtype)

        mask = text_mask[self.order]
        self.text = backbone.project_text(
            _real_tokens(hidden_states, self.order, mask, self.dtype),
            _real_tokens(penultimate, self.order, mask, self.dtype),
        )
        modulations = backbone.modulations(times.to(z_s.device))
        self.modulations = [
            [tuple(table[step : step + 1] for table in part) for part in modulations]
            for step in range(len(times))
        ]
        config = backbone.config
        rotation = rotary_table(longest, config.head_dim, config.rope_dim, z_s.device)
        ordered = [tokens[row] for row in self.order]
        self.one_layout = PackedLayout(rotation, self.frames, ordered)
        self.both_layout = PackedLayout(rotation, self.frames * 2, ordered + [0] * batch)

    def velocities(self, z_t: Tensor, step: int, *, guided: bool) -> tuple[Tensor, Tensor | None]:
        """The velocity with text, and where guidance needs it the one without.

        Args:
            z_t: (B, C, T').
            step: Which of the times.
            guided: Whether the velocity without text is wanted.

        Returns:
            v1 and v0 or None, (B, C, T') float32; 0 on frames that do not count.
        """
        audio = self._embed(z_t)  # (1, all frames, d)
        layout = self.both_layout if guided else self.one_layout
        if guided:
            audio = audio.repeat(1, 2, 1)
        v = self.backbone.decode_tokens(audio, self.text, self.modulations[step], layout)[0]
        halves = v.float().chunk(2) if guided else (v.float(),)
        v1, *rest = (self._unpack(half, z_t.shape) for half in halves)
        return v1, rest[0] if rest else None

    def _embed(self, z_t: Tensor) -> Tensor:
        """Embeds rows of equal length together: convolutions see zeros beyond a row's end."""
        x = torch.cat((z_t[self.order].to(self.dtype), self.context), dim=1)  # (B, 2C+1, T')
        parts, first = [], 0
        for length, same in groupby(self.frames):
            rows = len(list(same))
            embedded = self.backbone.embed(x[first : first + rows, :, :length])
            parts.append(embedded.flatten(0, 1))
            first += rows
        return torch.cat(parts)[None]

    def _unpack(self, v: Tensor, shape: torch.Size) -> Tensor:
        """(all frames, C) -> (B, C, T') in the caller's order."""
        padded = v.new_zeros(shape)
        for row, values in zip(self.order, v.split(self.frames), strict=True):
            padded[row, :, : len(values)] = values.T
        return padded


def _real_tokens(
    states: Tensor | None, order: Sequence[int], mask: Tensor, dtype: torch.dtype
) -> Tensor | None:
    """(B, [D,] N, text_dim) -> the real tokens of all rows in order, (1, [D,] all, text_dim)."""
    if states is None:
        return None
    states = states[list(order)]
    if states.ndim == 3:
        return states[mask][None].to(dtype)
    return states.transpose(1, 2)[mask].transpose(0, 1)[None].to(dtype)

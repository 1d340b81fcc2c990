"""A backbone prepared for one sampling run, with everything computed once that no step changes.

| work | how often |
|---|---|
| text projectors, modulations at all times, order of the rows | once per run |
| latent embedder | once per step, for both halves of guidance |
| blocks and head | once per step, both halves in one batch |
| padding, unused text queries, text in the half without text | never |
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
        z_s: Source or reference latents, zeros elsewhere, (B, C, T').
        m: Task tag of each frame, (B, 1, T').
        hidden_states: (B, D, N, text_dim); None if the fusion does not read it.
        text_mask: (B, N) booleans, True where a token is real; all False in a row without text.
        times: Flow times of the velocities, (S,).
        penultimate: (B, N, text_dim); None if the fusion does not read it.
        frames: Valid frames of each row, B numbers up to T'; None if all are valid.

    Raises:
        InputError: The shapes do not agree.
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
        # Rows of equal lengths become adjacent, so that they share one attention call.
        self.order = sorted(range(batch), key=lambda row: (counts[row], tokens[row]))
        self.frames = [counts[row] for row in self.order]
        # On the device, since a CUDA graph cannot record a copy from the CPU.
        self.rows = torch.tensor(self.order, device=z_s.device)
        self.backbone, self.dtype = backbone, backbone.dtype
        # Everything but z_t is the same at all steps.
        self.context = torch.cat((z_s, m.to(z_s.dtype)), dim=1)[self.order].to(self.dtype)

        # Real tokens only, concatenated: linear layers do no work on padding.
        mask = text_mask[self.order]
        self.text = backbone.project_text(
            _real_tokens(hidden_states, self.order, mask, self.dtype),
            _real_tokens(penultimate, self.order, mask, self.dtype),
        )
        # In a step all rows have one time, so one set of modulations (1, 1, .) serves the batch.
        modulations = backbone.modulations(times.to(z_s.device))
        self.modulations = [
            [tuple(table[step : step + 1] for table in part) for part in modulations]
            for step in range(len(times))
        ]
        config = backbone.config
        rotation = rotary_table(longest, config.head_dim, config.rope_dim, z_s.device)
        ordered = [tokens[row] for row in self.order]
        # Guidance doubles the rows. Those of the second half have 0 text tokens, which equals a
        # fully masked text but costs nothing.
        self.one_layout = PackedLayout(rotation, self.frames, ordered)
        self.both_layout = PackedLayout(rotation, self.frames * 2, ordered + [0] * batch)

    def velocities(self, z_t: Tensor, step: int, *, guided: bool) -> tuple[Tensor, Tensor | None]:
        """Predict the velocity with text and, for guidance, the velocity without.

        Args:
            z_t: (B, C, T').
            step: Index of the time.
            guided: Whether to compute the velocity without text.

        Returns:
            v1, and v0 or None, (B, C, T') float32; 0 on frames that are not valid.
        """
        audio = self._embed(z_t)  # (1, all frames, d)
        layout = self.both_layout if guided else self.one_layout
        if guided:
            # v0 keeps z_s and m and drops the text alone, so both halves have one embedding.
            audio = audio.repeat(1, 2, 1)  # (1, 2 x all frames, d)
        v = self.backbone.decode_tokens(audio, self.text, self.modulations[step], layout)[0]
        halves = v.float().chunk(2) if guided else (v.float(),)
        v1, *rest = (self._unpack(half, z_t.shape) for half in halves)
        return v1, rest[0] if rest else None

    def _embed(self, z_t: Tensor) -> Tensor:
        """Embed rows of equal length together, (1, all frames, d).

        Each row must end where its convolutions see zeros, as in a batch of its own; frames beyond
        its end would leak in.
        """
        x = torch.cat((z_t[self.rows].to(self.dtype), self.context), dim=1)  # (B, 2C+1, T')
        parts, first = [], 0
        for length, same in groupby(self.frames):
            rows = len(list(same))
            embedded = self.backbone.embed(x[first : first + rows, :, :length])
            parts.append(embedded.flatten(0, 1))
            first += rows
        return torch.cat(parts)[None]

    def _unpack(self, v: Tensor, shape: torch.Size) -> Tensor:
        """Map (all frames, C) to (B, C, T') in the caller's order of rows."""
        padded = v.new_zeros(shape)
        for row, values in zip(self.order, v.split(self.frames), strict=True):
            padded[row, :, : len(values)] = values.T
        return padded


def _real_tokens(
    states: Tensor | None, order: Sequence[int], mask: Tensor, dtype: torch.dtype
) -> Tensor | None:
    """Concatenate the real tokens of all rows: (B, [D,] N, text_dim) to (1, [D,] all, text_dim)."""
    if states is None:
        return None
    states = states[list(order)]
    if states.ndim == 3:
        return states[mask][None].to(dtype)
    return states.transpose(1, 2)[mask].transpose(0, 1)[None].to(dtype)

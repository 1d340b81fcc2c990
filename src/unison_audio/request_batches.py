"""Groups requests of any tasks and lengths into batches that are sampled together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unison_audio.errors import InputError
from unison_audio.inputs import ItemInputs, Request
from unison_audio.sampling_params import GroupSettings, ResolvedSampling
from unison_audio.tasks.conditioning import Condition

MAX_BATCH = 16
"""Items that `generate` samples at once."""


@dataclass(frozen=True, kw_only=True)
class RequestBatch:
    """Requests that are sampled together."""

    rows: list[int]
    """Positions of the requests, shortest first."""
    settings: GroupSettings
    """Settings of all of them."""


def is_list(instruction: object) -> bool:
    """Whether several instructions are given."""
    return isinstance(instruction, list)


def item_inputs(instruction: Any, **inputs: Any) -> list[tuple[Any, ItemInputs]]:
    """Each instruction with its inputs, by the names of `ItemInputs`.

    Args:
        instruction: One instruction or a list of them.
        **inputs: One value for all instructions, or a list with one value for each.

    Raises:
        InputError: If a list has another length than that of the instructions.
    """
    single = not is_list(instruction)
    instructions = [instruction] if single else instruction
    items: list[dict[str, Any]] = [{} for _ in instructions]
    for name, value in inputs.items():
        if name in ("seed", "duration") and not single:
            value = _as_list(value)
        if not isinstance(value, list):
            value = [value] * len(items)
        elif single or len(value) != len(items):
            raise InputError(
                f"{name} is a list of {len(value)} for {'one' if single else len(items)} "
                "instruction(s); give one value for all, or as many as there are instructions."
            )
        for item, own in zip(items, value, strict=True):
            item[name] = own
    return [(text, ItemInputs(**item)) for text, item in zip(instructions, items, strict=True)]


def _as_list(value: Any) -> Any:
    """A row of numbers of any kind as a list; anything else as it is."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 1:
        return value.tolist()
    return list(value) if isinstance(value, tuple | range) else value


def plan_batches(requests: Sequence[Request], sampling: ResolvedSampling) -> list[RequestBatch]:
    """Group requests of any tasks and lengths into batches of equal sampling settings.

    Items of similar length are neighbors, which keeps padding short. Candidates count as items.

    Args:
        requests: The requests.
        sampling: Settings of every task group.
    """
    groups: dict[tuple[GroupSettings, bool], list[int]] = {}
    for row, request in enumerate(requests):
        # How the source is handled does not concern sampling, and must not split a batch.
        settings = replace(sampling.for_task(request.task), preserve_source=False)
        # A gap is sampled by a method of its own (`model.gap_sampling`).
        groups.setdefault((settings, request.layout.gap is not None), []).append(row)
    for rows in groups.values():
        rows.sort(key=lambda row: requests[row].layout.frames)
    return [
        RequestBatch(rows=rows[start : start + size], settings=settings)
        for (settings, _), rows in groups.items()
        for size in [max(1, MAX_BATCH // settings.num_candidates)]
        for start in range(0, len(rows), size)
    ]


def pad_conditions(conditions: Sequence[Condition], frames: int) -> Condition:
    """Join conditions of one item each into a batch.

    Args:
        conditions: The conditions, each of at most so many frames.
        frames: Frames that each is padded to.
    """

    def pad(name: str) -> Tensor:
        rows = [getattr(one, name) for one in conditions]
        return torch.cat([nn.functional.pad(x, (0, frames - x.shape[-1])) for x in rows])

    # Either all of a batch have a gap or none has, see `plan_batches`.
    around = [one.known for one in conditions if one.known is not None]
    known = None
    if around:
        known = torch.cat(
            [nn.functional.pad(x, (0, frames - x.shape[-1]), value=torch.nan) for x in around]
        )
    return Condition(z_s=pad("z_s"), m=pad("m"), loss_mask=pad("loss_mask"), known=known)

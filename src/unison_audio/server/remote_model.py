"""The model as a request sees it: `generate` that waits for its share of the scheduler's batches.

Long speech, timelines and edits of recordings need no more of a model than this, so they run here
as they do everywhere else, and the windows of many clients meet in one batch.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unison_audio.audio import Audio
from unison_audio.errors import InputError
from unison_audio.frame_layout import REFERENCE_SECONDS
from unison_audio.inputs import ItemInputs
from unison_audio.provenance.origin import Origin
from unison_audio.sampling_params import SamplingParams, merge_options, resolve_sampling
from unison_audio.server.batching import QueuedCall, Ticket
from unison_audio.server.model_worker import ModelAnswer, ModelCall
from unison_audio.server.scheduler import Scheduler
from unison_audio.tasks.instructions import parse_instruction
from unison_audio.tasks.table import TASKS
from unison_audio.variants import Variant

ITEM_INPUTS = tuple(field.name for field in fields(ItemInputs))
"""Inputs of `Unison.generate` that are not options of sampling."""


class ModelFailedError(Exception):
    """The model failed at a sound; the worker's log line has the reason."""


class RemoteModel:
    """A model in another process, for one request.

    Args:
        variant: What the workers run.
        scheduler: Where calls go.
        ticket: The request.
    """

    def __init__(self, variant: Variant, scheduler: Scheduler, ticket: Ticket) -> None:
        self.variant, self.scheduler, self.ticket = variant, scheduler, ticket

    def generate(
        self, instruction: list[str], *, sampling: SamplingParams | None = None, **options: Any
    ) -> list[Audio]:
        """Make sounds, as `Unison.generate` does for a list of instructions.

        Args:
            instruction: The instructions.
            sampling: Sampling options.
            **options: Other inputs, and fields of `SamplingParams`.

        Returns:
            One sound for each instruction.

        Raises:
            InputError: An input cannot be used.
            CancelledError: The client has left.
            WorkerLostError: The worker died, also at the second try.
            ModelFailedError: The model failed.
        """
        options.pop("domain_warned", None)  # the warning is in the header
        inputs = {name: options.pop(name) for name in ITEM_INPUTS if name in options}
        params = merge_options(sampling, options)
        settings = resolve_sampling(self.variant, params)
        calls = []
        for row, text in enumerate(instruction):
            own: dict[str, Any] = {"seed": 0}
            for name, value in inputs.items():
                own[name] = _portable(value[row] if isinstance(value, list) else value)
            has_reference = own.get("reference") is not None
            task = parse_instruction(
                text, own.get("source") is not None, has_reference, own.get("task")
            )
            calls.append(
                QueuedCall(
                    call=ModelCall(instruction=text, inputs=own),
                    sampling=params,
                    settings=settings.for_task(TASKS[task]),
                    seconds=_seconds(self.variant, own),
                    ticket=self.ticket,
                    first=self.ticket.calls == 0,
                )
            )
        self.ticket.calls += len(calls)
        self.scheduler.submit(calls)
        answers = [one.future.result() for one in calls]
        return [self._sound(one.call, answer) for one, answer in zip(calls, answers, strict=True)]

    def _sound(self, call: ModelCall, answer: ModelAnswer) -> Audio:
        if answer.refused:
            raise InputError(answer.refused)
        if answer.failed:
            raise ModelFailedError(answer.failed)
        for message in () if self.ticket.told else answer.warnings:
            self.ticket.warn(message)
        return Audio(
            torch.from_numpy(answer.waveform),
            self.variant.sample_rate,
            instruction=call.instruction,
            task=answer.task,
            seed=answer.seed,
            warnings=answer.warnings,
            origin=Origin.of_edit(answer.task, self.variant.name, call.inputs.get("source")),
        )


def _portable(value: Any) -> Any:
    """A recording as an array: tensors would go through shared memory, one file handle each."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], Tensor):
        return np.ascontiguousarray(value[0].detach().cpu().numpy()), value[1]
    return value


def _seconds(variant: Variant, inputs: dict[str, Any]) -> float:
    """Length that is sampled for a call, in whole frames of the codec."""
    return round(_exact_seconds(variant, inputs) * variant.latent_fps) / variant.latent_fps


def _exact_seconds(variant: Variant, inputs: dict[str, Any]) -> float:
    given: Sequence[Any] | None = inputs.get("source") or inputs.get("reference")
    known = 0.0 if given is None else given[0].shape[-1] / given[1]
    if inputs.get("source") is not None:
        return float(inputs.get("duration") or known)
    seconds = inputs.get("duration") or variant.default_seconds
    return float(seconds + min(known, REFERENCE_SECONDS))

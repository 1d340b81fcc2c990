"""Whether the removal of a sound would take the speech in its recording.

Weights that never heard speech under a sound take the speech away, since it is easiest to move. The
same weights tell speech from the rest when they are asked to: denoising leaves the speech, and
removing the speech leaves the rest. Where more is left of the first than of the second, there is
speech.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unison_audio.audio import level_db
from unison_audio.codecs.table import AudioCodec
from unison_audio.inputs import Request
from unison_audio.loading import LazyModel
from unison_audio.output_audio import decode_rows
from unison_audio.request_batches import RequestBatch, pad_conditions, plan_batches
from unison_audio.sampling_params import SamplingParams, resolve_sampling
from unison_audio.speech_activity import speech_probability
from unison_audio.tasks.clauses import respell
from unison_audio.tasks.conditioning import Condition
from unison_audio.text.states import TextStates
from unison_audio.variants import Variant

INSTRUCTIONS = ("[Edit][Speech] Denoise the recording", "[Edit][Speech] Remove the speech")
"""What leaves the speech, and what leaves the rest. The first also takes the removal's place."""

MARGIN_DB = 2.0
"""Speech is protected where the first leaves so much more than the second: chosen on 120 mixes with
speech, all of them, and 240 recordings without, 9 of them. Of fresh ones 60 of 60 mixes with speech
and 3 of 60 without (`benchmarks/named_edits.py --seed 8`)."""

LEAST_PROBABILITY = 0.01
"""Recordings with less, by pitch and rhythm, are not examined: 17 of 100 without speech, and none
of 60 with."""


def may_lose_speech(variant: Variant, request: Request) -> bool:
    """Whether a request is the removal of a sound from what may hold speech.

    Only where edits are applied to the recording itself, which the protection is a part of.

    Args:
        variant: The variant that runs it.
        request: The request.
    """
    task, source = request.task, request.layout.source
    removes_sound = task.group == "remove" and not task.clears_speech
    if not removes_sound or not variant.keep_source or source is None:
        return False
    own = source[: request.layout.samples]
    return speech_probability(own, variant.sample_rate) >= LEAST_PROBABILITY


@dataclass(frozen=True)
class Halves:
    """Makes what each of `INSTRUCTIONS` leaves of recordings."""

    encode: Callable[[Sequence[str]], TextStates]
    """Encodes instructions."""
    sample: Callable[..., Tensor]
    """Samples latents, as `best_of_n.sample_batch` does."""
    codec: LazyModel[AudioCodec]
    """Decodes them."""

    def make(
        self, text: TextStates, requests: Sequence[Request], given: Condition, batch: RequestBatch
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Make both of each request, each (samples,).

        Args:
            text: States of `INSTRUCTIONS`.
            requests: The requests of the batch.
            given: Their sources, padded.
            batch: Their settings.
        """
        frames = [request.layout.frames for request in requests]
        seeds = [request.seed for request in requests]
        one, other = (
            self.sample(
                given, text.select([which] * len(requests)), seeds, batch.settings, None, frames
            )
            for which in range(len(INSTRUCTIONS))
        )
        with self.codec.use() as codec:
            yield from zip(
                decode_rows(codec, one, frames), decode_rows(codec, other, frames), strict=True
            )


@torch.no_grad()
def protect_speech(
    variant: Variant, requests: list[Request], conditions: Sequence[Condition], halves: Halves
) -> list[Request]:
    """Turn removals that would take the speech in their sources into denoising.

    Args:
        variant: The variant that runs them.
        requests: Requests of any tasks.
        conditions: Their encoded sources.
        halves: Makes what is compared.

    Returns:
        The requests to run.
    """
    rows = [row for row, request in enumerate(requests) if may_lose_speech(variant, request)]
    if not rows:
        return requests
    spoken = [respell(one, variant.edit_tag_spelling) for one in INSTRUCTIONS]
    text = halves.encode(spoken)
    # The default settings, whatever the requests': the margin was measured with them.
    settings = resolve_sampling(variant, SamplingParams())
    found = list(requests)
    for batch in plan_batches([requests[row] for row in rows], settings):
        own = [rows[place] for place in batch.rows]
        given = pad_conditions(
            [conditions[row] for row in own], max(requests[row].layout.frames for row in own)
        )
        made = halves.make(text, [requests[row] for row in own], given, batch)
        for row, (left, rest) in zip(own, made, strict=True):
            samples = requests[row].layout.samples
            if level_db(left[:samples], rest[:samples]) >= MARGIN_DB:
                found[row] = replace(requests[row], instruction=spoken[0], protects_speech=True)
            else:
                found[row] = replace(requests[row], holds_no_speech=True)
    return found

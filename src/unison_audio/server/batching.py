"""What may share a batch: sounds of equal settings and similar length, oldest first."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from unison_audio.sampling_params import GroupSettings, SamplingParams
from unison_audio.server.model_worker import ModelAnswer, ModelCall

LENGTH_RATIO = 1.5
"""Longest of a batch over its shortest: the shorter ones are padded, and wait for the longest."""

LATER_PENALTY_SECONDS = 2.0
"""Seconds that the later windows of a long text stand back: the first sound of another client is
waited for, and they are not."""


class CancelledError(Exception):
    """The client has left, or its time is over."""


@dataclass(eq=False)
class Ticket:
    """One admitted request, for as long as it is answered."""

    request_id: str
    """Name of the request in the log."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set once nobody waits for the answer."""
    calls: int = 0
    """Calls of the model so far."""
    audio_seconds: float = 0.0
    """Seconds of sound made."""
    warnings: dict[str, None] = field(default_factory=dict)
    """Warnings to tell the client, in order, each once."""
    steps: tuple[int, int] | None = None
    """Steps done and steps in all of the batch that runs; None while none does."""
    told: bool = False
    """Whether the route has found all warnings itself; the model's about one window of a long text
    would come too late for the header."""

    def warn(self, message: str) -> None:
        """Add a warning for the client."""
        self.warnings.setdefault(message)


@dataclass(eq=False)
class QueuedCall:
    """A sound that waits for its batch."""

    call: ModelCall
    """The sound to make."""
    sampling: SamplingParams
    """Options of the request."""
    settings: GroupSettings
    """What they mean for its task."""
    seconds: float
    """Length that is sampled."""
    ticket: Ticket
    """The request that it belongs to."""
    first: bool
    """Whether the client has heard nothing yet."""
    future: "Future[ModelAnswer]" = field(default_factory=Future)
    """The answer."""
    queued_at: float = field(default_factory=time.monotonic)
    """When it was queued."""
    lost: int = 0
    """Workers that died with it."""

    @property
    def turn(self) -> float:
        """Its place in the queue; the lowest is next."""
        return self.queued_at + (0.0 if self.first else LATER_PENALTY_SECONDS)


def choose_batch(queue: Sequence[QueuedCall], max_batch: int) -> list[QueuedCall]:
    """Choose the calls that are sampled next.

    Args:
        queue: Waiting calls, at least one.
        max_batch: Sounds at once, candidates included.

    Returns:
        The call whose turn it is, and those that fit together with it.
    """
    # Sorted at each choice: penalties mix the order of arrival, and the queue is short.
    ordered = sorted(queue, key=lambda one: one.turn)
    head = ordered[0]
    if head.lost:  # it may be what killed the worker, so others must not be with it
        return [head]
    room = max(1, max_batch // head.settings.num_candidates)
    # Sounds of one length share convolutions, attention and decoding: with nano on a CPU, 16 of
    # eight lengths take 12 % more time than 16 of one. So lengths follow by their oldest sound.
    lengths: dict[float, list[QueuedCall]] = {}
    for one in ordered:
        if not one.lost and (one.sampling, one.settings) == (head.sampling, head.settings):
            lengths.setdefault(one.seconds, []).append(one)
    low = high = head.seconds
    batch: list[QueuedCall] = []
    for seconds, group in lengths.items():
        shortest, longest = min(low, seconds), max(high, seconds)
        if longest <= LENGTH_RATIO * shortest:
            low, high = shortest, longest
            batch += group[: room - len(batch)]
    return batch

"""What the routes share: the variant, the limits, the voices, and the desk that answers."""

import asyncio
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from unison_audio.sampling_params import SamplingParams
from unison_audio.server.answers import Desk
from unison_audio.server.api_errors import ApiError
from unison_audio.server.limits import Limits
from unison_audio.server.recording_store import RecordingStore, StoredConsent, StoredVoice
from unison_audio.server.reference_hosts import ReferenceHosts
from unison_audio.server.uploads import kept_upload, open_upload, read_mono
from unison_audio.variants import Variant

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ServerState:
    """What the routes share."""

    variant: Variant
    """What the workers run."""
    model_names: tuple[str, ...]
    """Names that mean it."""
    limits: Limits
    """What a client may ask."""
    voices: RecordingStore[StoredVoice]
    """The stored voices."""
    consents: RecordingStore[StoredConsent]
    """The speakers' recorded consents."""
    desk: Desk
    """Answers requests for sound."""
    references: ReferenceHosts
    """Hosts that recordings may be fetched from."""
    sampling: SamplingParams
    """Options where a request has none."""

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do what reads the disk or decodes, without holding up other clients."""
        return await asyncio.get_running_loop().run_in_executor(self.desk.pool, work)

    def read_reference(self, data: bytes, what: str) -> tuple[NDArray[np.float32], int]:
        """Decode a recording of a voice: mono at the variant's rate.

        Args:
            data: The file's bytes.
            what: Its name in messages.

        Raises:
            InputError: It is no recording, too long, or silent.
            ApiError: It is too large.
        """
        from unison_audio import audio

        rate = self.variant.sample_rate
        if len(data) > self.limits.max_voice_bytes:
            raise ApiError(
                413,
                f"{what} is larger than {self.limits.max_voice_mb:g} MB; send less.",
                param=what,
            )
        with kept_upload(io.BytesIO(data)) as path:
            recording = open_upload(path, what, self.limits, self.limits.max_voice_seconds)
            waveform = read_mono(recording, rate)
        audio.require_sound(waveform, what)
        return waveform.numpy(), rate


def state_of(request: Request) -> Any:
    """The state of the application, for FastAPI's dependencies."""
    return request.app.state.server

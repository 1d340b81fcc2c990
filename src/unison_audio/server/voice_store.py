"""Stored voices: one safetensors file and one JSON file each, written whole or not at all."""

import json
import logging
import re
import secrets
import threading
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unison_audio.errors import InputError
from unison_audio.files import make_folder, write_whole
from unison_audio.server.api_errors import ApiError
from unison_audio.server.builtin_voices import BUILTIN_VOICES

_ID = re.compile(r"voice_[0-9a-f]{24}")

MAX_NAME = 64
"""Characters of a voice's name."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StoredVoice:
    """A voice that a client has uploaded."""

    id: str
    """Name in requests."""
    name: str
    """Name that the client chose; also a name in requests."""
    created_at: int
    """Seconds since 1970."""
    ref_text: str
    """Words of the recording."""
    consent: str
    """The speaker's consent: a statement, or its number elsewhere."""
    speaker_description: str
    """About the speaker; may be empty."""
    sample_rate: int
    """Samples per second of the recording."""
    seconds: float
    """Length of the recording."""


class VoiceStore:
    """A folder of voices.

    The JSON file is written last and deleted first, so a voice exists with it or not at all. The
    folder is read at every call: several servers may share it.

    Args:
        folder: Where they lie; made if missing.
        most: Voices that may be stored.

    Raises:
        InputError: The folder cannot be made.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = make_folder(folder), most
        self._lock = threading.Lock()
        self._clean()

    def all(self) -> list[StoredVoice]:
        """The voices, oldest first."""
        found = [self._read(path) for path in sorted(self.folder.glob("voice_*.json"))]
        return sorted((voice for voice in found if voice), key=lambda one: (one.created_at, one.id))

    def find(self, name: str) -> StoredVoice | None:
        """The voice with an id or a name."""
        return next((voice for voice in self.all() if name in (voice.id, voice.name)), None)

    def waveform(self, voice: StoredVoice) -> NDArray[np.float32]:
        """The recording of a voice, (samples,).

        Raises:
            ApiError: It was deleted meanwhile, or its file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(self._sound(voice.id))["waveform"]
        except (OSError, SafetensorError, KeyError) as error:
            raise ApiError(
                404, f"The voice {voice.id} is gone or damaged; upload it again.", param="voice"
            ) from error

    def add(
        self,
        waveform: NDArray[np.float32],
        sample_rate: int,
        *,
        name: str,
        ref_text: str,
        consent: str,
        speaker_description: str = "",
    ) -> StoredVoice:
        """Store a voice.

        Args:
            waveform: (samples,) of the recording.
            sample_rate: Its samples per second.
            name: The client's name for it.
            ref_text: Words of the recording.
            consent: The speaker's consent.
            speaker_description: About the speaker.

        Raises:
            ApiError: The name is taken, there are too many voices, or the disk is full.
        """
        from safetensors.numpy import save

        voice = StoredVoice(
            id=f"voice_{secrets.token_hex(12)}",
            name=name,
            created_at=int(time.time()),
            ref_text=ref_text,
            consent=consent,
            speaker_description=speaker_description,
            sample_rate=sample_rate,
            seconds=round(len(waveform) / sample_rate, 3),
        )
        data = save({"waveform": np.ascontiguousarray(waveform, np.float32)}, {"format": "pt"})
        with self._lock:
            self._check_room(name)
            try:
                write_whole(self._sound(voice.id), data)
                write_whole(self._facts(voice.id), json.dumps(asdict(voice), indent=1) + "\n")
            except InputError as error:
                self._sound(voice.id).unlink(missing_ok=True)
                log.error("voice not stored", extra={"fields": {"reason": str(error)}})
                raise ApiError(
                    507, "The server has no room to store the voice.", code="no_room"
                ) from error
        return voice

    def delete(self, name: str) -> StoredVoice | None:
        """Delete a voice by its id or name; None if there is none."""
        with self._lock:
            voice = self.find(name)
            if voice is not None:
                self._facts(voice.id).unlink(missing_ok=True)
                self._sound(voice.id).unlink(missing_ok=True)
        return voice

    def _check_room(self, name: str) -> None:
        voices = self.all()
        if name in BUILTIN_VOICES or any(name in (voice.id, voice.name) for voice in voices):
            raise ApiError(409, f"A voice named {name!r} exists; choose another.", param="name")
        if len(voices) >= self.most:
            raise ApiError(
                409, f"{self.most} voices are stored, which is the limit; delete one first.",
                code="too_many_voices",
            )

    def _read(self, path: Path) -> StoredVoice | None:
        try:
            values = json.loads(path.read_text("utf-8"))
            kinds = {field.name: field.type for field in fields(StoredVoice)}
            voice = StoredVoice(**{name: values[name] for name in kinds})
        except FileNotFoundError:  # deleted meanwhile
            return None
        except (OSError, ValueError, TypeError, KeyError):
            log.warning("voice unreadable", extra={"fields": {"file": path.name}})
            return None
        return voice if _ID.fullmatch(str(voice.id)) and voice.id == path.stem else None

    def _clean(self) -> None:
        """Remove what a broken write has left."""
        for path in self.folder.glob(".voice_*.part"):
            path.unlink(missing_ok=True)
        for path in self.folder.glob("voice_*.safetensors"):
            if not self._facts(path.stem).exists():
                path.unlink(missing_ok=True)

    def _sound(self, voice_id: str) -> Path:
        return self.folder / f"{voice_id}.safetensors"

    def _facts(self, voice_id: str) -> Path:
        return self.folder / f"{voice_id}.json"

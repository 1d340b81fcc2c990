"""Stored recordings: one safetensors file and one JSON file each, written whole or not at all."""

import json
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from unison_audio.errors import InputError
from unison_audio.files import make_folder, write_whole
from unison_audio.server.api_errors import ApiError, full_disk

MAX_NAME = 64
"""Characters of a recording's name."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StoredRecording:
    """What every stored recording has."""

    id: str
    """Name in requests."""
    name: str
    """Name that the client chose."""
    created_at: int
    """Seconds since 1970."""
    sample_rate: int
    """Samples per second of the recording."""
    seconds: float
    """Length of the recording."""


@dataclass(frozen=True, kw_only=True)
class StoredVoice(StoredRecording):
    """A voice that a client has uploaded."""

    ref_text: str
    """Words of the recording."""
    consent: str
    """The speaker's consent: a statement, or the id of a stored one."""
    speaker_description: str
    """About the speaker; may be empty."""


@dataclass(frozen=True, kw_only=True)
class StoredConsent(StoredRecording):
    """A recording in which a speaker consents."""

    language: str
    """BCP 47 tag of its language."""


T = TypeVar("T", bound=StoredRecording)


class RecordingStore(Generic[T]):
    """A folder of recordings of one kind.

    The JSON file is written last and deleted first, so a recording exists with it or not at all.
    The folder is read at every call: several servers may share it.

    Args:
        folder: Where they lie; made if missing.
        kind: What they are.
        prefix: Beginning of their ids.
        most: How many may be stored.

    Raises:
        InputError: The folder cannot be made.
    """

    def __init__(self, folder: Path, kind: type[T], prefix: str, most: int) -> None:
        self.folder, self.kind, self.prefix, self.most = make_folder(folder), kind, prefix, most
        self._id = re.compile(rf"{prefix}_[0-9a-f]{{24}}")
        self._lock = threading.Lock()
        self._clean()

    def all(self) -> list[T]:
        """The recordings, oldest first."""
        found = [self._read(path) for path in sorted(self.folder.glob(f"{self.prefix}_*.json"))]
        return sorted((one for one in found if one), key=lambda one: (one.created_at, one.id))

    def find(self, name: str) -> T | None:
        """The recording with an id or a name."""
        return next((one for one in self.all() if name in (one.id, one.name)), None)

    def waveform(self, recording: T) -> NDArray[np.float32]:
        """Its samples, (samples,).

        Raises:
            ApiError: It was deleted meanwhile, or its file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(self._sound(recording.id))["waveform"]
        except (OSError, SafetensorError, KeyError) as error:
            raise ApiError(
                404, f"{recording.id} is gone or damaged; upload it again.", param="voice"
            ) from error

    def add(self, waveform: NDArray[np.float32], sample_rate: int, **facts: str) -> T:
        """Store a recording under a new id, which nobody can guess.

        Args:
            waveform: (samples,).
            sample_rate: Samples per second.
            **facts: The other fields of its kind.

        Raises:
            ApiError: The name is taken, there are too many, or the disk is full.
        """
        from safetensors.numpy import save

        recording = self.kind(
            id=f"{self.prefix}_{secrets.token_hex(12)}",
            created_at=int(time.time()),
            sample_rate=sample_rate,
            seconds=round(len(waveform) / sample_rate, 3),
            **facts,
        )
        data = save({"waveform": np.ascontiguousarray(waveform, np.float32)}, {"format": "pt"})
        with self._lock:
            stored = self.all()
            if any(recording.name in (one.id, one.name) for one in stored):
                raise taken(recording.name)
            if len(stored) >= self.most:
                raise ApiError(
                    409,
                    f"{self.most} are stored, which is the limit; delete one first.",
                    code="too_many",
                )
            try:
                write_whole(self._sound(recording.id), data)
                self._write_facts(recording)
            except InputError as error:
                self._sound(recording.id).unlink(missing_ok=True)
                raise self._no_room(error) from error
        return recording

    def update(self, name: str, change: Callable[[T], T]) -> T | None:
        """Change the facts of a recording; None if there is none.

        Args:
            name: Its id or name.
            change: Gives the new facts.

        Raises:
            ApiError: The new name is taken, or the disk is full.
        """
        with self._lock:
            before = self.find(name)
            if before is None:
                return None
            after = change(before)
            others = [one for one in self.all() if one.id != before.id]
            if any(after.name in (one.id, one.name) for one in others):
                raise taken(after.name)
            try:
                self._write_facts(after)
            except InputError as error:
                raise self._no_room(error) from error
        return after

    def delete(self, name: str) -> T | None:
        """Delete a recording by its id or name; None if there is none."""
        with self._lock:
            found = self.find(name)
            if found is not None:
                self._facts(found.id).unlink(missing_ok=True)
                self._sound(found.id).unlink(missing_ok=True)
        return found

    def _write_facts(self, recording: T) -> None:
        write_whole(self._facts(recording.id), json.dumps(asdict(recording), indent=1) + "\n")

    def _no_room(self, error: InputError) -> ApiError:
        log.error("recording not stored", extra={"fields": {"reason": str(error)}})
        return full_disk()

    def _read(self, path: Path) -> T | None:
        try:
            values = json.loads(path.read_text("utf-8"))
            found = self.kind(**{field.name: values[field.name] for field in fields(self.kind)})
        except FileNotFoundError:  # deleted meanwhile
            return None
        except (OSError, ValueError, TypeError, KeyError):
            log.warning("recording unreadable", extra={"fields": {"file": path.name}})
            return None
        return found if self._id.fullmatch(str(found.id)) and found.id == path.stem else None

    def _clean(self) -> None:
        """Remove what a broken write has left."""
        for path in self.folder.glob(f".{self.prefix}_*.part"):
            path.unlink(missing_ok=True)
        for path in self.folder.glob(f"{self.prefix}_*.safetensors"):
            if not self._facts(path.stem).exists():
                path.unlink(missing_ok=True)

    def _sound(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _facts(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def taken(name: str) -> ApiError:
    """The answer to a name that is in use."""
    return ApiError(409, f"{name!r} exists already; choose another name.", param="name")

"""Clips and their records: what the data path hands from shards to the tasks' builders.

A clip is a `shards.Sample` (bytes) in a shard, a `Clip` (waveform and record) in a pool, part of a
`TaskBatch` after a builder, and of an `Example` in the trainer.
"""

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from unison_audio.data.captions import plain_caption

if TYPE_CHECKING:
    from torch import Tensor

ZERO_SHOT_SECONDS = 3.0
"""Speech at least this long can give a reference and a target (paper, appendix C)."""

BROKEN_RECORD = "broken record"

MAX_RECORD_BYTES = 1 << 20


class BrokenClipError(Exception):
    """A clip that cannot be used; ``reason`` is one of a few, the message has the details."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """Metadata of one recording; its fields are the JSON keys in a shard."""

    key: str
    """Name, unique in the corpus."""
    kind: str
    """``speech`` or ``sound``."""
    split: str
    """``train``, ``heldout`` (texts or clips not trained on) or ``speakers`` (speakers not trained
    on, held out as well)."""
    seconds: float
    """Length."""
    licence: str
    """License of the recording or of the voice."""
    source: str
    """Package and path, or the voice that spoke it."""
    text: str = ""
    """Transcript; empty if unknown."""
    speaker: str = ""
    """Speaker name, equal for equal voices."""
    gender: str = ""
    """``male``, ``female`` or empty."""
    label: str = ""
    """Event label that fits into "Add ..."."""
    caption: str = ""
    """A sentence that describes the sound."""
    language: str = ""
    """Of the text or the caption: ``en``, ``zh`` or another code; empty if unknown."""
    sample_rate: int = 0
    """Of the recording in the shard, in Hz; 0 in corpora of one rate, such as nano's."""
    channels: int = 1
    """Of the recording in the shard."""

    @property
    def zero_shot(self) -> bool:
        """Whether it is long enough to give a reference and a target (paper, appendix C)."""
        return self.kind == "speech" and bool(self.text) and self.seconds >= ZERO_SHOT_SECONDS


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A decoded recording with its record."""

    record: ClipRecord
    """Its metadata."""
    waveform: "Tensor"
    """(samples,) float32, mono."""


def in_split(split: str, wanted: str | None) -> bool:
    """Whether a clip of a split is wanted.

    Args:
        split: The clip's.
        wanted: One of a clip's splits; ``heldout`` includes ``speakers``, None takes all.
    """
    return wanted in (None, split) or (wanted == "heldout" and split == "speakers")


def label_of(record: ClipRecord) -> str:
    """A sound's label; its caption as a phrase if it has none."""
    return record.label or plain_caption(record.caption)


_TYPES = {field.name: (str,) for field in fields(ClipRecord)} | {
    "seconds": (float, int),
    "sample_rate": (int,),
    "channels": (int,),
}


def read_record(content: bytes) -> ClipRecord:
    """Reads a clip's record; unknown keys are ignored.

    Raises:
        BrokenClipError: If it is no record, or a sound has neither label nor caption.
    """
    if len(content) > MAX_RECORD_BYTES:
        raise BrokenClipError(BROKEN_RECORD, f"it has {len(content)} bytes")
    try:
        values = json.loads(content)
        record = ClipRecord(**{name: values[name] for name in _TYPES if name in values})
    except (ValueError, TypeError, RecursionError) as error:
        raise BrokenClipError(BROKEN_RECORD, str(error)) from error
    for name, types in _TYPES.items():
        if not isinstance(getattr(record, name), types):
            raise BrokenClipError(BROKEN_RECORD, f"{name} is {getattr(record, name)!r:.80}")
    if record.kind == "sound" and not (record.label or record.caption):
        raise BrokenClipError(BROKEN_RECORD, "it has neither label nor caption")
    return record

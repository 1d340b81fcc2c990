"""Clips and their records, the types between the shards and the tasks' builders.

A clip is a `shards.Sample` (bytes) in a shard, a `Clip` (waveform and record) in a pool, part of a
`TaskBatch` after a builder, and of an `EncodedBatch` in the trainer.
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
    """A clip that cannot be used; `reason` is one of a few texts, the message has the details."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """Metadata of one recording; its fields are the JSON keys in a shard."""

    key: str
    """Name, unique in its corpus."""
    kind: str
    """`speech` or `sound`; `noise` for synthetic noise, which no corpus holds."""
    split: str
    """`train`, `heldout` (held-out texts or clips) or `speakers` (held-out speakers)."""
    seconds: float
    """Length in seconds."""
    licence: str
    """License of the recording or the voice."""
    source: str
    """Corpus or package with the path in it, or the synthetic voice."""
    text: str = ""
    """Transcript; empty if unknown."""
    speaker: str = ""
    """Speaker name, equal for equal voices."""
    gender: str = ""
    """`male`, `female` or empty."""
    label: str = ""
    """Event label that fits into "Add ..."."""
    caption: str = ""
    """A sentence that describes the sound."""
    language: str = ""
    """Language of the text or caption: `en`, `zh` or another code; empty if unknown."""
    sample_rate: int = 0
    """Sample rate of the recording in the shard in Hz; 0 in corpora of one rate, such as nano's."""
    channels: int = 1
    """Channels of the recording in the shard."""

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
    """Whether a selection includes the clips of a split.

    Args:
        split: Split of the clip.
        wanted: The selection: a split, where `heldout` includes `speakers`; None for all.
    """
    return wanted in (None, split) or (wanted == "heldout" and split == "speakers")


def label_of(record: ClipRecord) -> str:
    """The label of a sound, or its caption as a phrase if it has none."""
    return record.label or plain_caption(record.caption)


_TYPES = {field.name: (str,) for field in fields(ClipRecord)} | {
    "seconds": (float, int),
    "sample_rate": (int,),
    "channels": (int,),
}


def read_record(content: bytes) -> ClipRecord:
    """Reads the record of a clip; unknown keys are ignored.

    Raises:
        BrokenClipError: If it is no record, or a sound has neither label nor caption.
    """
    # No record is so long, and the parser would take many times its size in memory.
    if len(content) > MAX_RECORD_BYTES:
        raise BrokenClipError(BROKEN_RECORD, f"it has {len(content)} bytes")
    try:
        values = json.loads(content)
        record = ClipRecord(**{name: values[name] for name in _TYPES if name in values})
    except (ValueError, TypeError, RecursionError) as error:
        raise BrokenClipError(BROKEN_RECORD, str(error)) from error
    # A dataclass checks no types; a wrong one would fail much later, in a builder.
    for name, types in _TYPES.items():
        if not isinstance(getattr(record, name), types):
            raise BrokenClipError(BROKEN_RECORD, f"{name} is {getattr(record, name)!r:.80}")
    if record.kind == "sound" and not (record.label or record.caption):
        raise BrokenClipError(BROKEN_RECORD, "it has neither label nor caption")
    return record

"""One part of a stream: draws each clip's corpus by weight, decodes it, counts what it skips."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from unison_audio.data.corpus_index import CorpusIndex
from unison_audio.data.corpus_pass import (
    CorpusPass,
    PassConfig,
    PassPosition,
    Purpose,
    RawClip,
    Rest,
    generator_of,
)
from unison_audio.data.decoding import BrokenClipError, decode
from unison_audio.data.shards import ClipRecord, in_split
from unison_audio.errors import InputError

BROKEN_RECORD = "broken record"
TOO_LONG = "longer than wanted"
MAX_RECORD_BYTES = 1 << 20
_CHOICES = 1024
_TYPES = {field.name: (str,) for field in dataclasses.fields(ClipRecord)} | {
    "seconds": (float, int),
    "sample_rate": (int,),
    "channels": (int,),
}


class Position(NamedTuple):
    """Where a part is."""

    draws: int
    """Clips drawn, good or bad."""
    passes: tuple[PassPosition, ...]
    """Its place in each corpus."""
    skipped: dict[str, int]
    """Clips that it could not use, by reason."""

    def plain(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "draws": self.draws,
            "passes": [list(place) for place in self.passes],
            "skipped": dict(self.skipped),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Position":
        """Reads what `plain` gave."""
        passes = tuple(PassPosition(*place) for place in plain["passes"])
        return cls(plain["draws"], passes, dict(plain["skipped"]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What all parts of a stream have in common; see `streaming.ClipStream`."""

    indexes: tuple[CorpusIndex, ...]
    """The corpora."""
    weights: tuple[float, ...]
    """How often each is drawn; they sum to 1."""
    sample_rate: int
    """Of the waveforms, in Hz."""
    kind: str | None
    """Wanted kind."""
    split: str | None
    """Wanted split."""
    max_seconds: float | None
    """Longest clip."""
    crop: bool
    """Whether a longer one is cropped or left out."""
    seed: int
    """Of all that is drawn."""
    block_clips: int
    """Most clips in a block."""
    block_bytes: int
    """A block is full with so many bytes."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A clip as it comes from a worker: as an array, since tensors would need shared memory."""

    record: ClipRecord
    """Its record."""
    waveform: np.ndarray
    """(samples,) float32, mono."""


@dataclasses.dataclass(frozen=True)
class Delivery:
    """A clip, or the message that ends the stream, and the part's place behind it."""

    clip: Decoded | str
    """Either."""
    position: Position
    """Where to go on."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a stream, not yet begun."""

    plan: Plan
    part: int
    """Its number."""
    parts: int
    """How many there are."""
    position: Position
    """Where it begins."""
    rests: tuple[Rest, ...]
    """Per corpus, what another number of parts left of the epochs it had begun."""

    def __iter__(self) -> Iterator[Delivery]:
        """Reads the part for ever."""
        try:
            yield from self._read()
        except InputError as error:  # so that it comes out of a worker as it is
            yield Delivery(str(error), self.position)

    def _read(self) -> Iterator[Delivery]:
        plan, draws = self.plan, self.position.draws
        config = PassConfig(
            seed=plan.seed,
            part=self.part,
            parts=self.parts,
            block_clips=plan.block_clips,
            block_bytes=plan.block_bytes,
        )
        passes: list[CorpusPass | None] = [None] * len(plan.indexes)
        places = list(self.position.passes)
        skipped = Counter(self.position.skipped)
        choices = np.empty(0, np.int64)
        while True:
            if draws % _CHOICES == 0 or not len(choices):
                where = (self.part, draws // _CHOICES)
                generator = generator_of(plan.seed, Purpose.CORPUS, *where)
                choices = generator.choice(len(passes), _CHOICES, p=plan.weights)
            number = int(choices[draws % _CHOICES])
            draws += 1
            one = passes[number]
            if one is None:
                one = passes[number] = CorpusPass(
                    plan.indexes[number], number, config, places[number], self.rests[number]
                )
            raw, lost = one.take()
            skipped += lost
            places[number] = one.position
            clip = None
            try:
                clip = _use(plan, number, raw)
            except BrokenClipError as error:
                skipped[error.reason] += 1
                if error.reason != TOO_LONG:
                    one.tell(raw.shard, f"clip {raw.sample.ordinal}: {error.reason} ({error})")
            one.note(good=clip is not None)
            if clip is not None:
                yield Delivery(clip, Position(draws, tuple(places), dict(skipped)))


def _use(plan: Plan, number: int, raw: RawClip) -> Decoded | None:
    """Decodes a sample; None if it is not of the wanted kind or split."""
    files = raw.sample.files
    record = read_record(files.get("json", b""))
    if plan.kind not in (None, record.kind) or not in_split(record.split, plan.split):
        return None
    crop = None
    if plan.max_seconds is not None and record.seconds > plan.max_seconds:
        if not plan.crop:
            raise BrokenClipError(TOO_LONG, f"{record.seconds} s")
        crop = plan.max_seconds
    suffix = next((name for name in files if name != "json"), None)
    if suffix is None:
        raise BrokenClipError(BROKEN_RECORD, "it has no sound")
    where = (number, raw.epoch, raw.shard, raw.sample.ordinal)
    waveform = decode(
        files[suffix],
        suffix,
        plan.sample_rate,
        crop_seconds=crop,
        draw=lambda: generator_of(plan.seed, Purpose.CROP, *where).random(),
    )
    return Decoded(record, waveform.numpy())


def read_record(content: bytes) -> ClipRecord:
    """Reads the record of a clip; what is not a field of one is passed over.

    Raises:
        BrokenClipError: If it is none, or says nothing of what is heard in a sound.
    """
    if len(content) > MAX_RECORD_BYTES:
        raise BrokenClipError(BROKEN_RECORD, f"it has {len(content)} bytes")
    try:
        fields = json.loads(content)
        record = ClipRecord(**{name: fields[name] for name in _TYPES if name in fields})
    except (ValueError, TypeError, RecursionError) as error:
        raise BrokenClipError(BROKEN_RECORD, str(error)) from error
    for name, types in _TYPES.items():
        if not isinstance(getattr(record, name), types):
            raise BrokenClipError(BROKEN_RECORD, f"{name} is {getattr(record, name)!r:.80}")
    if record.kind == "sound" and not (record.label or record.caption):
        raise BrokenClipError(BROKEN_RECORD, "it has neither label nor caption")
    return record

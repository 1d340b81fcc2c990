"""WebDataset shards of clips: writing them whole or not at all, and reading them back."""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
import webdataset

from unison_audio.data.caption_filters import ZERO_SHOT_SECONDS
from unison_audio.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """What is known of one recording."""

    key: str
    """Name, unique in the corpus."""
    kind: str
    """``speech`` or ``sound``."""
    split: str
    """``train``, ``heldout`` (unheard texts or clips) or ``speakers`` (unheard voices, held out as
    well)."""
    seconds: float
    """Length."""
    licence: str
    """Licence of the recording or of the voice."""
    source: str
    """Package and path, or the voice that spoke it."""
    text: str = ""
    """What is said; empty where nobody wrote it down."""
    speaker: str = ""
    """Who speaks."""
    gender: str = ""
    """``male``, ``female`` or empty."""
    label: str = ""
    """Event label that fits into "Add ..."."""
    caption: str = ""
    """A sentence on what is heard."""
    language: str = ""
    """Of the text or the caption: ``en``, ``zh`` or another code; empty where nobody said."""
    sample_rate: int = 0
    """Of the recording in the shard, in Hz; 0 in corpora of one rate, such as nano's."""
    channels: int = 1
    """Of the recording in the shard."""

    @property
    def zero_shot(self) -> bool:
        """Whether it is long enough to give a reference and a target (paper, appendix C)."""
        return self.kind == "speech" and bool(self.text) and self.seconds >= ZERO_SHOT_SECONDS


def in_split(split: str, wanted: str | None) -> bool:
    """Whether a clip of a split is wanted.

    Args:
        split: The clip's.
        wanted: One of a clip's splits; ``heldout`` takes unheard voices too, None takes all.
    """
    return wanted in (None, split) or (wanted == "heldout" and split == "speakers")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A recording with what is known of it."""

    record: ClipRecord
    """Its record."""
    waveform: torch.Tensor
    """(samples,) float32, mono."""


def write_shard(path: Path, clips: Iterable[Clip], sample_rate: int) -> list[ClipRecord]:
    """Writes a shard of 16-bit FLAC and JSON pairs; the file appears only when it is complete.

    Args:
        path: The ``.tar`` to write.
        clips: What goes in.
        sample_rate: Of the waveforms, in Hz.

    Returns:
        The records written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    records = []
    with webdataset.TarWriter(str(partial), mtime=0) as writer:
        for clip in clips:
            sound = io.BytesIO()
            soundfile.write(sound, clip.waveform.numpy(), sample_rate, "PCM_16", format="FLAC")
            record = asdict(clip.record)
            writer.write({"__key__": clip.record.key, "flac": sound.getvalue(), "json": record})
            records.append(clip.record)
    partial.replace(path)
    return records


def read_shard(path: Path, sample_rate: int) -> Iterator[Clip]:
    """Reads a shard in its order.

    Raises:
        InputError: If the shard is damaged or of another sample rate.
    """
    try:
        for sample in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False):
            samples, rate = soundfile.read(io.BytesIO(sample["flac"]), dtype="float32")
            if rate != sample_rate:
                raise InputError(
                    f"The shard {path} holds {rate} Hz audio where {sample_rate} Hz is expected; "
                    "build the corpus again"
                )
            record = ClipRecord(**json.loads(sample["json"]))
            yield Clip(record=record, waveform=torch.from_numpy(np.ascontiguousarray(samples)))
    except (OSError, EOFError, KeyError, TypeError, tarfile.TarError) as error:
        raise InputError(
            f"The shard {path} is damaged ({error}); delete it and build the corpus again"
        ) from error

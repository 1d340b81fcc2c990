"""Reads the clips of a prepared corpus into memory, whatever their format and rate."""

from collections.abc import Iterator
from pathlib import Path

from unison_audio.data.corpus_index import find_corpus
from unison_audio.data.decode import decode
from unison_audio.data.records import BrokenClipError, Clip, read_record
from unison_audio.data.shards import LostClipsError, read_samples
from unison_audio.device import available_memory
from unison_audio.errors import InputError

BYTES_PER_SAMPLE = 4


def read_corpus(
    folder: Path, sample_rate: int, *, kind: str | None = None, split: str | None = None
) -> list[Clip]:
    """Reads the clips of a corpus, shard by shard in the order of their names.

    Args:
        folder: A folder that `unison-audio data` wrote.
        sample_rate: Sample rate of the waveforms in Hz; other clips are resampled.
        kind: `speech` or `sound`; None for both.
        split: Split of the clips; None for all.

    Raises:
        InputError: If the folder is no complete corpus or has no such clips, if they do not fit
            into memory, or if a shard is damaged.
    """
    index = find_corpus(folder, kind=kind, split=split)
    needed = int(index.seconds * sample_rate * BYTES_PER_SAMPLE)
    free = available_memory()
    if free is not None and needed > free:
        raise InputError(
            f"{folder} has {index.seconds / 3600:.0f} hours, which need {needed / 1e9:.1f} GB of "
            f"memory where {free / 1e9:.1f} GB are free; build a smaller corpus with "
            "unison-audio data --limit"
        )
    counts = dict(zip(index.names.tolist(), index.clips.tolist(), strict=True))
    return [
        clip
        for name in sorted(counts)
        for clip in read_shard(
            Path(index.base) / name.decode(), sample_rate, counts[name], kind=kind, split=split
        )
    ]


def read_shard(
    path: Path,
    sample_rate: int,
    clips: int = 0,
    *,
    kind: str | None = None,
    split: str | None = None,
) -> Iterator[Clip]:
    """Reads the clips of a shard in order.

    Args:
        path: The shard.
        sample_rate: Sample rate of the waveforms in Hz; other clips are resampled.
        clips: Number of clips that it must hold; 0 if unknown.
        kind: `speech` or `sound`; None for both.
        split: Split of the clips; None for all.

    Raises:
        InputError: If the shard is damaged.
    """
    try:
        for sample in read_samples(str(path), clips, patient=False):
            record = read_record(sample.files.get("json", b""))
            if kind in (None, record.kind) and split in (None, record.split):
                content = sample.files.get(sample.suffix, b"")
                try:
                    waveform = decode(content, sample.suffix, sample_rate)
                except BrokenClipError as error:
                    detail = f"its clip {record.key}: {error.reason}, {error}"
                    raise BrokenClipError(error.reason, detail) from error
                yield Clip(record=record, waveform=waveform)
    except (LostClipsError, BrokenClipError) as error:
        raise InputError(
            f"The shard {path} is damaged ({error}); delete it and build the corpus again"
        ) from error

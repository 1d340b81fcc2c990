"""Resident memory of one rank that is fed from a corpus of 36 million clips.

    python benchmarks/index_memory.py
    python benchmarks/index_memory.py --fed 4500000     # all that one of 8 ranks has in an epoch

Writes an index of 7,200 shards of 5,000 clips, with all fields of a real one. The shards are one
file of tiny clips under 7,200 names (hard links), so that the stream opens, reads, decodes and
shuffles as usual. The baseline is a stream that has read a corpus of one shard, so that libraries
and buffers are loaded:

    opened      the stream over the whole index was opened
    planned     the orders of three epochs were drawn for all ranks: 108 million clips
    fed         the first of 8 ranks has read its clips, one after another
    true size   the same with clips of 100 kB, as 10 s of speech in FLAC have at 16 kHz, which fill
                the shuffled blocks up to their limit of bytes
"""

import dataclasses
import io
import itertools
import json
import os
import tempfile
from pathlib import Path

import cyclopts
import numpy as np
import soundfile
import webdataset
from machine import describe

from unison_audio.data.records import ClipRecord
from unison_audio.data.stream import ClipStream, StreamConfig

RATE, SHARDS, CLIPS, WORLD = 16_000, 7200, 5000, 8
BAR_MB = 200.0


def resident_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_shard(path: Path, clip_bytes: int) -> None:
    """A shard of clips of noise that take about so many bytes as FLAC."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(-(1 << 14), 1 << 14, clip_bytes // 2)
    soundfile.write(file, noise.astype(np.int16), RATE, "PCM_16", format="FLAC")
    with webdataset.TarWriter(str(path), mtime=0) as writer:
        for index in range(CLIPS):
            record = ClipRecord(
                key=f"utterance-{index:06d}",
                kind="speech",
                split="train",
                seconds=len(noise) / RATE,
                licence="CC-BY-4.0",
                source=f"synthetic:utterance-{index:06d}.flac",
                text="and what is said has about as many words as a sentence does",
                speaker=f"speaker-{index // 50}",
                gender="female",
                language="en",
                sample_rate=RATE,
            )
            fields = json.dumps(dataclasses.asdict(record)).encode()
            key = {"__key__": record.key}
            writer.write({**key, "flac": file.getvalue(), "json": fields})


def write_corpus(folder: Path, shard: Path, shards: int) -> None:
    """An index of true size, and the shard under all its names."""
    folder.mkdir()
    entries = []
    for number in range(shards):
        name = f"synthetic-{number // 100:04d}-{number % 100:06d}.tar"
        os.link(shard, folder / name)
        entries.append(
            {
                "name": name,
                "clips": CLIPS,
                "seconds": 28_800.0,
                "bytes": shard.stat().st_size,
                "kinds": ["speech"],
                "splits": ["train"],
                "sha256": f"{number:064x}",
            }
        )
    clips = shards * CLIPS
    index = {
        "format": 1,
        "corpus": "synthetic",
        "licence": "CC-BY-4.0",
        "clips": clips,
        "hours": 57_600.0,
        "by_language": {"en": {"clips": clips, "hours": 57_600.0}},
        "by_kind": {"speech": {"clips": clips, "hours": 57_600.0}},
        "sample_rates": {str(RATE): clips},
        "shards": entries,
        "removed": {},
        "broken": [],
    }
    (folder / "index.json").write_text(json.dumps(index))


def open_stream(folder: Path) -> ClipStream:
    """The first rank's stream."""
    return ClipStream([folder], StreamConfig(sample_rate=RATE, kind="speech", world=WORLD))


def feed(stream: ClipStream, clips: int, base: float) -> float:
    """Reads clips; gives the largest growth seen on the way."""
    most = 0.0
    for count, _ in enumerate(itertools.islice(stream, clips)):
        if count % 5000 == 0 or count + 1 == clips:
            most = max(most, resident_mb() - base)
    return most


def main(fed: int = 400_000, fed_true_size: int = 20_000, tiny: int = 512) -> None:
    """Measures and prints a table.

    Args:
        fed: Tiny clips that are read.
        fed_true_size: Clips of 100 kB that are read.
        tiny: Bytes of a tiny clip.
    """
    print(describe())
    print("\n| state | clips | growth of resident memory, MB |\n|---|---|---|")
    growths = []

    def show(what: str, clips: int, growth: float) -> None:
        growths.append(growth)
        print(f"| {what} | {clips:,} | {growth:.1f} |", flush=True)

    with tempfile.TemporaryDirectory() as place:
        for name, size in (("tiny", tiny), ("true", 100_000)):
            write_shard(Path(place, f"{name}.tar"), size)
        write_corpus(Path(place, "warm"), Path(place, "tiny.tar"), 1)
        write_corpus(Path(place, "large"), Path(place, "tiny.tar"), SHARDS)
        write_corpus(Path(place, "true"), Path(place, "true.tar"), SHARDS)
        warm = open_stream(Path(place, "warm"))
        feed(warm, 3000, 0.0)
        base = resident_mb()
        print(f"| a corpus of one shard: {base:.0f} MB in all | {CLIPS:,} | 0 |")
        stream = open_stream(Path(place, "large"))
        show("opened", stream.clips, resident_mb() - base)
        most = 0.0
        for epoch in range(3):
            units = stream.corpora[0].units(epoch, WORLD)
            given = sum(len(units[rank::WORLD]) for rank in range(WORLD)) * CLIPS
            assert given == stream.clips == SHARDS * CLIPS
            most = max(most, resident_mb() - base)
        show("planned", 3 * stream.clips, most)
        show("fed", fed, feed(stream, fed, base))
        del stream, warm
        stream = open_stream(Path(place, "true"))
        show("fed at true size", fed_true_size, feed(stream, fed_true_size, base))
    if max(growths) > BAR_MB:
        raise SystemExit(f"more than {BAR_MB:.0f} MB")


if __name__ == "__main__":
    cyclopts.run(main)

"""Clips a second on one core: the stream of clips beside plain decoding of the same files.

    python benchmarks/data_loading.py
    python benchmarks/data_loading.py --clips 200 --seconds 10 --repetitions 15

Writes the same clips as files and as a shard, for wav, flac and mp3. Plain decoding is
`soundfile.read` of one file after another. The stream also reads the shard, shuffles, reads
records, averages channels, rejects NaN and silence, and keeps its position. Both alternate in one
process. Processor time is compared, since other programs on the machine disturb it less than wall
time. The files are in the page cache: the disk is not measured.

The first three rows have clips at the codec's rate already. In the others both sides average two
channels and resample from 44.1 kHz with soxr's default quality, as the stream does.
"""

import dataclasses
import itertools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cyclopts
import numpy as np
import soundfile
import soxr
import torch
import webdataset
from machine import describe

from unison_audio.data.records import ClipRecord
from unison_audio.data.stream import ClipStream, StreamConfig

RATE = 16_000
BAR = 0.80
FORMATS = ("wav", "flac", "mp3")


def sound(index: int, rate: int, channels: int, seconds: float) -> np.ndarray:
    """Something between speech and weather: harmonics that come and go over colored noise."""
    generator = np.random.default_rng(index)
    t = np.arange(round(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * k * (110 + index) * t) / k for k in range(1, 12))
    tone *= np.clip(np.sin(2 * np.pi * 1.7 * t), 0.0, 1.0)
    noise = generator.standard_normal((len(t) // 4 + 1, channels)).repeat(4, axis=0)[: len(t)]
    return 0.1 * tone[:, None] + 0.01 * noise


def write(folder: Path, suffix: str, rate: int, channels: int, clips: int, seconds: float) -> None:
    """Writes the clips as files, and as a corpus of one shard."""
    folder.mkdir()
    shard = folder / "clips-all-000000.tar"
    with webdataset.TarWriter(str(shard), mtime=0) as writer:
        for index in range(clips):
            path = folder / f"clip-{index:05d}.{suffix}"
            soundfile.write(path, sound(index, rate, channels, seconds), rate)
            record = ClipRecord(
                key=path.stem,
                kind="sound",
                split="train",
                seconds=seconds,
                licence="CC0-1.0",
                source=f"clips:{path.name}",
                label="a tone sounding",
                caption="A tone comes and goes over the noise of wind in the distance.",
                language="en",
                sample_rate=rate,
                channels=channels,
            )
            fields = json.dumps(dataclasses.asdict(record)).encode()
            writer.write({"__key__": path.stem, suffix: path.read_bytes(), "json": fields})
    index = {"format": 1, "corpus": "clips", "shards": [{"name": shard.name, "clips": clips}]}
    (folder / "index.json").write_text(json.dumps(index))


def processor_seconds(work: Callable[[], None]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(folder: Path, suffix: str, resampled: bool, repetitions: int) -> tuple[float, float]:
    """Median processor seconds a clip, plain and through the stream."""
    paths = sorted(folder.glob(f"*.{suffix}"))
    stream = ClipStream([folder], StreamConfig(sample_rate=RATE))

    def plain() -> None:
        for path in paths:
            samples, rate = soundfile.read(path, dtype="float32")
            if resampled:
                soxr.resample(samples.mean(axis=1), rate, RATE)

    def streamed() -> None:
        for _ in itertools.islice(stream, len(paths)):
            pass

    plain()
    streamed()
    times = [(processor_seconds(plain), processor_seconds(streamed)) for _ in range(repetitions)]
    return median(p for p, _ in times) / len(paths), median(s for _, s in times) / len(paths)


def main(clips: int = 100, seconds: float = 10.0, repetitions: int = 9) -> None:
    """Compares and prints a table.

    Args:
        clips: Files of each kind.
        seconds: Length of each.
        repetitions: How often they are read; the median counts.
    """
    torch.set_num_threads(1)
    print(describe())
    print(f"\n{clips} clips of {seconds:g} s each, {repetitions} repetitions; clips/s a core\n")
    print(f"| clips | soundfile alone | stream | ratio (bar {BAR:.0%}) |")
    print("|---|---|---|---|")
    missed = []
    with tempfile.TemporaryDirectory() as place:
        for rate, channels, what in ((RATE, 1, "16 kHz mono"), (44_100, 2, "44.1 kHz stereo")):
            for suffix in FORMATS:
                folder = Path(place, f"{suffix}-{rate}")
                write(folder, suffix, rate, channels, clips, seconds)
                plain, streamed = compare(folder, suffix, rate != RATE, repetitions)
                ratio = plain / streamed
                row = f"{suffix}, {what}" + (", to 16 kHz" if rate != RATE else "")
                print(f"| {row} | {1 / plain:.0f} | {1 / streamed:.0f} | {ratio:.0%} |", flush=True)
                missed += [row] if ratio < BAR else []
    if missed:
        raise SystemExit(f"below the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    cyclopts.run(main)

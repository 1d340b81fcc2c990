"""Small corpora of shards with the true layout, for the tests of streaming."""

import dataclasses
import io
import json

import numpy as np
import soundfile
import webdataset

from unison_audio.data.records import ClipRecord

RATE = 8000


def encode(samples, rate=RATE, suffix="flac", subtype=None):
    """Encodes (samples,) or (samples, channels)."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=suffix.upper())
    return file.getvalue()


def noise(key, seconds=0.05, rate=RATE):
    """Noise of its own for every key."""
    seed = [ord(letter) for letter in key]
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))


def sample(key, suffix="flac", content=None, seconds=0.05, **fields):
    """A clip as it lies in a shard; `json` replaces its record's bytes."""
    record = ClipRecord(
        **{
            "key": key,
            "kind": "sound",
            "split": "train",
            "seconds": seconds,
            "licence": "CC0-1.0",
            "source": f"test:{key}",
            "label": "a beep" if fields.get("kind", "sound") == "sound" else "",
            "sample_rate": RATE,
            **{name: value for name, value in fields.items() if name != "json"},
        }
    )
    content = encode(noise(key, seconds), suffix=suffix) if content is None else content
    told = fields.get("json", json.dumps(dataclasses.asdict(record)).encode())
    return {"__key__": key, suffix: content, "json": told}


def write_corpus(folder, shards, name="test", **entry):
    """Writes shards, lists of samples, and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, samples in enumerate(shards):
        path = folder / f"{name}-all-{number:06d}.tar"
        with webdataset.TarWriter(str(path), mtime=0) as writer:
            for one in samples:
                writer.write(one)
        entries.append({"name": path.name, "clips": len(samples), **entry})
    index = {"format": 1, "corpus": name, "shards": entries}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def numbered(shards, each, prefix="clip", **fields):
    """Shards of clips named by shard and place."""
    return [[sample(f"{prefix}-{s}-{i}", **fields) for i in range(each)] for s in range(shards)]


def keys(clips):
    """The clips' keys."""
    return [clip.record.key for clip in clips]

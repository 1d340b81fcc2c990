"""Reader of WenetSpeech."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unison_audio.data.corpora.source import NO_AUDIO, Rows, Skipped, SourceClip, Unit
from unison_audio.data.corpora.source_files import find, json_objects, read_range, relative

TRAIN, HELD_OUT = frozenset({"L", "M", "S"}), frozenset({"DEV", "TEST_NET", "TEST_MEETING"})
"""Subsets of confident labels: L holds M and S. Others (W, weak labels) are left out."""


def units(root: Path, rows: Rows) -> Iterator[Unit | Skipped]:
    """Lists the long recordings of WenetSpeech.

    Layout (github.com/wenet-e2e/WenetSpeech, its download scripts and toolkits; an excerpt stands
    in k2-fsa's tutorial next-gen-kaldi-wechat): ``WenetSpeech.json`` with an array ``audios`` of
    ``{aid, duration, md5, path, source, tags, url, segments}``, each segment of ``{sid,
    confidence, begin_time, end_time, subsets, text}``; ``path`` is from the JSON's folder, as in
    ``audio/train/youtube/B00000/Y0000000000_--5llN02F84.opus``. The JSON has gigabytes, so
    it is read as a stream, and a unit keeps the place of its entry.
    """
    del rows
    listing = find(root, ("WenetSpeech.json",), "fetch and unpack WenetSpeech there")
    name, size = relative(listing, root), listing.stat().st_size
    for offset, length, entry in json_objects(listing, "audios"):
        try:
            aid, path = str(entry["aid"]), str(entry["path"])
            duration = float(entry.get("duration") or 1.0)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            file = f"{name}:byte {offset}"
            yield Skipped(file=file, reason=f"its entry cannot be used ({error!r})", broken=True)
            continue
        where = {"json": name, "offset": offset, "length": length, "size": size}
        split = "train" if path.startswith("audio/train") else "heldout"
        yield Unit(key=aid, payload=where, split=split, weight=duration)


def clips(root: Path, payload: dict[str, Any], rows: Rows) -> Iterator[SourceClip | Skipped]:
    """Reads the segments of one long recording."""
    del rows
    # The plan stores the place of the entry: with the entries it would be as large as the listing.
    listing = root / payload["json"]
    where = (payload[name] for name in ("offset", "length", "size"))
    entry = json.loads(read_range(listing, *where))
    path = listing.parent / str(entry["path"])
    name = relative(path, root)
    segments = entry.get("segments")
    for segment in segments if isinstance(segments, list) else []:
        if path.is_file():
            yield _segment(path, name, segment)
        else:
            yield Skipped(file=name, reason=NO_AUDIO)


def _segment(path: Path, name: str, segment: Any) -> SourceClip | Skipped:
    try:
        key, subsets = str(segment["sid"]), set(segment["subsets"])
        start, end = float(segment["begin_time"]), float(segment["end_time"])
        text = str(segment["text"])
    except (KeyError, TypeError, ValueError) as error:
        reason = f"a segment's entry cannot be used ({error!r})"
        return Skipped(file=name, reason=reason, broken=True)
    if not subsets & (TRAIN | HELD_OUT):
        return Skipped(file=f"{name}#{key}", reason="weak label (confidence under 0.95)")
    return SourceClip(
        key=key,
        file=f"{name}#{key}",
        audio=path,
        kind="speech",
        split="heldout" if subsets & HELD_OUT else "train",
        text=text,
        language="zh",
        start=start,
        end=end,
    )

"""Readers of AudioSet, VGGSound and AudioCaps: tables of YouTube clips, audio beside them.

The authors publish tables only, and everyone downloads the audio for themselves. So audio is found
by its name, in any folders and archives under the root. Known names, all with the eleven
characters of the video: ``{id}.flac`` (huggingface.co/datasets/agkphysics/AudioSet, in tars or
unpacked), ``Y{id}.wav`` (PANNs, huggingface.co/datasets/confit/audioset),
``{id}_{start}-{end}.wav`` (github.com/MorenoLaQuatra/audioset-download), ``{id}_{start:06d}.mp4``
(VGGSound, also in ``vggsound_00.tar.gz`` of huggingface.co/datasets/Loie/VGGSound),
``{id}_{start}.flac`` (github.com/Labbeti/aac-datasets) and ``{audiocap_id}.wav``
(github.com/MorenoLaQuatra/audiocaps-download). A file whose name has no start may be the whole
video: if it is longer than the clip, the clip is cut out of it.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from unison_audio.data.corpora.source import DUPLICATE, NO_LABEL, Rows, Skipped, SourceClip, Unit
from unison_audio.data.corpora.source_files import (
    TAR_SUFFIXES,
    find,
    is_audio,
    load_json,
    named_rows,
    read_tar,
    relative,
    table_rows,
    walk,
)
from unison_audio.errors import InputError

CLIP_SECONDS = 10.0
"""Length of a clip in VGGSound and AudioCaps, and of most in AudioSet."""

LONGER = 1.5
"""A file that has so many seconds more than its clip is the whole video."""

_TAR_BYTES_PER_CLIP = 1.5e6

# Characters of an id are also separators in file names, so exactly eleven are taken.
_ID = re.compile(r"[\w-]{11}(?=$|[._ -])", re.ASCII)

_START = re.compile(r"^[._ -](\d+(?:\.\d+)?)(?!\d)")

AUDIOSET_SEGMENTS = {
    "balanced_train_segments.csv": "train",
    "unbalanced_train_segments.csv": "train",
    "eval_segments.csv": "heldout",
}

AUDIOCAPS_TABLES = {"train.csv": "train", "val.csv": "heldout", "test.csv": "heldout"}


def audioset_units(root: Path, rows: Rows) -> Iterator[Unit | Skipped]:
    """Lists the audio of AudioSet.

    Layout (research.google.com/audioset/download.html): the segments' tables begin with three
    lines after ``#`` and have rows ``--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"``;
    ``class_labels_indices.csv`` (index, mid, display_name) or ``ontology.json`` (a list of {id,
    name, ...}) names the labels. The labels, in lower case with commas, are the caption.
    """
    labels = _audioset_labels(root)
    seen = 0
    for path in walk(root, lambda name: name in AUDIOSET_SEGMENTS):
        split = AUDIOSET_SEGMENTS[path.name]
        for number, row in enumerate(table_rows(path), 1):
            if row[0].startswith("#"):
                continue
            try:
                video, start, end, mids = row[0].strip(), float(row[1]), float(row[2]), row[3]
            except (IndexError, ValueError):
                yield _bad_row(path, root, number)
                continue
            names = [labels.get(mid, "").lower() for mid in mids.split(",")]
            caption = ", ".join(name for name in names if name)
            rows.put(video, [video, start, end, caption, split])
            seen += 1
    if not seen:
        raise InputError(
            f"There is no row in any of {', '.join(AUDIOSET_SEGMENTS)} under {root}; fetch the "
            "tables of AudioSet there"
        )
    yield from _audio_units(root, rows)


def _audioset_labels(root: Path) -> dict[str, str]:
    names = ("class_labels_indices.csv", "ontology.json")
    path = find(root, names, "fetch the names of AudioSet's labels there")
    if path.suffix == ".json":
        return {entry["id"]: entry["name"] for entry in load_json(path)}
    columns = ("mid", "display_name")
    return {row["mid"]: row["display_name"] for row in named_rows(path, columns)}


def vggsound_units(root: Path, rows: Rows) -> Iterator[Unit | Skipped]:
    """Lists the audio of VGGSound.

    Layout (github.com/hche11/VGGSound, huggingface.co/datasets/Loie/VGGSound): ``vggsound.csv``
    has no header and rows of YouTube id, start second, label and ``train`` or ``test``.
    """
    table = find(root, ("vggsound.csv",), "fetch the table of VGGSound there")
    for number, row in enumerate(table_rows(table), 1):
        try:
            video, start, label = row[0].strip(), float(row[1]), row[2].strip()
            split = {"train": "train", "test": "heldout"}[row[3].strip()]
        except (IndexError, ValueError, KeyError):
            yield _bad_row(table, root, number)
            continue
        key = f"{video}_{int(start):06d}"
        rows.put(video, [key, start, start + CLIP_SECONDS, label, split])
    yield from _audio_units(root, rows)


def audiocaps_units(root: Path, rows: Rows) -> Iterator[Unit | Skipped]:
    """Lists the audio of AudioCaps or AudioCaps 2.0.

    Layout (github.com/cdjkim/audiocaps, dataset/README.md): ``train.csv``, ``val.csv`` and
    ``test.csv`` with audiocap_id, youtube_id, start_time and caption; clips last 10 s. A clip of
    val and test has five captions, hence five rows, and becomes five clips.
    """
    columns = ("audiocap_id", "youtube_id", "start_time", "caption")
    seen = 0
    for path in walk(root, lambda name: name in AUDIOCAPS_TABLES):
        split = AUDIOCAPS_TABLES[path.name]
        for number, row in enumerate(named_rows(path, columns), 2):
            try:
                name, video, start = row["audiocap_id"], row["youtube_id"], float(row["start_time"])
                entry = [name, start, start + CLIP_SECONDS, row["caption"], split]
            except (KeyError, ValueError):
                yield _bad_row(path, root, number)
                continue
            rows.put(video, entry)
            rows.put(f"#{name}", entry)  # some downloads are named by AudioCaps' own number
            seen += 1
    if not seen:
        raise InputError(
            f"There is no row in any of {', '.join(AUDIOCAPS_TABLES)} under {root}; fetch the "
            "tables of AudioCaps there"
        )
    yield from _audio_units(root, rows)


def _bad_row(path: Path, root: Path, number: int) -> Skipped:
    file = f"{relative(path, root)}:{number}"
    return Skipped(file=file, reason="a row that cannot be used", broken=True)


def _audio_units(root: Path, rows: Rows) -> Iterator[Unit | Skipped]:
    for path in walk(root, lambda name: is_audio(name) or name.endswith(TAR_SUFFIXES)):
        file = relative(path, root)
        if file.endswith(TAR_SUFFIXES):
            clips = max(1.0, path.stat().st_size / _TAR_BYTES_PER_CLIP)
            yield Unit(key=file, payload={"tar": file}, weight=clips)
            continue
        found, bare = match(path.stem, rows)
        for row in found:
            payload = {"file": file, "row": row, "bare": bare}
            # Archives are read later, by other processes: the plan tells them what is unpacked.
            rows.put(f"@{row[0]}", [])
            yield Unit(key=row[0], payload=payload, split=row[4])
        if not found:
            yield Skipped(file=file, reason=NO_LABEL)


def match(stem: str, rows: Rows) -> tuple[list[list[Any]], bool]:
    """Finds the rows that a file's name stands for.

    Args:
        stem: The name without folder and suffix.
        rows: By video, and by ``#`` and AudioCaps' number.

    Returns:
        (the rows, whether the name lacks the start).
    """
    if stem.isdigit() and (found := rows.get(f"#{stem}")):
        return found, False
    for name in (stem, stem.removeprefix("Y")):
        if (video := _ID.match(name)) and (found := rows.get(video[0])):
            # The start decides only between several clips of a video: files are named after
            # rounded, truncated or missing seconds.
            start = _START.match(name[11:])
            if start and len({row[1] for row in found}) > 1:
                seconds = float(start[1])
                found = [row for row in found if abs(row[1] - seconds) < 1.0]
            return found, start is None
    return [], False


def clips(root: Path, payload: dict[str, Any], rows: Rows) -> Iterator[SourceClip | Skipped]:
    """Reads a file, or the files of an archive that are in the tables."""
    if "file" in payload:
        file, row = payload["file"], payload["row"]
        yield _clip(file, root / file, row, payload["bare"])
        return
    for member in read_tar(root / payload["tar"], root):
        if isinstance(member, Skipped):
            yield member
            continue
        name, read = member
        if not is_audio(name):
            continue
        found, bare = match(PurePosixPath(name).stem, rows)
        file = f"{payload['tar']}!{name}"
        # AudioCaps has five captions for a recording, and a member can be read only once.
        content = read if len(found) < 2 else _once(read)
        for row in found:
            unpacked = rows.get(f"@{row[0]}")
            yield (
                Skipped(file=file, reason=DUPLICATE)
                if unpacked
                else _clip(file, content, row, bare)
            )
        if not found:
            yield Skipped(file=file, reason=NO_LABEL)


def _once(read: Callable[[], bytes]) -> Callable[[], bytes]:
    content = read()
    return lambda: content


def _clip(file: str, audio: Path | Callable[[], bytes], row: list[Any], bare: bool) -> SourceClip:
    key, start, end, caption, split = row
    return SourceClip(
        key=key,
        file=file,
        audio=audio,
        kind="sound",
        split=split,
        caption=caption,
        language="en",
        start=start if bare else None,
        end=end if bare else None,
        cut_over=end - start + LONGER,
    )

"""Reader of LibriTTS and LibriTTS-R."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unison_audio.data.corpora.source import Rows, Skipped, SourceClip, Unit
from unison_audio.data.corpora.source_files import relative, walk
from unison_audio.errors import InputError

_GENDERS = {"F": "female", "M": "male"}


def units(root: Path, rows: Rows) -> Iterator[Unit | Skipped]:
    """Lists the utterances of LibriTTS (or LibriTTS-R) as it unpacks.

    Layout (OpenSLR 60, its README_libritts.txt; also in the readers of lhotse and TensorFlow
    Datasets): ``LibriTTS/{subset}/{speaker}/{chapter}/{utterance}.wav`` beside
    ``{utterance}.normalized.txt`` and ``.original.txt``; ``SPEAKERS.txt`` has
    ``id | F or M | subset | minutes | name`` with comments after ``;``, ``speakers.tsv`` has
    ``READER GENDER SUBSET NAME``. The speakers of the dev and test subsets are in no other one.
    """
    # Downloads have one of the tables or both; the first entry of a speaker counts.
    for table in ("SPEAKERS.txt", "speakers.tsv"):
        for path in walk(root, lambda name, table=table: name == table):  # type: ignore[misc]
            for speaker, gender in _genders(path):
                rows.put(speaker, [gender])
    found = False
    for path in walk(root, lambda name: name.endswith(".wav")):
        found, file = True, relative(path, root)
        subset, speaker = (*[""] * 4, *path.parts)[-4:-2]
        split = "train" if subset.startswith("train") else "speakers"
        yield Unit(
            key=path.stem, payload={"file": file, "speaker": speaker, "split": split}, split=split
        )
    if not found:
        raise InputError(
            f"There is no LibriTTS/(subset)/(speaker)/(chapter)/*.wav under {root}; unpack "
            "train-clean-100.tar.gz and the others there"
        )


def _genders(path: Path) -> Iterator[tuple[str, str]]:
    separator = "|" if path.suffix == ".txt" else "\t"
    for line in path.read_text("utf-8", "replace").splitlines():
        fields = [field.strip() for field in line.split(separator)]
        if len(fields) >= 2 and fields[0].isdigit() and fields[1] in _GENDERS:
            yield fields[0], _GENDERS[fields[1]]


def clips(root: Path, payload: dict[str, Any], rows: Rows) -> Iterator[SourceClip | Skipped]:
    """Reads one utterance with its normalized text."""
    path = root / payload["file"]
    words = path.with_suffix(".normalized.txt")
    if not words.is_file():
        yield Skipped(file=payload["file"], reason="no .normalized.txt beside it")
        return
    known = rows.get(payload["speaker"])
    yield SourceClip(
        key=path.stem,
        file=payload["file"],
        audio=path,
        kind="speech",
        split=payload["split"],
        text=words.read_bytes().decode("utf-8", "surrogateescape"),
        speaker=f"libritts-{payload['speaker']}",
        gender=known[0][0] if known else "",
        language="en",
    )

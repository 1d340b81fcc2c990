"""Readers of LibriTTS and Emilia."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from unison_audio.data.corpora.source import Rows, Skipped, SourceClip, Unit
from unison_audio.data.corpora.source_files import (
    ARCHIVE_ERRORS,
    is_audio,
    read_tar,
    relative,
    walk,
)
from unison_audio.errors import InputError

_GENDERS = {"F": "female", "M": "male"}

HELD_OUT_SHARE = 200
"""One of so many speakers of Emilia is held out; its publishers divide nothing off."""


def libritts_units(root: Path, rows: Rows) -> Iterator[Unit | Skipped]:
    """Lists the utterances of LibriTTS (or LibriTTS-R) as it unpacks.

    Layout (OpenSLR 60, its README_libritts.txt; also in the readers of lhotse and TensorFlow
    Datasets): ``LibriTTS/{subset}/{speaker}/{chapter}/{utterance}.wav`` beside
    ``{utterance}.normalized.txt`` and ``.original.txt``; ``SPEAKERS.txt`` has
    ``id | F or M | subset | minutes | name`` with comments after ``;``, ``speakers.tsv`` has
    ``READER GENDER SUBSET NAME``. The speakers of the dev and test subsets are in no other one.
    """
    for table in ("SPEAKERS.txt", "speakers.tsv"):
        for path in walk(root, lambda name, table=table: name == table):  # type: ignore[misc]
            for speaker, gender in _libritts_genders(path):
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


def _libritts_genders(path: Path) -> Iterator[tuple[str, str]]:
    separator = "|" if path.suffix == ".txt" else "\t"
    for line in path.read_text("utf-8", "replace").splitlines():
        fields = [field.strip() for field in line.split(separator)]
        if len(fields) >= 2 and fields[0].isdigit() and fields[1] in _GENDERS:
            yield fields[0], _GENDERS[fields[1]]


def libritts_clips(
    root: Path, payload: dict[str, Any], rows: Rows
) -> Iterator[SourceClip | Skipped]:
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


def emilia_units(language: str) -> Callable[[Path, Rows], Iterator[Unit | Skipped]]:
    """Makes the lister of Emilia's archives in one language.

    Layout (huggingface.co/datasets/amphion/Emilia-Dataset): WebDataset archives
    ``Emilia/EN/EN-B000000.tar`` (once ``EN/EN-B000000.tar``) with flat pairs
    ``EN_B00000_S00000_W000000.mp3`` and ``.json``; the JSON has ``id`` (``_id`` in Emilia-YODAS),
    ``text``, ``duration``, ``speaker``, ``language``, ``dnsmos``. ``Emilia-YODAS/EN`` beside it has
    archives of the same names: the root says whether they are read, too. The older layout, a folder
    ``EN_B00000/EN_B00000_S00000/mp3`` with ``EN_B00000.jsonl``, can be read as ``folder``.

    Some speakers are held out (`is_held_out`), in shards of their own: an archive is two units.

    Args:
        language: ``en`` or ``zh``.
    """
    prefix = f"{language.upper()}-B"

    def units(root: Path, rows: Rows) -> Iterator[Unit | Skipped]:
        del rows
        found = False
        for path in walk(root, lambda name: name.startswith(prefix) and name.endswith(".tar")):
            found = True
            file, size = relative(path, root), float(path.stat().st_size)
            for split, weight in (("train", size), ("speakers", size / HELD_OUT_SHARE)):
                payload = {"tar": file, "split": split}
                yield Unit(key=f"{file} {split}", payload=payload, split=split, weight=weight)
        if not found:
            raise InputError(
                f"There is no {prefix}*.tar under {root}; fetch the folder "
                f"Emilia/{language.upper()} of the data set amphion/Emilia-Dataset"
            )

    return units


def is_held_out(speaker: str) -> bool:
    """Whether an Emilia speaker is held out: a matter of the name alone, hence always the same."""
    digest = hashlib.sha256(speaker.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE == 0


def emilia_clips(root: Path, payload: dict[str, Any], rows: Rows) -> Iterator[SourceClip | Skipped]:
    """Reads the pairs of one archive that are of one split; problems count with the training's."""
    del rows
    for clip in _emilia_pairs(root, payload):
        if payload["split"] == (clip.split if isinstance(clip, SourceClip) else "train"):
            yield clip


def _emilia_pairs(root: Path, payload: dict[str, Any]) -> Iterator[SourceClip | Skipped]:
    """Reads the pairs of one archive, whichever of the two comes first."""
    stem, suffix = "", ""
    audio: bytes | Callable[[], bytes] | None = None
    about: bytes | None = None
    for member in read_tar(root / payload["tar"], root):
        if isinstance(member, Skipped):
            yield member
            continue
        name, read = member
        file = PurePosixPath(name)
        if file.stem != stem:
            if stem and (audio is None) != (about is None):
                yield _half(payload["tar"], stem, "json" if about is None else "audio")
            stem, audio, about = file.stem, None, None
        try:
            if is_audio(name):
                # Where the JSON comes first, as it does, the audio need not be read to skip it.
                audio, suffix = read if about is not None else read(), file.suffix
            elif file.suffix == ".json":
                about = read()
        except ARCHIVE_ERRORS as error:
            reason = f"cannot be read from the archive ({error})"
            yield Skipped(file=f"{payload['tar']}!{name}", reason=reason, broken=True)
            stem = ""
            continue
        if audio is not None and about is not None:
            yield _emilia_clip(f"{payload['tar']}!{stem}{suffix}", stem, audio, about)
    if stem and (audio is None) != (about is None):
        yield _half(payload["tar"], stem, "json" if about is None else "audio")


def _half(archive: str, stem: str, missing: str) -> Skipped:
    return Skipped(file=f"{archive}!{stem}", reason=f"no {missing} beside it", broken=True)


def _emilia_clip(
    file: str, stem: str, audio: bytes | Callable[[], bytes], about: bytes
) -> SourceClip | Skipped:
    try:
        fields = json.loads(about.decode("utf-8", "surrogateescape"))
        text, speaker = fields["text"], fields.get("speaker") or ""
        seconds = float(fields["duration"]) if fields.get("duration") is not None else None
        if not isinstance(text, str) or not isinstance(speaker, str):
            raise TypeError("text and speaker must be strings")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Skipped(file=file, reason=f"its JSON cannot be used ({error!r})", broken=True)
    return SourceClip(
        key=stem,
        file=file,
        audio=(lambda: audio) if isinstance(audio, bytes) else audio,
        kind="speech",
        split="speakers" if is_held_out(speaker or stem) else "train",
        text=text,
        speaker=speaker,
        language=str(fields.get("language") or ""),
        seconds=seconds,
    )

"""Reader of Emilia and Emilia-YODAS."""

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

HELD_OUT_SHARE = 200
"""One speaker in so many is held out, since Emilia has no test set of its own."""


def units_of(language: str) -> Callable[[Path, Rows], Iterator[Unit | Skipped]]:
    """Makes the function that lists the archives of one language.

    Layout (huggingface.co/datasets/amphion/Emilia-Dataset): WebDataset archives
    ``Emilia/EN/EN-B000000.tar`` (once ``EN/EN-B000000.tar``) with flat pairs
    ``EN_B00000_S00000_W000000.mp3`` and ``.json``; the JSON has ``id`` (``_id`` in Emilia-YODAS),
    ``text``, ``duration``, ``speaker``, ``language``, ``dnsmos``. ``Emilia-YODAS/EN`` beside it has
    archives of the same names: the root decides whether they are read, too. The older layout, a
    folder ``EN_B00000/EN_B00000_S00000/mp3`` with ``EN_B00000.jsonl``, can be read as ``folder``.

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
                # Two passes over an archive cost less than mixed shards: training would have to
                # read and drop the held-out clips in every epoch.
                payload = {"tar": file, "split": split}
                yield Unit(key=f"{file} {split}", payload=payload, split=split, weight=weight)
        if not found:
            raise InputError(
                f"There is no {prefix}*.tar under {root}; fetch the folder "
                f"Emilia/{language.upper()} of the data set amphion/Emilia-Dataset"
            )

    return units


def is_held_out(speaker: str) -> bool:
    """Whether a speaker is held out.

    The name alone decides, so that every archive agrees and an archive more changes nothing.
    """
    digest = hashlib.sha256(speaker.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE == 0


def clips(root: Path, payload: dict[str, Any], rows: Rows) -> Iterator[SourceClip | Skipped]:
    """Reads the clips of one archive that are of one split; faults count with ``train``."""
    del rows
    for clip in _pairs(root, payload):
        if payload["split"] == (clip.split if isinstance(clip, SourceClip) else "train"):
            yield clip


def _pairs(root: Path, payload: dict[str, Any]) -> Iterator[SourceClip | Skipped]:
    """Reads the pairs of one archive, whichever of the two comes first."""
    stem, suffix = "", ""
    audio: bytes | Callable[[], bytes] | None = None
    about: bytes | None = None
    # The halves of a pair are neighbors. To look for the other half anywhere would need the whole
    # archive in memory.
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
                # Once the JSON is known, as in the published order, skipped audio is not read.
                audio, suffix = read if about is not None else read(), file.suffix
            elif file.suffix == ".json":
                about = read()
        except ARCHIVE_ERRORS as error:
            reason = f"cannot be read from the archive ({error})"
            yield Skipped(file=f"{payload['tar']}!{name}", reason=reason, broken=True)
            stem = ""
            continue
        if audio is not None and about is not None:
            yield _clip(f"{payload['tar']}!{stem}{suffix}", stem, audio, about)
    if stem and (audio is None) != (about is None):
        yield _half(payload["tar"], stem, "json" if about is None else "audio")


def _half(archive: str, stem: str, missing: str) -> Skipped:
    return Skipped(file=f"{archive}!{stem}", reason=f"no {missing} beside it", broken=True)


def _clip(
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

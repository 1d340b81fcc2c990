"""Reader of WavCaps."""

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipInfo

from unison_audio.data.corpora.source import NO_AUDIO, Rows, Skipped, SourceClip, Unit
from unison_audio.data.corpora.source_files import json_objects, load_json, open_zip, relative, walk
from unison_audio.errors import InputError

LISTS = {
    "as_final.json": "AudioSet_SL",
    "bbc_final.json": "BBC_Sound_Effects",
    "fsd_final.json": "FreeSound",
    "sb_final.json": "SoundBible",
}
"""File of captions -> source; also the name of the source's folder and archive."""

HELD_OUT = "blacklist_exclude_test_ac.json"
"""WavCaps' own list of clips that are in the test sets of AudioCaps and Clotho."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")


def units(root: Path, rows: Rows) -> Iterator[Unit | Skipped]:
    """Lists the captioned clips of WavCaps.

    Layout (huggingface.co/datasets/cvssp/WavCaps; github.com/XinhaoMei/WavCaps has some of the
    lists): ``json_files/{source}/{list}.json`` with ``{"data": [{"id", "caption", "duration",
    ...}]}`` or the bare list; ids of AudioSet_SL end in ``.wav``. ``Zip_files/{source}`` has FLAC
    files of 32 kHz named ``{id}.flac``, in a folder ``{source}_flac`` many folders deep, as zips of
    several volumes that must be joined first. Unpacked, the folder may be anywhere under the root,
    also under the plain name of the source. Clips on WavCaps' list of test clips are held out.
    """
    del rows
    lists = list(walk(root, lambda name: name in LISTS))
    if not lists:
        raise InputError(
            f"There is no {', '.join(LISTS)} under {root}; fetch json_files of the data set "
            "cvssp/WavCaps there"
        )
    # Without this list, clips of the test sets of AudioCaps and Clotho would be trained on.
    held_out = _held_out(root)
    for path in lists:
        source = LISTS[path.name]
        find_audio = _audio_finder(root, source)
        for offset, _, entry in json_objects(path, _array(path)):
            try:
                name = str(entry["id"]).removesuffix(".wav")
                caption, seconds = str(entry["caption"]), entry.get("duration")
                seconds = None if seconds is None else float(seconds)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                file = f"{relative(path, root)}:byte {offset}"
                reason = f"its entry cannot be used ({error!r})"
                yield Skipped(file=file, reason=reason, broken=True)
                continue
            audio = find_audio(name)
            if audio is None:
                yield Skipped(file=f"{source}/{name}.flac", reason=NO_AUDIO)
                continue
            split = "heldout" if (source, name) in held_out else "train"
            about = {"caption": caption, "seconds": seconds, "split": split}
            key = f"{source}-{name}"
            yield Unit(key=key, payload={"key": key, **audio, **about}, split=split)


def _array(path: Path) -> str:
    with path.open("rb") as file:
        return "" if file.read(64).lstrip().startswith(b"[") else "data"


def _held_out(root: Path) -> set[tuple[str, str]]:
    clips = set()
    for path in walk(root, lambda name: name == HELD_OUT):
        for source, names in load_json(path).items():
            source = "AudioSet_SL" if source == "AudioSet" else source
            clips |= {(source, str(name).removesuffix(".wav")) for name in names}
    return clips


def _audio_finder(root: Path, source: str) -> Callable[[str], dict[str, Any] | None]:
    """Makes the function that finds the audio of a source's clips, in its folder or in a zip."""
    folders = {f"{source}_flac", source}
    for path in walk(root, lambda name: name.endswith(".flac")):
        if path.parent.name in folders:
            folder = path.parent
            prefix = relative(folder, root)
            return lambda name: (
                {"file": f"{prefix}/{name}.flac"} if (folder / f"{name}.flac").is_file() else None
            )
    members: dict[str, tuple[str, ZipInfo]] = {}
    archives = list(walk(root, lambda name: name.endswith(".zip")))
    whole = [path for path in archives if not path.with_suffix(".z01").exists()]
    for path in whole:
        for member in open_zip(path).infolist():
            inside = PurePosixPath(member.filename)
            if inside.suffix == ".flac" and inside.parent.name in folders:
                members[inside.stem] = (relative(path, root), member)
    if not members and (volumes := [path for path in archives if source in path.name]):
        open_zip(volumes[0])  # raises the error that says how to join volumes

    def find_member(name: str) -> dict[str, Any] | None:
        if name not in members:
            return None
        archive, member = members[name]
        # With its place, a worker need not read the archive's whole directory.
        return {
            "zip": archive,
            "member": member.filename,
            "offset": member.header_offset,
            "size": member.compress_size,
            "method": member.compress_type,
            "crc": member.CRC,
        }

    return find_member


def clips(root: Path, payload: dict[str, Any], rows: Rows) -> Iterator[SourceClip | Skipped]:
    """Reads one clip."""
    del rows
    in_zip = "zip" in payload
    yield SourceClip(
        key=payload["key"],
        file=f"{payload['zip']}!{payload['member']}" if in_zip else payload["file"],
        audio=(lambda: _read_member(root, payload)) if in_zip else root / payload["file"],
        kind="sound",
        split=payload["split"],
        caption=payload["caption"],
        language="en",
        seconds=payload["seconds"],
    )


def _read_member(root: Path, payload: dict[str, Any]) -> bytes:
    # Not zipfile: it would read the directory of 262,000 members in every process.
    with (root / payload["zip"]).open("rb") as file:
        file.seek(payload["offset"])
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\3\4":
            raise BadZipFile("no member where the archive says")
        _, name, extra = _LOCAL_HEADER.unpack(header)
        file.seek(name + extra, 1)
        content = file.read(payload["size"])
    if payload["method"] == ZIP_DEFLATED:
        content = zlib.decompress(content, -zlib.MAX_WBITS)
    elif payload["method"] != ZIP_STORED:
        raise BadZipFile(f"compression method {payload['method']}")
    if zlib.crc32(content) != payload["crc"]:
        raise BadZipFile("wrong checksum")
    return content

"""Reading recordings that Debian packages keep inside containers of their own."""

import gzip
import io
import struct
import zipfile
from collections.abc import Callable, Container, Iterator
from pathlib import Path

_C4_HEADER, _C4_ENTRY = 204, 316


def read_zip(path: Path, wanted: Container[str]) -> Iterator[tuple[str, bytes]]:
    """Reads a zip archive (``.zip``, ``.pk3``)."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name in wanted:
                yield name, archive.read(name)


def read_openttd(path: Path, wanted: Container[str]) -> Iterator[tuple[str, bytes]]:
    """Reads an OpenTTD sound set (``.cat``); its members are named by their number."""
    data = path.read_bytes()
    count = (struct.unpack_from("<I", data)[0] & 0x7FFFFFFF) // 8
    for index in range(count):
        offset = struct.unpack_from("<I", data, 8 * index)[0] & 0x7FFFFFFF
        size = struct.unpack_from("<I", data, 8 * index + 4)[0]
        start = offset + 1 + data[offset]  # one byte of length, then the name
        riff = data.find(b"RIFF", start, start + 16)
        if riff >= 0 and str(index) in wanted:
            yield str(index), data[riff : riff + size]


def read_c4group(path: Path, wanted: Container[str]) -> Iterator[tuple[str, bytes]]:
    """Reads an OpenClonk group (``.ocg``, ``.ocd``), with the groups inside it."""
    data = path.read_bytes()
    with gzip.GzipFile(fileobj=io.BytesIO(b"\x1f\x8b" + data[2:])) as stream:
        members = _c4_members(stream.read(), "")
        yield from ((name, content) for name, content in members if name in wanted)


def _c4_members(data: bytes, prefix: str) -> Iterator[tuple[str, bytes]]:
    header = bytearray(byte ^ 237 for byte in data[:_C4_HEADER])
    for i in range(0, _C4_HEADER - 2, 3):
        header[i], header[i + 2] = header[i + 2], header[i]
    count = struct.unpack_from("<i", header, 36)[0]
    start = _C4_HEADER + count * _C4_ENTRY
    for index in range(count):
        entry = data[_C4_HEADER + index * _C4_ENTRY :][:_C4_ENTRY]
        name = entry[:260].split(b"\0")[0].decode("latin-1")
        _, child, size, _, offset = struct.unpack_from("<5i", entry, 260)
        body = data[start + offset : start + offset + size]
        if child:
            yield from _c4_members(body, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", body


READERS: dict[str, Callable[[Path, Container[str]], Iterator[tuple[str, bytes]]]] = {
    ".zip": read_zip,
    ".pk3": read_zip,
    ".cat": read_openttd,
    ".ocg": read_c4group,
    ".ocd": read_c4group,
}
"""Container readers by file suffix: (path, wanted names) -> (name, content) pairs."""

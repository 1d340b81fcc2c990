"""Fetches Debian packages and reads single recordings out of them."""

import gzip
import io
import shutil
import struct
import subprocess
import tarfile
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path, PurePosixPath

from unison_audio.errors import InputError

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
    # A gzip stream whose two magic bytes are others.
    data = path.read_bytes()
    with gzip.GzipFile(fileobj=io.BytesIO(b"\x1f\x8b" + data[2:])) as stream:
        members = _c4_members(stream.read(), "")
        yield from ((name, content) for name, content in members if name in wanted)


def _c4_members(data: bytes, prefix: str) -> Iterator[tuple[str, bytes]]:
    # The format of Clonk's groups: the header is XORed with 237, and of every three bytes the first
    # and the third are swapped.
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
"""File suffix of a container -> its reader: (path, wanted names) -> (name, content) pairs."""


def require_apt(package: str, folder: Path) -> None:
    """Checks that a package is in the folder, or that the programs which download it are there.

    Raises:
        InputError: If neither is so.
    """
    if any(folder.glob(f"{package}_*.deb")):
        return
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise InputError(
                f"The program {program} is missing, and the recordings of {package} come from a "
                f"Debian package; put {package}_*.deb into {folder} or run this on Debian"
            )


def fetch(package: str, folder: Path) -> Path:
    """Downloads a package with apt, unless the folder holds it already.

    Args:
        package: Name of the Debian package.
        folder: Folder of the `.deb` files.

    Returns:
        Path of the `.deb` file.

    Raises:
        InputError: If apt is missing or cannot download the package.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob(f"{package}_*.deb"))
    if found:
        return found[-1]
    require_apt(package, folder)
    # apt writes under the final name from the first byte on. In a folder of its own, a partial
    # download is not mistaken for a package.
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package]
        run = subprocess.run(command, cwd=fresh, capture_output=True, text=True)
        downloaded = sorted(Path(fresh).glob("*.deb"))
        if run.returncode or not downloaded:
            reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise InputError(
                f"The Debian package {package} cannot be downloaded ({reason}); run "
                f"'apt-get update' first, or put {package}_*.deb into {folder}"
            )
        return downloaded[0].rename(folder / downloaded[0].name)


def read_members(deb: Path, paths: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Reads members of a package without unpacking the rest.

    Args:
        deb: The ``.deb`` file.
        paths: Paths inside it; ``container#member`` reaches into a container of ``READERS``.

    Yields:
        (path, content) in the package's order; missing paths are left out.
    """
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for path in paths:
        outer, _, inner = path.partition("#")
        wanted[outer].add(inner)
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for entry in archive:
            name = entry.name.removeprefix("./")
            members = wanted.get(name)
            content = archive.extractfile(entry) if members and entry.isfile() else None
            if members is None or content is None:
                continue
            if members == {""}:
                yield name, content.read()
                continue
            suffix = PurePosixPath(name).suffix
            # The container readers seek, which the pipe of the package cannot do.
            with tempfile.NamedTemporaryFile(suffix=suffix) as container:
                shutil.copyfileobj(content, container)
                container.flush()
                for member, data in READERS[suffix](Path(container.name), members):
                    yield f"{name}#{member}", data

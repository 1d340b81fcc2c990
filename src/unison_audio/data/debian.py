"""Recordings out of Debian packages: fetching, and reading single members."""

import shutil
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from unison_audio.data.containers import READERS
from unison_audio.errors import InputError


def fetch(package: str, folder: Path) -> Path:
    """Downloads a package with apt, unless the folder holds it already.

    Args:
        package: Debian package name.
        folder: Where ``.deb`` files are kept.

    Returns:
        The path of the ``.deb`` file.

    Raises:
        InputError: If apt is missing or cannot deliver the package.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob(f"{package}_*.deb"))
    if found:
        return found[-1]
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise InputError(
                f"The program {program} is missing, and the recordings of {package} come from a "
                f"Debian package; put {package}_*.deb into {folder} or run this on Debian"
            )
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
        (path, content) in the package's order; a path that is not there is left out.
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
            with tempfile.NamedTemporaryFile(suffix=suffix) as container:
                shutil.copyfileobj(content, container)
                container.flush()
                for member, data in READERS[suffix](Path(container.name), members):
                    yield f"{name}#{member}", data

"""What judges said of files, kept on disk under what it depends on."""

import dataclasses
import hashlib
import json
import secrets
from functools import lru_cache
from pathlib import Path

import numpy as np

from unison_audio.evaluation.benchmark import Sample

NAMES_ONLY = ("id", "set", "source", "target", "reference")
"""Fields of an item on which no description depends: names and paths."""


def sample_key(sample: Sample, described_as: str, version: int, identity: str) -> str:
    """Names what a description depends on.

    Args:
        sample: What is described: its output, target, source and reference, by their contents,
            and what the item says.
        described_as: What is described.
        version: Of the computation that describes it, `Metric.version`.
        identity: The model that describes.

    Returns:
        A sha256 in hexadecimal.

    Raises:
        OSError: If a file cannot be read.
    """
    said = dataclasses.asdict(sample.item)
    about = {
        "described_as": described_as,
        "version": version,
        "model": identity,
        "item": {name: value for name, value in said.items() if name not in NAMES_ONLY},
        "files": {
            name: digest(path) if path is not None else ""
            for name in ("output", "target", "source", "reference")
            for path in [getattr(sample, name, None)]
        },
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def digest(path: Path) -> str:
    """Sha256 of a file in hexadecimal.

    Raises:
        OSError: If it cannot be read.
    """
    seen = path.stat()
    return _digest(str(path.resolve()), seen.st_size, seen.st_mtime_ns, seen.st_ino)


@lru_cache(maxsize=1 << 16)
def _digest(path: str, size: int, modified: int, inode: int) -> str:
    """Hashes a file once as long as it stays as it is."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FeatureCache:
    """Arrays by key in a folder that several processes may share.

    An array appears whole or not at all; one that was damaged later counts as missing.

    Args:
        folder: Where; made when the first array is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str) -> np.ndarray | None:
        """The array of a key; None where there is none."""
        try:
            with self._place(key).open("rb") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
                return array if not file.read(1) else None
        except (OSError, ValueError, EOFError):
            return None

    def write(self, key: str, array: np.ndarray) -> None:
        """Keeps an array.

        Raises:
            OSError: If it cannot be written.
        """
        place = self._place(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{key}.{secrets.token_hex(4)}.partial")
        try:
            with partial.open("wb") as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)

    def _place(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

"""The one cache of the evaluation: features by a key that names all that they depend on."""

import dataclasses
import hashlib
import io
import json
from pathlib import Path

import numpy as np

from unison_audio.evaluation.test_sets.manifest import EvaluationSample
from unison_audio.files import file_hash, write_whole

NAMES_ONLY = ("id", "set", "source", "target", "reference")
"""Fields of an item that hold names and paths. No feature depends on them: the key has the
contents of the files instead, so a renamed item keeps its features."""


def feature_key(sample: EvaluationSample, features: str, version: int, identity: str) -> str:
    """The cache key of a sample's features: a hash of everything that they depend on.

    Args:
        sample: The sample. Files count by their contents, the item by every field that is not a
            name.
        features: Name of the features, `Metric.features`.
        version: Version of the computation, `Metric.version`.
        identity: Checksum or name of the metric model.

    Returns:
        A sha256 in hexadecimal.

    Raises:
        OSError: If a file cannot be read.
    """
    item = dataclasses.asdict(sample.item)
    about = {
        "features": features,
        "version": version,
        "model": identity,
        "item": {name: value for name, value in item.items() if name not in NAMES_ONLY},
        "files": {
            role: file_hash(path) if path is not None else ""
            for role, path in (
                ("output", sample.output),
                ("target", sample.target),
                ("source", sample.source),
                ("reference", sample.reference),
            )
        },
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


class FeatureCache:
    """Arrays by key in a folder that several processes may share.

    Args:
        folder: Its folder; made when the first array is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str) -> np.ndarray | None:
        """The array of a key; None where there is none, or a damaged one."""
        try:
            with self._place(key).open("rb") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
                return array if not file.read(1) else None
        except (OSError, ValueError, EOFError):
            return None

    def write(self, key: str, array: np.ndarray) -> None:
        """Keeps an array.

        Raises:
            InputError: If it cannot be written.
        """
        place = self._place(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.lib.format.write_array(content, np.asarray(array), allow_pickle=False)
        write_whole(place, content.getvalue())

    # Two digits of the hash as folders: a folder with 10^5 files is slow on network disks.
    def _place(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

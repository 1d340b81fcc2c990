"""Where a checkpoint is, and what its config.json says; torch is not needed for it."""

import dataclasses
import hashlib
import json
import os
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from unison_audio.domain import read_domain
from unison_audio.errors import InputError
from unison_audio.files import file_hash
from unison_audio.json_files import read_json
from unison_audio.key_checks import complain
from unison_audio.model.config import BackboneConfig
from unison_audio.values import as_real, as_whole, require_path, shown
from unison_audio.variants import VARIANTS, SpeakingRate, Variant

CONFIG_FILE = "config.json"

WEIGHTS_FILE = "model.safetensors"

ADDED_SINCE: dict[str, Any] = {
    "speech_temperature": 1.0,
    "speech_candidates": 1,
    "hold_reference": False,
}
"""Keys that the first checkpoints of this format do not have, and the values of that time."""

OPTIONAL: dict[str, Any] = {
    "domain": None,
    "wording": "paper",
    "quantization": "",
    "text_window": 0,
    "sample_seconds": 0.0,
    "source_rms": 0.0,
    "dither": 0.0,
    "speech_seconds": 0.0,
    "letters": False,
    "clean_text": False,
    "speaking_rate": None,
}
"""Keys that only some checkpoints have, and the values that hold without them. They are written
only where they differ, so that the files of all others stay as they were."""

MOST_CONFIG_BYTES = 16 << 20

CODEC_FILES = ("codec.json", "codec.safetensors")
"""Files of a nano codec beside them."""


@dataclass(frozen=True, kw_only=True)
class OpenCheckpoint:
    """A checkpoint whose config.json has been read."""

    folder: Path
    """Folder of its files."""
    variant: Variant
    """Contents of its config.json."""


def open_checkpoint(
    name_or_path: str | os.PathLike[str] | OpenCheckpoint,
) -> OpenCheckpoint:
    """Find a checkpoint and read its config.json; no weights are loaded.

    Args:
        name_or_path: A variant's name, a folder, `owner/name` on the Hugging Face hub, or a
            checkpoint that is open already.

    Raises:
        InputError: If there is no such checkpoint, or its config.json is damaged.
    """
    if isinstance(name_or_path, OpenCheckpoint):
        return name_or_path
    folder = find_checkpoint(name_or_path)
    return OpenCheckpoint(folder=folder, variant=read_config(folder / CONFIG_FILE))


def find_checkpoint(name_or_path: str | os.PathLike[str]) -> Path:
    """The folder of a checkpoint.

    A variant's name means the weights that came with the package; where none did, a folder of that
    name.
    """
    name = str(require_path(name_or_path, "The checkpoint"))
    if name not in VARIANTS:
        return resolve(name, also=CODEC_FILES)
    folder = Path(str(resources.files("unison_audio"))) / "weights" / name
    if folder.is_dir():
        return folder
    if Path(name).is_dir():
        return Path(name)
    if name == "nano":
        raise InputError(
            f"The weights of nano are not in this installation ({folder}); install the package "
            "again, or give the folder of a checkpoint."
        )
    raise InputError(
        f"The weights of {name} do not come with the package; make a checkpoint of the released "
        "ones with 'unison-audio import-release' (docs/full-size.md) and give its folder."
    )


def require_codec(folder: Path) -> None:
    """Checks that a folder has the files of a nano codec.

    Raises:
        InputError: If one is missing.
    """
    for path in (folder / name for name in CODEC_FILES):
        if not path.is_file():
            raise InputError(
                f"{path} is missing; a nano checkpoint holds {' and '.join(CODEC_FILES)}, which "
                "'unison-audio train nano-codec' writes"
            )


def resolve(source: str | os.PathLike[str], also: Iterable[str] = ()) -> Path:
    """Find the folder of a checkpoint, downloading it if need be.

    Args:
        source: a folder, or `owner/name` of a repository on the Hugging Face hub.
        also: names of further files to download where the repository has them.

    Returns:
        A folder on this machine.

    Raises:
        InputError: if it is neither, or the repository cannot be had.
    """
    if Path(source).is_dir():
        return Path(source)
    name = str(source)
    if name.count("/") != 1 or name.startswith(("/", ".", "~")) or name.endswith("/"):
        raise InputError(
            f"There is no folder {name!r}; give a checkpoint's folder, or owner/name of a "
            "repository on the Hugging Face hub."
        )
    from huggingface_hub import snapshot_download

    try:
        wanted = [CONFIG_FILE, WEIGHTS_FILE, *also]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # which errors these are depends on the hub client's HTTP library
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"There is no folder {name!r}, and the hub does not give a repository of that name "
            f"({reason}); check the name, the connection and, if it is private, your login."
        ) from error


def content_hash(folder: Path) -> str:
    """SHA-256 of a checkpoint's files, which decide how its results sound.

    Raises:
        InputError: If one cannot be read.
    """
    found = []
    for name in (CONFIG_FILE, WEIGHTS_FILE, *CODEC_FILES):
        file = folder / name
        try:
            found.append(f"{name} {file_hash(file) if file.exists() else ''}")
        except OSError as error:
            raise InputError(
                f"{file} cannot be read ({error.strerror}); check the checkpoint."
            ) from error
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def read_config(path: Path) -> Variant:
    """Read a config.json.

    Args:
        path: of the file.

    Returns:
        The variant it describes.

    Raises:
        InputError: if it is missing, not JSON, or its keys are not exactly those of `Variant`;
            those of `ADDED_SINCE` and `OPTIONAL` may be missing.
    """
    try:
        values = read_json(path, "download or save it again", most=MOST_CONFIG_BYTES)
    except FileNotFoundError as error:
        raise InputError(
            f"{path} is missing; a checkpoint is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}."
        ) from error
    if isinstance(values, dict):
        values = {**ADDED_SINCE, **OPTIONAL, **values}
    _require_fields(f"{path}", Variant, values)
    _require_fields(f"{path}, backbone", BackboneConfig, values["backbone"])
    try:
        values["backbone"] = BackboneConfig(**values["backbone"])
        if values["speaking_rate"] is not None:
            _require_fields(f"{path}, speaking_rate", SpeakingRate, values["speaking_rate"])
            values["speaking_rate"] = SpeakingRate(**values["speaking_rate"])
        if values["domain"] is not None:
            values["domain"] = read_domain(values["domain"])
        return Variant(**values)
    except InputError as error:  # a value out of its range
        raise InputError(f"{path}: {error}") from error


def config_text(variant: Variant) -> str:
    """The config.json of a variant, as `read_config` reads it."""
    values = dataclasses.asdict(variant)
    values["domain"] = None if variant.domain is None else variant.domain.as_json()
    stored = {key: v for key, v in values.items() if key not in OPTIONAL or v != OPTIONAL[key]}
    return json.dumps(stored, indent=2) + "\n"


_FITS: dict[type, Callable[[Any], bool]] = {
    bool: lambda value: isinstance(value, bool),
    int: lambda value: as_whole(value) is not None,
    float: lambda value: as_real(value) is not None,
    str: lambda value: isinstance(value, str) and "\0" not in value,
}
"""Type of a field -> whether a value out of JSON fits it. Lists and objects have checks of their
own."""


def _require_fields(where: str, config: type, values: Any) -> None:
    """Refuse anything but an object with exactly the fields of a config, of their types."""
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected an object with the fields of {config.__name__}.")
    types = typing.get_type_hints(config)
    wrong = {
        "missing": sorted(types.keys() - values.keys()),
        "unknown": sorted(values.keys() - types.keys()),
        "of the wrong type": [
            f"{name} {shown(values[name])} (should be {kind.__name__})"
            for name, kind in types.items()
            if name in values and kind in _FITS and not _FITS[kind](values[name])
        ],
    }
    complain(f"The keys of {where} are not those of {config.__name__}", wrong)

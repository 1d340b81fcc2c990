"""What a run was started with: a folder never answers for another run's settings or data."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unison_audio.data.shards import INDEX_FILE, is_url
from unison_audio.errors import InputError
from unison_audio.files import file_hash, folder_of, write_whole
from unison_audio.json_files import read_json
from unison_audio.locks import LOCK_FILE, only_writer
from unison_audio.training.checkpoints import saved_step

SETTINGS_FILE = "run.json"

_OPTION = {"teacher": "the teacher", "examples": "the examples"}
"""How messages call what no flag of the same name sets."""


@contextlib.contextmanager
def own_run(folder: Path, settings: Mapping[str, Any], steps: int) -> Iterator[None]:
    """Hold a run's folder, and compare what it was started with.

    Args:
        folder: The run's folder; made if missing.
        settings: Name of an option -> its value, or the hash of the content that it names. All
            decide the result; the number of steps is not among them, since a run may be extended.
        steps: Training steps of the run.

    Raises:
        InputError: If another process trains in the folder, or the run that was saved there had
            other settings, or has done more steps.
    """
    file = folder / SETTINGS_FILE
    with folder_of(file), only_writer(folder, "training run"):
        done = saved_step(folder)
        if done is not None:
            _compare(folder, settings)
            if done > steps:
                raise InputError(
                    f"The run in {folder} has done {done} steps, and {steps} are asked for; ask "
                    f"for at least {done}, or choose another run folder."
                )
        now = json.loads(json.dumps(settings))  # tuples become lists, as in the file
        write_whole(file, json.dumps(now, indent=1, ensure_ascii=False) + "\n")
        try:
            yield
        except BaseException:
            if {one.name for one in folder.iterdir()} <= {SETTINGS_FILE, LOCK_FILE}:
                file.unlink(missing_ok=True)  # refused before anything was trained
            raise


def corpus_hash(location: str | Path) -> str:
    """What a prepared corpus holds: the hash of its index, which has one of every shard.

    Args:
        location: The corpus' folder or its index; a URL stands for itself.
    """
    if is_url(str(location)):
        return str(location)
    path = Path(location)
    return file_hash(path if path.suffix == ".json" else path / INDEX_FILE)


def examples_hash(examples: Path, recordings: Sequence[Path]) -> str:
    """What a list of own clips holds: the hashes of the list and of its recordings."""
    import hashlib

    found = [file_hash(file) for file in (examples, *recordings) if file.is_file()]
    return hashlib.sha256(" ".join(found).encode()).hexdigest()


def _compare(folder: Path, settings: Mapping[str, Any]) -> None:
    try:
        before = read_json(folder / SETTINGS_FILE, "delete it to resume without the comparison")
    except FileNotFoundError:  # a run of an earlier version
        return
    if not isinstance(before, dict):
        raise InputError(f"{folder / SETTINGS_FILE} holds no settings; delete it to resume.")
    now = json.loads(json.dumps(settings))
    other = [name for name in now if name in before and now[name] != before[name]]
    if not other:
        return
    named = [
        f"{_flag(name)} {before[name]}, not {now[name]}"
        if not _is_hash(now[name]) and not _is_hash(before[name])
        else f"other content of {_flag(name)}"
        for name in other
    ]
    raise InputError(
        f"The run in {folder} was started with {' and '.join(named)}; give the same as before to "
        "resume, or choose another run folder."
    )


def _flag(name: str) -> str:
    return _OPTION.get(name, f"--{name.replace('_', '-')}")


def _is_hash(value: Any) -> bool:
    """Whether a value stands for a content, which a message does not show."""
    if isinstance(value, list):
        return any(map(_is_hash, value))
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")

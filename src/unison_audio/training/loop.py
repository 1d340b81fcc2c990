"""The loop around every trainer: batches, log, checkpoints, validation, resume."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, IterableDataset

from unison_audio.files import make_folder
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.training.checkpoints import (
    StopRequest,
    full_disk_as_input_error,
    load_checkpoint,
    misfit_as_input_error,
    save_checkpoint,
)
from unison_audio.training.log import (
    LossLog,
    RunProgress,
    TimedBatch,
    TimeShares,
    log_validation,
    share_line,
    tracker_values,
)
from unison_audio.training.parallel import Parallel
from unison_audio.training.recipes import Schedule
from unison_audio.training.trainer import BackboneTrainer, NotFiniteError
from unison_audio.training.validation import Validation

PRINT_EVERY = 20
"""Steps between two lines of progress."""

RECENT = 100
"""Batches in the mean loss that is printed."""

Row = dict[str, float | str]
"""One batch in the log: "loss", "task", "norm", "items", and what else the trainer tells."""


class Trainer(Protocol):
    """What the loop asks of a trainer: of a backbone's, or of the nano codec's."""

    @property
    def parallel(self) -> Parallel:
        """The processes of the run."""
        ...

    @property
    def recipe(self) -> Schedule:
        """How it is trained."""
        ...

    @property
    def stream(self) -> IterableDataset[Any]:
        """The batches of this process, `TimedBatch` each."""
        ...

    @property
    def skipped(self) -> Counter[str]:
        """Number of skipped clips by reason."""
        ...

    def step(self, step: int, batches: Sequence[Any]) -> list[Row]:
        """Does one step; returns a log row for each batch."""
        ...

    def state(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores a checkpoint."""
        ...

    def write_samples(self, folder: Path, step: int) -> None:
        """Writes samples after a number of steps."""
        ...


def train(
    trainer: Trainer,
    folder: Path,
    workers: int = 0,
    validation: Callable[[], Mapping[str, float]] | None = None,
) -> None:
    """Trains to the recipe's last step, or resumes a run.

    Args:
        trainer: A fresh trainer.
        folder: The run's folder: checkpoints, `log.jsonl`, samples.
        workers: Processes that make batches ahead; 0 makes them in between. The result does not
            depend on it.
        validation: Measures held-out losses, which are logged.

    Raises:
        StoppedError: If the run received SIGINT or SIGTERM, after it saved.
        NotFiniteError: If a loss is not finite; the batches are then in the run's folder.
        InputError: If the disk is full; the older checkpoints are unchanged.
    """
    make_folder(folder)
    plain = (bool, int, float, str)
    settings = {k: v for k, v in vars(trainer.recipe).items() if type(v) in plain}
    with (
        _denormals_as_zeros(),
        full_disk_as_input_error(folder),
        trainer.parallel.tracking(settings),
    ):
        _train(trainer, folder, workers, validation)


@contextmanager
def _denormals_as_zeros() -> Iterator[None]:
    """Flush denormal numbers, and leave the processor's setting as the caller had it.

    Moments of the optimizer decay into such numbers, which a CPU handles many times slower.
    """
    smallest = torch.tensor([5e-324], dtype=torch.float64)
    flushed = float(smallest * 1.0) == 0.0  # torch has no way to ask for the setting
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)


def train_backbone(
    trainer: BackboneTrainer, folder: Path, workers: int = 0, validation: Validation | None = None
) -> UnisonBackbone:
    """Trains a backbone as `train` does.

    Args:
        trainer: A fresh trainer.
        folder: The run's folder.
        workers: Processes that make batches ahead.
        validation: Held-out batches whose loss is logged.

    Returns:
        The backbone with averaged weights.
    """

    def measure() -> Mapping[str, float]:
        assert validation is not None
        return validation.losses(trainer.averaged())

    train(trainer, folder, workers, measure if validation is not None else None)
    return trainer.averaged()


def _train(
    trainer: Trainer,
    folder: Path,
    workers: int,
    validation: Callable[[], Mapping[str, float]] | None,
) -> None:
    recipe, parallel = trainer.recipe, trainer.parallel

    # 1. Resume. The state is restored before the first batch is made: workers copy the stream.
    first = _resume(trainer, folder)
    report = _Report(trainer, folder, first)
    batches, stop = _batches(trainer.stream, workers), StopRequest()
    per_process = recipe.batches_per_step // parallel.world
    try:
        for step in range(first, recipe.steps):
            # 2. Train on the next batches.
            current = [next(batches) for _ in range(per_process)]
            began = time.perf_counter()
            try:
                rows = trainer.step(step, current)
            except NotFiniteError as error:
                error.save(folder, parallel.rank)
                raise
            report.add(step, current, rows, time.perf_counter() - began)

            # 3. Write samples on schedule, before the checkpoint: they draw from the pools, and
            #    the checkpoint then holds the pools' state after that. A resumed run is identical.
            done = step + 1
            last, scheduled = done == recipe.steps, done % recipe.sample_every == 0
            if scheduled:
                trainer.write_samples(folder / "samples", done)

            # 4. Save. All processes stop at the same step, also if only one received the signal.
            asked = any(parallel.gather_objects(stop.asked))
            if done % recipe.checkpoint_every == 0 or last or asked:
                _save(trainer, folder, done)
            if asked:
                raise stop.stopped(done)

            # 5. Validate.
            if validation is not None and (done % recipe.validate_every == 0 or last):
                report.validate(done, validation())

            # 6. Write the final samples after the checkpoint: a run with more steps, resumed from
            #    here, would not have drawn them.
            if last and not scheduled:
                trainer.write_samples(folder / "samples", done)
    finally:
        stop.restore()


def _resume(trainer: Trainer, folder: Path) -> int:
    """Restores the newest checkpoint; returns the first step to do."""
    state = load_checkpoint(folder)
    if state is None:
        return 0
    with misfit_as_input_error(folder):
        trainer.load_state(state)
    return state["step"]


def _batches(stream: IterableDataset[Any], workers: int) -> Iterator[TimedBatch]:
    return iter(
        DataLoader(
            stream,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
        )
    )


class _Report:
    """The log, the progress and the trackers of a run."""

    def __init__(self, trainer: Trainer, folder: Path, first: int) -> None:
        self.trainer, self.parallel, self.folder = trainer, trainer.parallel, folder
        self.log = LossLog(folder, first) if self.parallel.main else None
        self.progress = RunProgress(first, trainer.recipe.steps)
        self.first, self.clips = first, 0
        self.recent: list[float] = []
        self.unreported: list[Row] = []
        self.shares = TimeShares()

    def add(
        self, step: int, batches: Sequence[TimedBatch], rows: Sequence[Row], seconds: float
    ) -> None:
        """Adds a step. Collective: every process must call it."""
        self.shares.add(batches, seconds)
        everyone = [row for some in self.parallel.gather_objects(rows) for row in some]
        self.recent = [*self.recent, *(float(row["loss"]) for row in everyone)][-RECENT:]
        self.unreported += everyone
        self.clips += sum(int(row["items"]) for row in everyone)
        if self.log is not None:
            for row in everyone:
                self.log.write(step, **row)
        done = step + 1
        if done % PRINT_EVERY == 0:
            skipped = sum(self.parallel.gather_objects(self.trainer.skipped), Counter[str]())
            shares, mean = self.shares.take(), sum(self.recent) / len(self.recent)
            if self.parallel.main:
                line = self.progress.line(
                    done,
                    self.clips // (done - self.first),
                    loss=mean,
                    norm=float(rows[0]["norm"]),
                )
                print(f"{line}  {share_line(shares, skipped)}", flush=True)
                rate = self.trainer.recipe.lr(step)
                values = tracker_values(self.unreported, shares, skipped, rate)
                self.parallel.log(values, done)
            self.unreported = []

    def validate(self, done: int, losses: Mapping[str, float]) -> None:
        """Logs the held-out losses."""
        if self.log is not None:
            log_validation(self.folder, done, losses)
            self.parallel.log({f"validation/{k}": v for k, v in losses.items()}, done)


def _save(trainer: Trainer, folder: Path, step: int) -> None:
    """Writes a checkpoint. A failure is raised on every process: none waits for the first."""
    state, failure = trainer.state(), None
    if trainer.parallel.main:
        try:
            save_checkpoint(folder, step, state, trainer.recipe.keep_checkpoints)
        except OSError as error:
            failure = error
    for each in trainer.parallel.gather_objects(failure):
        if each is not None:
            raise each

"""The process that holds a model: takes batches from a pipe and answers with waveforms.

It keeps no state between batches, so a batch that a dead process took with it can be given to the
next one, and gives the same sound there.
"""

import signal
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from unison_audio.errors import InputError
from unison_audio.machine import MachineSettings
from unison_audio.sampling_params import SamplingParams


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What a worker loads."""

    checkpoint: str
    """A variant's name, a checkpoint's folder, or owner/name on the hub."""
    machine: MachineSettings = field(default_factory=MachineSettings)
    """Where and how it runs."""


@dataclass(frozen=True, kw_only=True)
class ModelCall:
    """One sound to make."""

    instruction: str
    """With the tags of the task table."""
    inputs: dict[str, Any]
    """The other inputs of `Unison.generate`; recordings as (waveform, sample_rate)."""


@dataclass(frozen=True, kw_only=True)
class ModelAnswer:
    """A sound, or why there is none."""

    waveform: Any = None
    """(samples,) float32 as an array."""
    task: str = ""
    """Name of the task."""
    seed: int | None = None
    """Seed of the noise."""
    warnings: tuple[str, ...] = ()
    """Warnings about the call."""
    refused: str = ""
    """Why the input cannot be used; empty if it can."""
    failed: str = ""
    """What went wrong inside; empty if nothing did."""


class _Aborted(Exception):
    """Nobody waits for the batch any more."""


def run_worker(connection: Connection, config: WorkerConfig) -> None:
    """Load a model, then answer batches until the pipe is closed.

    Args:
        connection: Messages in: ("batch", number, sampling, calls), ("abort", number). Out:
            ("ready", None), ("failed", reason), ("step", done, total),
            ("done", number, answers, bytes).
        config: What to load.
    """
    # Ctrl-C and a service manager's signal reach the whole process group. The server decides when
    # the work is done, and then closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # They travel with the answers; on stderr they would quote what a client sent.
    warnings.simplefilter("ignore")
    try:
        unison = config.machine.open(config.checkpoint)
    except Exception as error:
        reason = str(error) if isinstance(error, InputError) else repr(error)
        connection.send(("failed", " ".join(reason.split())))
        return
    try:
        connection.send(("ready", None))
        while True:
            kind, number, *work = connection.recv()
            if kind != "batch":
                continue  # an abort that came after its batch was done
            answers = _answer(unison, connection, number, *work)
            connection.send(("done", number, answers, resident_bytes()))
    except (EOFError, OSError):  # the server has closed the pipe, or is gone
        return


def resident_bytes(pid: str = "self") -> int:
    """Memory that a process holds; 0 where the system does not tell."""
    try:
        text = Path("/proc", pid, "statm").read_text()
    except OSError:
        return 0
    import resource

    return int(text.split()[1]) * resource.getpagesize()


def _answer(
    unison: Any,
    connection: Connection,
    number: int,
    sampling: SamplingParams,
    calls: list[ModelCall],
) -> list[ModelAnswer]:
    """Answer a batch; one bad item does not spoil the others."""

    def on_step(done: int, total: int) -> None:
        connection.send(("step", done, total))  # also a sign of life
        while connection.poll():
            kind, which, *_ = connection.recv()
            if kind == "abort" and which == number:
                raise _Aborted

    try:
        return _generate(unison, sampling, calls, on_step)
    except _Aborted:
        return [ModelAnswer(failed="aborted") for _ in calls]
    # The server is gone, and no call alone would find it again.
    except (EOFError, BrokenPipeError):
        raise
    except Exception as error:
        if len(calls) == 1:
            if isinstance(error, InputError):
                return [ModelAnswer(refused=" ".join(str(error).split()))]
            return [ModelAnswer(failed=_place(error))]
        # One by one, so that the message belongs to the call that caused it.
        return [_answer(unison, connection, number, sampling, [call])[0] for call in calls]


def _place(error: Exception) -> str:
    """Kind and place of an error. Its message may quote what a client sent, which no log may."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def _generate(
    unison: Any,
    sampling: SamplingParams,
    calls: list[ModelCall],
    on_step: Callable[[int, int], None],
) -> list[ModelAnswer]:
    names = dict.fromkeys(name for call in calls for name in call.inputs)
    inputs = {name: [call.inputs.get(name) for call in calls] for name in names}
    sounds = unison.generate(
        [call.instruction for call in calls], sampling=sampling, on_step=on_step, **inputs
    )
    return [
        ModelAnswer(
            waveform=sound.waveform.numpy(),
            task=sound.task,
            seed=sound.seed,
            warnings=sound.warnings,
        )
        for sound in sounds
    ]

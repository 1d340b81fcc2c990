"""The work behind the tools of `mcp`: requests of a program, and files in the user's folder.

Names come from a language model, which may have read them anywhere. So recordings are only read
from folders that the user named, results lie in one of them, and no file is replaced.
"""

import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from unison_audio.checks import FileInputs
from unison_audio.cli.any_length import Show, SoundRequest, plan_sound
from unison_audio.cli.options import LengthFlags, MachineFlags
from unison_audio.errors import InputError
from unison_audio.files import check_sound_file, folder_of, make_folder, resolved
from unison_audio.sampling_params import SamplingParams
from unison_audio.values import require_path

if TYPE_CHECKING:
    from unison_audio.checkpoint_files import OpenCheckpoint
    from unison_audio.pipeline import Unison


@dataclass(frozen=True, kw_only=True)
class ToolSound:
    """What a tool has made."""

    path: Path
    """The file."""
    task: str
    """The task."""
    seconds: float
    """Its length."""
    seed: int
    """Seed of the noise."""
    warnings: tuple[str, ...]
    """What the model does not know, and the like."""


@dataclass(kw_only=True)
class ToolFolder:
    """A model and the folders that its user opened to a program."""

    opened: "OpenCheckpoint"
    """The model's weights."""
    folder: Path
    """Where results go; recordings are read from it too."""
    recordings: Sequence[Path] = ()
    """Other folders that recordings are read from."""
    sampling: SamplingParams | None = None
    """Sampling options."""
    machine: MachineFlags = field(default_factory=MachineFlags)
    """Where to compute."""
    _unison: "Unison | None" = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def make(
        self,
        instruction: str,
        inputs: FileInputs,
        length: LengthFlags,
        file_name: str,
        show: Show,
    ) -> ToolSound:
        """Generate or edit, as the command `generate` does.

        Args:
            instruction: With the tags of the task table.
            inputs: The other inputs; their recordings were found by `recording`.
            length: Regions, and whether to extract.
            file_name: Name of the result in the folder; empty for a number.
            show: Called with the progress.

        Raises:
            InputError: An input cannot be used.
        """
        # One model, one sound at a time: warnings are caught for the whole process.
        with self._lock, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            path = self._result(file_name)
            asked = SoundRequest(
                instruction=instruction,
                output=path,
                inputs=inputs,
                length=length,
                sampling=self.sampling,
            )
            plan = plan_sound(self.opened.variant, asked)
            with folder_of(path):
                made = plan.run(self._model(), show)
        said = dict.fromkeys(
            str(one.message) for one in caught if issubclass(one.category, UserWarning)
        )
        return ToolSound(
            path=path,
            task=made.task,
            seconds=made.seconds,
            seed=inputs.seed,
            warnings=tuple(said),
        )

    def recording(self, name: str) -> Path:
        """The recording that a program names.

        Args:
            name: Its name in one of the folders, or its whole path.

        Raises:
            InputError: It is not there, or lies elsewhere.
        """
        folders = [self.folder, *self.recordings]
        for folder in folders:
            place = resolved(require_path(folder / name, "The recording"))
            if place.is_relative_to(resolved(folder)) and place.is_file():
                return place
        listed = ", ".join(str(folder) for folder in folders)
        raise InputError(f"There is no recording {name!r:.200} in {listed}; give one that is.")

    def _result(self, name: str) -> Path:
        """Where a result goes."""
        make_folder(self.folder)
        if not name:
            number = 1
            while (path := self.folder / f"sound-{number:04d}.wav").exists():
                number += 1
            return path
        path = require_path(self.folder / name, "file_name")
        if not resolved(path).is_relative_to(resolved(self.folder)):
            raise InputError(
                f"file_name {name!r:.200} leads out of the folder; give a file's name."
            )
        if path.exists() or path.is_symlink():
            raise InputError(f"There is a file {name!r:.200} already; give another file_name.")
        return check_sound_file(path)

    def _model(self) -> "Unison":
        """The model, loaded when it is first needed: a program lists the tools at its start."""
        if self._unison is None:
            self._unison = self.machine.open(self.opened)
        return self._unison

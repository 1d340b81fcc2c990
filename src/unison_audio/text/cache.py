"""Caches of text states: one in memory, one on the disk with a file for each instruction."""

import contextlib
import os
import tempfile
import time
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unison_audio.tensor_files import write_tensors
from unison_audio.text.states import TextEncoder, TextStates, split, stack


class CachingTextEncoder:
    """Caches the states of instructions in memory, up to a budget.

    Args:
        encoder: Encodes instructions that are not cached.
        budget_bytes: Memory of the cached states; the least recently used are removed first.
        shared: Whether several processes share the encoder. Its calls are collective then, so
            every call reaches it, with no instruction where all are cached.
    """

    def __init__(
        self, encoder: TextEncoder, budget_bytes: int = 4 << 30, *, shared: bool = False
    ) -> None:
        self.encoder, self.budget, self.used = encoder, budget_bytes, 0
        self.shared = shared
        self.kept: OrderedDict[str, TextStates] = OrderedDict()

    def encode(self, instructions: Sequence[str]) -> TextStates:
        """Encodes B instructions, each distinct text once."""
        known: dict[str, TextStates] = {}
        for text in instructions:
            if text in self.kept:
                self.kept.move_to_end(text)
                known[text] = self.kept[text]
        new = [text for text in dict.fromkeys(instructions) if text not in known]
        if new or self.shared:
            for text, states in zip(new, split(self.encoder.encode(new)), strict=True):
                known[text] = stack([states])  # a copy: a view would keep the batch in memory
                self._keep(text, known[text])
        return stack([known[text] for text in instructions])

    def _keep(self, text: str, states: TextStates) -> None:
        self.kept[text] = states
        self.used += states.nbytes
        while self.used > self.budget and len(self.kept) > 1:
            _, old = self.kept.popitem(last=False)
            self.used -= old.nbytes


SUFFIX = ".safetensors"

UNFINISHED_SUFFIX = ".part"

UNFINISHED_SECONDS = 3600.0
"""An unfinished file older than this was left by a run that was killed."""


class TensorCache:
    """A folder of files, each with the tensors of one key.

    Several processes may use one folder: a file appears only when it is complete, and the least
    recently used are removed first.

    Args:
        folder: Folder of the files; made with the first one.
        budget_bytes: Size of all files together; a single file may be larger.
    """

    def __init__(self, folder: Path, budget_bytes: int = 8 << 30) -> None:
        self.folder, self.budget = folder, budget_bytes

    def read(self, key: str, fits: Callable[[dict[str, Tensor]], bool]) -> dict[str, Tensor] | None:
        """Reads the tensors of a key; None if there are none.

        A damaged or foreign file is removed with a warning and counts as missing.

        Args:
            key: Name of the file without its suffix.
            fits: Whether the tensors are what the key stands for.
        """
        path = self._path(key)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                sound = (file.metadata() or {}).get("crc32") == _checksum(tensors)
        except FileNotFoundError:  # another process removed it just now
            return None
        except (SafetensorError, OSError):
            sound = False
        if not sound or not fits(tensors):
            warnings.warn(f"{path} is damaged; it is removed and made anew", stacklevel=3)
            with contextlib.suppress(OSError):  # the folder may be read-only
                path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the time of last use decides what is removed first
        return tensors

    def write(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Stores the tensors of a key and makes room for them.

        If they cannot be written there is a warning, and they are computed again next time.
        """
        unfinished = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(suffix=UNFINISHED_SUFFIX, dir=self.folder)
            os.close(handle)
            unfinished = Path(name)
            write_tensors(tensors, unfinished, {"crc32": _checksum(tensors)})
            unfinished.replace(self._path(key))
            self._make_room(self._path(key))
        except (SafetensorError, OSError) as error:
            warnings.warn(f"{self.folder} cannot keep text states: {error}", stacklevel=3)
            if unfinished is not None:
                unfinished.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _make_room(self, newest: Path) -> None:
        for modified, _, path in self._files(UNFINISHED_SUFFIX):
            if time.time() - modified > UNFINISHED_SECONDS:
                path.unlink(missing_ok=True)
        found = self._files(SUFFIX)
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.budget:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size

    def _files(self, suffix: str) -> list[tuple[float, int, Path]]:
        """Lists each file with its time of last use and its size."""
        found = []
        for path in self.folder.glob(f"*{suffix}"):
            with contextlib.suppress(FileNotFoundError):  # another process removed it just now
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        return found


class StateCache(TensorCache):
    """A folder of text states, one file an instruction."""

    def find(self, key: str) -> TextStates | None:
        """Reads the states of a key; None if there are none."""
        tensors = self.read(key, lambda found: "hidden_states" in found)
        return None if tensors is None else states_of(tensors)

    def keep(self, key: str, states: TextStates) -> None:
        """Stores the states of one instruction, given without padding."""
        self.write(key, tensors_of(states))


def tensors_of(states: TextStates) -> dict[str, Tensor]:
    """The tensors that are stored of the states of one text, given without padding."""
    tensors = {"hidden_states": states.hidden_states.contiguous()}
    if states.penultimate is not None:
        tensors["penultimate"] = states.penultimate.contiguous()
    return tensors


def states_of(tensors: dict[str, Tensor]) -> TextStates:
    """The states of one text from its stored tensors."""
    hidden = tensors["hidden_states"]
    return TextStates(
        hidden_states=hidden,
        mask=torch.ones(hidden.shape[0], hidden.shape[2], dtype=torch.bool),
        penultimate=tensors.get("penultimate"),
    )


def _checksum(tensors: dict[str, Tensor]) -> str:
    value = 0
    for name in sorted(tensors):
        flat = tensors[name].contiguous().flatten()
        value = zlib.crc32(flat.view(torch.uint8).numpy().tobytes(), value)
    return f"{value:08x}"

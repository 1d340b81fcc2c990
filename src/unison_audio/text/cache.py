"""States of instructions kept on the disk, each in a file of its own, up to a number of bytes."""

import contextlib
import os
import tempfile
import time
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unison_audio.text.states import TextEncoder, TextStates, split, stack


class CachingTextEncoder:
    """Keeps the states of instructions seen before, up to a budget.

    Args:
        encoder: What encodes new instructions.
        budget_bytes: Memory for kept states; the longest unused go first.
        shared: Whether the encoder belongs to several processes together. Then every call goes
            through to it, with no instruction where all are known here.
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
                known[text] = stack([states])  # a copy, so that the batch's memory is let go
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
"""After this time a file that is still unfinished was left behind by a broken run."""


class StateCache:
    """A folder of states, one file an instruction.

    Several processes may use one folder: a file appears only when it is complete, and those longest
    unused are removed first.

    Args:
        folder: Where the files are; made when the first is kept.
        budget_bytes: What the files may take together; one file alone may take more.
    """

    def __init__(self, folder: Path, budget_bytes: int = 8 << 30) -> None:
        self.folder, self.budget = folder, budget_bytes

    def find(self, key: str) -> TextStates | None:
        """The states kept under a key; None if there are none.

        A damaged file is removed with a warning, as if there were none.
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
        if not sound or "hidden_states" not in tensors:
            warnings.warn(f"{path} is damaged; it is removed and made anew", stacklevel=2)
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):  # the folder may be one that can only be read
            os.utime(path)  # it was used now
        hidden = tensors["hidden_states"]
        return TextStates(
            hidden_states=hidden,
            mask=torch.ones(hidden.shape[0], hidden.shape[2], dtype=torch.bool),
            penultimate=tensors.get("penultimate"),
        )

    def keep(self, key: str, states: TextStates) -> None:
        """Keeps the states of one instruction, given without padding, and makes room for them.

        A disk that cannot take them gives a warning; the states are then computed again next time.
        """
        tensors = {"hidden_states": states.hidden_states.contiguous()}
        if states.penultimate is not None:
            tensors["penultimate"] = states.penultimate.contiguous()
        unfinished = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(suffix=UNFINISHED_SUFFIX, dir=self.folder)
            os.close(handle)
            unfinished = Path(name)
            save_file(tensors, unfinished, metadata={"crc32": _checksum(tensors)})
            unfinished.replace(self._path(key))
            self._make_room(self._path(key))
        except (SafetensorError, OSError) as error:
            warnings.warn(f"{self.folder} cannot keep text states: {error}", stacklevel=2)
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
        """When each file was used last and what it takes."""
        found = []
        for path in self.folder.glob(f"*{suffix}"):
            with contextlib.suppress(FileNotFoundError):  # another process removed it just now
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        return found


def _checksum(tensors: dict[str, Tensor]) -> str:
    value = 0
    for name in sorted(tensors):
        flat = tensors[name].contiguous().flatten()
        value = zlib.crc32(flat.view(torch.uint8).numpy().tobytes(), value)
    return f"{value:08x}"

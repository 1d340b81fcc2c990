"""Checkpoints of a variant: a folder or hub repository of config.json and model.safetensors.

Also takes over weights under the names of the UNISON release.
"""

import dataclasses
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from unison_audio.checkpoint_files import (
    CODEC_FILES,
    CONFIG_FILE,
    WEIGHTS_FILE,
    OpenCheckpoint,
    config_text,
    read_config,
    resolve,
)
from unison_audio.errors import InputError
from unison_audio.files import copy_whole, folder_of
from unison_audio.key_checks import require_same_keys
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.int8 import (
    Int8Linear,
    int8_layers,
    is_int8,
    quantize_state,
    use_int8_layout,
)
from unison_audio.model_card import CardInfo, file_metadata, write_card
from unison_audio.tensor_files import write_tensors
from unison_audio.values import require_path, require_text
from unison_audio.variants import Variant

UNFINISHED = ".incomplete-"
"""Beginning of the name of the folder in which files are completed."""

UNFINISHED_SECONDS = 3600.0
"""Age from which such a folder was left by a process that was killed."""

DISK_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def save(
    directory: str | os.PathLike[str],
    variant: Variant,
    backbone: UnisonBackbone,
    *,
    dtype: torch.dtype = torch.float32,
    card: CardInfo | None = None,
) -> None:
    """Write a checkpoint and its model card.

    Both files are complete on the disk before either takes its place, the config last: an
    interrupted save leaves what was there before, and never half a file. Other files in the
    directory are left alone.

    Args:
        directory: where to; made if missing.
        variant: the configuration to store.
        backbone: the weights to store.
        dtype: type of the weights in the file, float32, bfloat16 or float16.
        card: what the model card says besides the facts of the config. A card by hand stays.

    Raises:
        InputError: if the backbone is not of that variant, the type is another one, or a weight
            is not finite in it.
    """
    if backbone.config != variant.backbone:
        raise InputError(
            f"The backbone's config {backbone.config} is not that of variant {variant.name!r}; "
            "save it with the variant it was made from."
        )
    if dtype not in DISK_TYPES:
        raise InputError(f"Weights cannot be saved as {dtype}; use float32, bfloat16 or float16.")
    # What the file holds decides, so that a reader finds the layout that the config names.
    quantization = "int8" if is_int8(backbone) else ""
    variant = dataclasses.replace(variant, quantization=quantization)
    exact = _int8_tensors(backbone)
    weights = {
        name: tensor.detach().to("cpu", None if name in exact else dtype).contiguous()
        for name, tensor in backbone.state_dict().items()
    }
    broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if broken:
        raise InputError(
            f"Weights are not finite as {dtype}: {', '.join(broken)}; "
            "save an earlier step, or in float32 if they overflowed float16."
        )
    directory = require_path(directory, "The checkpoint's folder")
    with ExitStack() as stack:
        stack.enter_context(folder_of(directory / WEIGHTS_FILE))
        _remove_unfinished(directory)
        temporary = stack.enter_context(
            tempfile.TemporaryDirectory(dir=directory, prefix=UNFINISHED)
        )
        files = [Path(temporary, WEIGHTS_FILE), Path(temporary, CONFIG_FILE)]
        try:
            write_tensors(weights, files[0], file_metadata(variant))
        except OSError as error:  # such as a full disk
            raise InputError(
                f"The weights cannot be written to {directory} ({error.strerror or error}); make "
                "room, or choose another folder."
            ) from error
        files[1].write_text(config_text(variant), "utf-8")
        # safetensors lets only the owner read its file; the config's mode follows the umask.
        files[0].chmod(files[1].stat().st_mode)
        for file in files:
            with file.open("rb") as written:
                os.fsync(written.fileno())
        for file in files:
            file.replace(directory / file.name)
    write_card(directory, variant, card, directory / WEIGHTS_FILE)


def _remove_unfinished(directory: Path) -> None:
    """Remove what a killed process left; a folder that was touched lately may be in use."""
    for left in directory.glob(f"{UNFINISHED}*"):
        if left.is_dir() and time.time() - left.stat().st_mtime > UNFINISHED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def load(
    source: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32
) -> tuple[Variant, UnisonBackbone]:
    """Read a checkpoint.

    Args:
        source: a folder, or `owner/name` of a repository on the Hugging Face hub.
        dtype: type to compute in, whatever the type in the file is.

    Returns:
        The variant and its backbone, on the CPU and in evaluation mode.

    Raises:
        InputError: if there is no such checkpoint, a file is damaged, or its keys are not exactly
            those that the configuration asks for; the message names those that are wrong.
    """
    directory = resolve(source)
    variant = read_config(directory / CONFIG_FILE)
    return variant, load_backbone(directory, variant, dtype=dtype)


def load_backbone(
    directory: Path,
    variant: Variant,
    *,
    dtype: torch.dtype = torch.float32,
    quantize: bool = False,
) -> UnisonBackbone:
    """Read the weights of a checkpoint whose config.json has been read.

    Args:
        directory: The checkpoint's folder.
        variant: Contents of its config.json.
        dtype: Type to compute in, whatever the type in the file is. int8 layers of a quantized
            checkpoint stay as they are.
        quantize: Whether the layers of `int8_layers` become int8 if they are not.

    Returns:
        The backbone, on the CPU and in evaluation mode.

    Raises:
        InputError: If the file is missing or damaged, or its keys are not exactly those that the
            configuration asks for.
    """
    path = directory / WEIGHTS_FILE
    try:
        weights = load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; a checkpoint needs it beside its config.") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); download or save it again.") from error
    with torch.device("meta"):
        backbone = UnisonBackbone(variant.backbone)
    names = int8_layers(backbone)
    if variant.quantization:
        use_int8_layout(backbone, names)
    expected = {name: tuple(tensor.shape) for name, tensor in backbone.state_dict().items()}
    require_same_keys(f"The weights in {path} do not fit their config", expected, weights)
    exact = _int8_tensors(backbone)
    whole = [
        name
        for name, tensor in weights.items()
        if (tensor.dtype != exact[name] if name in exact else not tensor.is_floating_point())
    ]
    if whole:  # they would be converted, and give noise
        raise InputError(
            f"{path} holds weights of a wrong type: {', '.join(whole[:3])}"
            f"{' and more' if len(whole) > 3 else ''}; download or save it again."
        )
    if quantize and not variant.quantization:
        use_int8_layout(backbone, names)
        weights, exact = quantize_state(weights, names), _int8_tensors(backbone)
    # Tensors that have their type already stay views of the mapped file.
    weights = {
        name: tensor if name in exact else tensor.to(dtype) for name, tensor in weights.items()
    }
    backbone.load_state_dict(weights, assign=True)
    return backbone.eval()


def quantize_checkpoint(
    opened: OpenCheckpoint, folder: Path, *, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write a checkpoint with int8 layers.

    Args:
        opened: The checkpoint.
        folder: Where to; made if missing.
        dtype: Type of the layers that stay in floating point.

    Raises:
        InputError: If its weights cannot be read, are quantized already, or the folder is its own.
    """
    require_unquantized(opened.variant, str(opened.folder))
    if folder.resolve() == opened.folder.resolve():
        raise InputError(f"{folder} is the checkpoint itself; give another folder.")
    backbone = load_backbone(opened.folder, opened.variant, dtype=dtype, quantize=True)
    save(folder, opened.variant, backbone, dtype=dtype)
    for name in CODEC_FILES:
        if (opened.folder / name).is_file():
            copy_whole(opened.folder / name, folder / name)


def require_unquantized(variant: Variant, where: str) -> None:
    """Refuse quantized weights, which cannot be trained or quantized again."""
    if variant.quantization:
        raise InputError(
            f"The weights in {where} are {variant.quantization}; give the checkpoint that they "
            "were made from."
        )


def _int8_tensors(backbone: UnisonBackbone) -> dict[str, torch.dtype]:
    """Name and type of each tensor of the int8 layers, which no cast may change."""
    return {
        f"{name}.{own}": tensor.dtype
        for name, module in backbone.named_modules()
        if isinstance(module, Int8Linear)
        for own, tensor in module.state_dict().items()
    }


def upload(
    folder: str | os.PathLike[str], repo_id: str, *, message: str, private: bool = False
) -> str:
    """Upload all files of a folder to the Hugging Face hub.

    Args:
        folder: what to upload.
        repo_id: `owner/name`; the repository is made if it is missing.
        message: of the commit.
        private: whether a new repository is hidden from others.

    Returns:
        The address of the commit.
    """
    from huggingface_hub import HfApi

    require_text(repo_id, "The repository")
    api = HfApi()
    api.create_repo(repo_id, private=private, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id, folder_path=os.fspath(folder), commit_message=message
    )
    return str(commit.commit_url)


def disk_type(name: str) -> torch.dtype:
    """The type of stored weights of a name.

    Raises:
        InputError: If weights are not stored in it.
    """
    types = {str(each).removeprefix("torch."): each for each in DISK_TYPES}
    if name not in types:
        raise InputError(f"The weights' type is {name!r}; use one of {', '.join(types)}.")
    return types[name]

"""Writes a folder of Qwen2.5-Omni whose linear layers have int8 weights."""

import json
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.files import check_folder, folder_of, nearest_there
from unison_audio.model.int8 import row_scales
from unison_audio.text.hub_names import CONFIG_FILE, HUB_NAMES
from unison_audio.text.int8_linear import SCALE, linear_names
from unison_audio.text.offload import INDEX_FILE, Shards
from unison_audio.text.qwen_folder import (
    PREFIX,
    TOKENIZER_FILES,
    download,
    load_config,
    require_all,
    text_model,
)

ROWS = 2048
"""Rows of a weight that are converted at a time: 155 MB in float32 for the widest of the 7B."""

FREE_BYTES = 1 << 30
"""Room that is left on the disk."""


def quantize_language_model(
    name_or_folder: str,
    folder: Path,
    *,
    kept: Collection[str] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Writes a language model with int8 weights, a scale for each row.

    The folder serves as `text_files` of a variant. The tokenizer, the embedding and the norms are
    those of the original.

    Args:
        name_or_folder: A name of `HUB_NAMES`, or a folder with the hub's files.
        folder: Where to; made if missing.
        kept: Linear layers that stay as they are: parts of their names, such as ``down_proj`` or
            ``layers.3``.
        on_progress: Called with the number of written layers and of all.

    Returns:
        Number of linear layers that became int8.

    Raises:
        InputError: If the model is missing, damaged or int8 already, a kept name matches no layer,
            the disk is too small, or the folder is its own.
    """
    hub_name = HUB_NAMES.get(name_or_folder)
    source = download(hub_name) if hub_name else Path(name_or_folder)
    shards = Shards(source, PREFIX)
    if any(shards.dtype(name) == torch.int8 for name in shards.names):
        raise InputError(f"{source} is int8 already; give the files that it was made from.")
    if folder.resolve() == source.resolve():
        raise InputError(f"{folder} is the language model itself; give another folder.")
    with torch.device("meta"):
        model = text_model(load_config(source))
    require_all(model, shards)
    chosen = _choose(
        [
            f"layers.{i}.{name}"
            for i, each in enumerate(model.layers)
            for name in linear_names(each)
        ],
        kept,
    )
    files = _files(shards, len(model.layers))
    check_folder(folder)
    _require_room(folder, shards, chosen)
    with (
        folder_of(folder / INDEX_FILE),
        tempfile.TemporaryDirectory(dir=folder, prefix=".incomplete-") as temporary,
    ):
        weight_map: dict[str, str] = {}
        for number, (file, names) in enumerate(files.items()):
            tensors: dict[str, Tensor] = {}
            for name in names:
                tensors |= _converted(shards, name, name.removesuffix(".weight") in chosen)
            path = Path(temporary, file)
            _write(tensors, path)
            path.replace(folder / file)
            weight_map |= {PREFIX + name: file for name in tensors}
            shards.release(names)
            if on_progress:
                on_progress(number + 1, len(files))
        for name in (CONFIG_FILE, *TOKENIZER_FILES):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        # Last: a folder without an index is refused, so one that was interrupted is never read.
        index = Path(temporary, INDEX_FILE)
        index.write_text(json.dumps({"weight_map": dict(sorted(weight_map.items()))}), "utf-8")
        for file in files:  # safetensors lets only the owner read its files
            (folder / file).chmod(index.stat().st_mode)
        index.replace(folder / INDEX_FILE)
    return len(chosen)


def _choose(names: list[str], kept: Collection[str]) -> set[str]:
    """The layers that become int8: those of which no kept name is a part."""
    for each in kept:
        if not any(_has_part(name, each) for name in names):
            parts = sorted({name.rpartition(".")[2] for name in names})
            raise InputError(
                f"No linear layer has {each!r} in its name; use one of {', '.join(parts)}, or the "
                "number of a layer, such as layers.3."
            )
    return {name for name in names if not any(_has_part(name, each) for each in kept)}


def _has_part(name: str, part: str) -> bool:
    return f".{part}." in f".{name}."


def _files(shards: Shards, layers: int) -> dict[str, list[str]]:
    """Names of the tensors of each file: one for a layer, one for all else."""
    groups: list[list[str]] = [[] for _ in range(layers + 1)]
    for name in shards.names:
        parts = name.split(".")
        groups[int(parts[1]) + 1 if parts[0] == "layers" else 0].append(name)
    return {f"model-{i:05}-of-{layers:05}.safetensors": names for i, names in enumerate(groups)}


def _require_room(folder: Path, shards: Shards, chosen: Collection[str]) -> None:
    needed = 0
    for name in shards.names:
        tensor = shards.tensor(name)
        int8 = name.removesuffix(".weight") in chosen
        needed += tensor.numel() * (1 if int8 else tensor.element_size())
    free = shutil.disk_usage(nearest_there(folder)).free
    if needed + FREE_BYTES > free:
        raise InputError(
            f"The int8 weights take {needed / 1e9:.1f} GB and the disk of {folder} has "
            f"{free / 1e9:.1f} GB left; make room, or choose another folder."
        )


def _converted(shards: Shards, name: str, int8: bool) -> Iterator[tuple[str, Tensor]]:
    """Tensors that are stored of one tensor."""
    stored = shards.tensor(name)
    if not int8:
        yield name, stored
        return
    weight = torch.empty(stored.shape, dtype=torch.int8)
    scale = torch.empty(len(stored), dtype=torch.float32)
    for start in range(0, len(stored), ROWS):
        rows = stored[start : start + ROWS].float()
        steps = row_scales(rows)
        weight[start : start + ROWS] = torch.round(rows / steps).to(torch.int8)
        scale[start : start + ROWS] = steps[:, 0]
    yield name, weight
    yield f"{name.removesuffix('.weight')}.{SCALE}", scale


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file({PREFIX + name: tensor for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        raise InputError(
            f"The weights cannot be written to {path.parent.parent} ({error}); make room, or "
            "choose another folder."
        ) from error

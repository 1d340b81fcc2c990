"""Folders of Qwen2.5-Omni: config, checks of the weights, and the files that are downloaded."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from unison_audio import hub_files
from unison_audio.errors import InputError
from unison_audio.text.hub_names import CONFIG_FILE, MODEL_TYPE
from unison_audio.text.offload import INDEX_FILE, Shards, check_shapes, shards_of
from unison_audio.text.prompt import has_vocabulary

PREFIX = "thinker.model."

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def load_config(folder: Path) -> Any:
    """Reads the text model's part of a Qwen2.5-Omni's config.

    Raises:
        InputError: If there is none or it is of another model.
    """
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniTextConfig

    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text("utf-8"))
        kind = config.get("model_type")
        text = config["thinker_config"]["text_config"] if kind == MODEL_TYPE else None
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read; give the folder of a download of Qwen2.5-Omni"
        ) from error
    if text is None:
        raise InputError(
            f"{path} is of a model {kind!r} instead of {MODEL_TYPE!r}; "
            "give the folder of a download of Qwen2.5-Omni"
        )
    return Qwen2_5OmniTextConfig(**text)


def require_all(model: nn.Module, shards: Shards) -> None:
    """Checks that the files hold the model's tensors, all of them and no others.

    Also those that no picked layer needs are checked: a folder that lacks one of them is damaged or
    of another model, and nothing of it can be trusted.
    """
    weights = dict(model.named_parameters())
    if unknown := sorted(set(shards.names) - set(weights)):
        raise InputError(
            f"{shards.folder} has tensors that its {CONFIG_FILE} does not ask for, {unknown[0]} "
            f"and {len(unknown) - 1} more; take both from one download"
        )
    check_shapes(model, {name: name for name in weights}, shards)


def text_model(config: Any) -> Any:
    """The model of a config; its device is the one set by the caller."""
    from transformers import Qwen2_5OmniThinkerTextModel

    config._attn_implementation = "sdpa"
    return Qwen2_5OmniThinkerTextModel(config).eval()


def download(hub_name: str) -> Path:
    """Downloads a model's config, tokenizer and text shards, unless the hub's cache has them.

    Args:
        hub_name: The model on the Hugging Face hub.

    Returns:
        The folder with the files.

    Raises:
        InputError: If a file is neither in the cache nor on the hub, or arrives damaged.
    """
    if folder := cached_folder(hub_name):
        return folder
    try:
        for file in needed_files(hub_name):
            folder = hub_files.download(file).parent
    except InputError as error:
        raise InputError(
            f"The text encoder {hub_name} cannot be had: {error} A folder with its files will do "
            "too (--text-files)."
        ) from error
    assert folder is not None
    return folder


def cached_folder(hub_name: str) -> Path | None:
    """The folder of the hub's cache where a model is whole; None if anything is missing."""
    index = hub_files.cached(hub_name, INDEX_FILE)
    config = hub_files.cached(hub_name, CONFIG_FILE)
    if index is None or config is None:
        return None
    shards = shards_of(index, PREFIX)
    complete = all((index.parent / shard).is_file() for shard in shards)
    return index.parent if complete and has_vocabulary(index.parent) else None


def needed_files(hub_name: str) -> list[hub_files.HubFile]:
    """The files of a model on the hub that the text encoder reads; the index is downloaded.

    Raises:
        InputError: If the hub cannot be reached, or has no such model.
    """
    there = hub_files.list_files(hub_name)
    if INDEX_FILE not in there:
        raise InputError(f"{hub_name} has no {INDEX_FILE}; it is not a release of Qwen2.5-Omni.")
    shards = shards_of(hub_files.download(there[INDEX_FILE]), PREFIX)
    if missing := [shard for shard in shards if shard not in there]:
        raise InputError(f"{hub_name} lacks {', '.join(missing)}, which its {INDEX_FILE} names.")
    wanted = (CONFIG_FILE, *TOKENIZER_FILES, INDEX_FILE, *shards)
    return [there[name] for name in wanted if name in there]

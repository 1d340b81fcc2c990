"""Names of the large language models, and how a folder of one is recognized without loading it."""

import json
from pathlib import Path

HUB_NAMES = {
    "qwen2.5-omni-7b": "Qwen/Qwen2.5-Omni-7B",
    "qwen2.5-omni-3b": "Qwen/Qwen2.5-Omni-3B",
}
"""Repositories of the language models on the hub."""

CONFIG_FILE = "config.json"

MODEL_TYPE = "qwen2_5_omni"
"""Model type in the config of each of them."""


def is_language_model(name_or_folder: str) -> bool:
    """Whether this is a name of `HUB_NAMES`, or a folder with the config of such a model."""
    if name_or_folder in HUB_NAMES:
        return True
    try:
        config = json.loads((Path(name_or_folder) / CONFIG_FILE).read_text("utf-8"))
        return bool(config.get("model_type") == MODEL_TYPE)
    except (OSError, ValueError, AttributeError):
        return False

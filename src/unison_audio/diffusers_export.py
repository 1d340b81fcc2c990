"""Writes a checkpoint as a folder that diffusers loads."""

import json
import os
from importlib.metadata import version
from pathlib import Path

from unison_audio.checkpoint_files import (
    CODEC_FILES,
    CONFIG_FILE,
    WEIGHTS_FILE,
    open_checkpoint,
)
from unison_audio.errors import InputError
from unison_audio.files import copy_whole, folder_of, remove_unfinished
from unison_audio.locks import only_writer
from unison_audio.model_card import write_card

FORMATS = ("diffusers",)

INDEX_FILE = "model_index.json"

COMPONENT = "unison"

CHECKPOINT = "checkpoint"
"""Folder of the checkpoint in the component's. Of a component's own folder, diffusers downloads
config.json and the weights alone where they have a usual name, and leaves nano's codec behind; of
one without weights it downloads everything, also from the folders below."""

_PIPELINE = '''"""The pipeline of this folder; needs the package unison-audio."""

from unison_audio.diffusers_pipeline import UnisonPipeline

__all__ = ["UnisonPipeline"]
'''

_COMPONENT = '''"""The component of this folder; needs the package unison-audio."""

from unison_audio.diffusers_pipeline import UnisonComponent

__all__ = ["UnisonComponent"]
'''


def export(name_or_path: str | os.PathLike[str], folder: Path, form: str = "diffusers") -> None:
    """Write a checkpoint in another library's layout.

    The folder has model_index.json, pipeline.py, and the checkpoint in a subfolder.

    Args:
        name_or_path: A variant's name, a checkpoint's folder, or `owner/name` on the hub.
        folder: Where to; made if missing.
        form: A member of `FORMATS`.

    Raises:
        InputError: There is no such checkpoint or format, the folder cannot be written, or another
            process writes to it.
    """
    if form not in FORMATS:
        raise InputError(f"There is no format {form!r}; use {', '.join(FORMATS)}.")
    opened = open_checkpoint(name_or_path)
    source = opened.folder
    if folder.resolve() == source.resolve():
        raise InputError(f"{folder} is the checkpoint itself; give another folder.")
    inner = folder / COMPONENT / CHECKPOINT
    # The largest first: a disk without room for them gets nothing.
    names = (WEIGHTS_FILE, *CODEC_FILES, CONFIG_FILE)
    with folder_of(inner / WEIGHTS_FILE), only_writer(folder, "export"):
        remove_unfinished((inner / name for name in names), seconds=0)
        for name in names:
            if (source / name).is_file():
                copy_whole(source / name, inner / name)
        (folder / COMPONENT / f"{COMPONENT}_component.py").write_text(_COMPONENT, "utf-8")
        (folder / "pipeline.py").write_text(_PIPELINE, "utf-8")
        index = {
            "_class_name": ["pipeline", "UnisonPipeline"],
            "_diffusers_version": version("diffusers"),
            COMPONENT: [f"{COMPONENT}_component", "UnisonComponent"],
        }
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
        write_card(folder, opened.variant, weights=source / WEIGHTS_FILE)

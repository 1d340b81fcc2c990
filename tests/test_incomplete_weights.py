"""Every loading path refuses a file that lacks a tensor or is an unrelated pickle.

A model with a layer at random would give another sound, and say nothing. `tests/text/test_qwen.py`
has the same for the language model, in its shards.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_mmaudio import TINY, random_originals

from unison_audio.codecs.mmaudio import CONFIGS
from unison_audio.codecs.mmaudio_weights import empty_codec, import_originals, load_mmaudio
from unison_audio.codecs.table import load_nano_codec
from unison_audio.errors import InputError
from unison_audio.pipeline import Unison
from unison_audio.text.minilm import MiniLmEncoder, _packaged
from unison_audio.text.states import TextSetup


def without_one(path: Path) -> None:
    weights = load_file(path)
    del weights[sorted(weights)[len(weights) // 2]]
    save_file(weights, path)


def unrelated_pickle(path: Path) -> None:
    torch.save({"unrelated": torch.zeros(3)}, path)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A folder with the files of every path."""
    folder = tmp_path_factory.mktemp("published")
    shutil.copytree(tiny_checkpoint, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONFIGS, "mmaudio-16k", TINY["mmaudio-16k"])
        state = import_originals(empty_codec("mmaudio-16k"), *random_originals(TINY["mmaudio-16k"]))
    save_file(state, folder / "mmaudio-16k.safetensors")
    text = _packaged()
    assert text is not None
    shutil.copytree(text, folder / "minilm")
    return folder


PATHS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "backbone": ("model.safetensors", Unison.from_pretrained),
    "nano codec": ("codec.safetensors", load_nano_codec),
    "codec and vocoder": ("mmaudio-16k.safetensors", lambda f: load_mmaudio("mmaudio-16k", f)),
    "MiniLM": (
        "minilm/model.safetensors",
        lambda folder: MiniLmEncoder(TextSetup(picks=(1,), files=folder / "minilm")),
    ),
}


@pytest.mark.parametrize("change", [without_one, unrelated_pickle])
@pytest.mark.parametrize("path", PATHS)
def test_it_is_refused(
    path: str,
    change: Callable[[Path], None],
    published: Path,
    tmp_path: Path,
    stub_text: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(CONFIGS, "mmaudio-16k", TINY["mmaudio-16k"])
    file, load = PATHS[path]
    folder = shutil.copytree(published, tmp_path / "changed")
    load(folder)
    change(folder / file)
    with pytest.raises(InputError):
        load(folder)

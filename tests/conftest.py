"""A tiny checkpoint of nano's kind, for all tests that run the whole path."""

from pathlib import Path

import pytest
from tiny_unison import StubEncoder, random_backbone, random_codec, tiny_variant

from unison_audio import checkpoint
from unison_audio.codecs.table import load_nano_codec, save_nano_codec
from unison_audio.pipeline import Unison
from unison_audio.text.table import TEXT_ENCODERS


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `Unison.from_pretrained` takes it."""
    folder = tmp_path_factory.mktemp("tiny")
    variant = tiny_variant()
    checkpoint.save(folder, variant, random_backbone(variant))
    save_nano_codec(folder, random_codec())
    return folder


@pytest.fixture
def stub_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Unison.from_pretrained` takes the stub for MiniLM."""
    monkeypatch.setitem(TEXT_ENCODERS, "minilm", StubEncoder)


@pytest.fixture(scope="session")
def tiny(tiny_checkpoint: Path) -> Unison:
    """The tiny checkpoint with the stub for its text encoder."""
    variant, backbone = checkpoint.load(tiny_checkpoint)
    return Unison(variant, backbone, load_nano_codec(tiny_checkpoint), StubEncoder())

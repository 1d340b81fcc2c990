"""A tiny checkpoint of nano's kind, for all tests that run the whole path."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, serve_hub
from tiny_unison import StubEncoder, random_backbone, random_codec, tiny_variant

from unison_audio import checkpoint
from unison_audio.codecs.table import load_nano_codec, save_nano_codec
from unison_audio.pipeline import Unison
from unison_audio.text.table import TEXT_ENCODERS
from unison_audio.transcription import ENVIRONMENT


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `Unison.from_pretrained` takes it."""
    folder = tmp_path_factory.mktemp("tiny")
    variant = tiny_variant()
    checkpoint.save(folder, variant, random_backbone(variant))
    save_nano_codec(folder, random_codec())
    return folder


@pytest.fixture(autouse=True)
def no_asr(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reference is transcribed unless a test asks for it, whether the extra is installed."""
    monkeypatch.setenv(ENVIRONMENT, "none")


@pytest.fixture
def stub_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Unison.from_pretrained` takes the stub for MiniLM."""
    monkeypatch.setitem(TEXT_ENCODERS, "minilm", StubEncoder)


@pytest.fixture(scope="session")
def tiny(tiny_checkpoint: Path) -> Unison:
    """The tiny checkpoint with the stub for its text encoder."""
    variant, backbone = checkpoint.load(tiny_checkpoint)
    return Unison(variant, backbone, load_nano_codec(tiny_checkpoint), StubEncoder())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub on this machine in place of the real one, and empty caches."""
    with serve_hub() as server:
        constants = "huggingface_hub.constants"
        template = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{constants}.ENDPOINT", server.url)
        monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", server.url + template)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", server.url)  # as imported
        monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("UNISON_AUDIO_CACHE", str(tmp_path / "cache"))
        yield server

"""Downloads from a hub on this machine: resumed, verified, and refused with one sentence."""

import pytest
from hub_server import Hub

from unison_audio import hub_files
from unison_audio.errors import InputError
from unison_audio.hub import ChecksumError

CONTENT = bytes(range(256)) * 400 + b"the end"
REPO = "someone/weights"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client waits between attempts."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)


@pytest.fixture
def served(hub: Hub) -> Hub:
    hub.repos[REPO] = {"a/model.safetensors": CONTENT, "config.json": b'{"a": 1}'}
    return hub


def test_files_are_listed_with_their_sizes(served: Hub) -> None:
    files = hub_files.list_files(REPO)
    assert {path: file.size for path, file in files.items()} == {
        "a/model.safetensors": len(CONTENT),
        "config.json": 8,
    }


@pytest.mark.parametrize("path", ["a/model.safetensors", "config.json"])
def test_a_file_arrives_once(served: Hub, path: str) -> None:
    file = hub_files.list_files(REPO)[path]
    assert hub_files.cached(REPO, path) is None
    found = hub_files.download(file)
    assert found.read_bytes() == served.repos[REPO][path]
    served.asked.clear()
    assert hub_files.download(file) == found == hub_files.cached(REPO, path)
    assert not served.asked


def test_a_connection_cut_three_times_gives_the_same_bytes(served: Hub) -> None:
    served.breaks = [10_000, 30_000, 5_000]
    found = hub_files.download(hub_files.list_files(REPO)["a/model.safetensors"])
    assert found.read_bytes() == CONTENT
    assert not served.breaks


def test_damaged_content_is_removed_and_had_anew(served: Hub) -> None:
    path = "a/model.safetensors"
    served.damaged.add(f"{REPO}/{path}")
    file = hub_files.list_files(REPO)[path]
    with pytest.raises(ChecksumError, match=r"model\.safetensors arrived damaged.*again"):
        hub_files.download(file)
    assert hub_files.cached(REPO, path) is None
    served.damaged.clear()
    assert hub_files.download(file).read_bytes() == CONTENT


def test_answers_that_are_refusals_say_what_to_do(served: Hub) -> None:
    with pytest.raises(InputError, match=r"no repository someone/else.*check the name"):
        hub_files.list_files("someone/else")
    file = hub_files.list_files(REPO)["config.json"]
    gone = hub_files.HubFile(repo=REPO, path="gone.pt", size=1, sha256="0" * 64, sha1="0" * 40)
    with pytest.raises(InputError, match=r"no file someone/weights/gone\.pt"):
        hub_files.download(gone)
    served.gated.add(REPO)
    with pytest.raises(InputError, match=r"asks for a login.*accept the terms.*hf auth login"):
        hub_files.download(file)


def test_without_a_network(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    file = hub_files.list_files(REPO)["config.json"]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for ask in (lambda: hub_files.list_files(REPO), lambda: hub_files.download(file)):
        with pytest.raises(InputError, match=r"cannot be had from the hub.*check the connection"):
            ask()

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from file_server import serve

from unison_audio import hub as downloads
from unison_audio.errors import InputError
from unison_audio.hub import ChecksumError, UnreachableError, cache_folder, fetch

CONTENT = bytes(range(256)) * 9000 + b"the end"
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def served():
    with serve({"weights.pt": CONTENT}) as server:
        yield server


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "weights.pt"


def left_beside(target: Path) -> list[str]:
    return [path.name for path in target.parent.iterdir() if path.suffix == ".partial"]


@pytest.mark.parametrize("checksum", [{"md5": MD5}, {"sha256": SHA256}], ids=["md5", "sha256"])
def test_a_file_arrives_whole_and_progress_is_reported(served, target, checksum):
    told = []
    fetch(
        f"{served.url}/weights.pt",
        target,
        on_progress=lambda done, total: told.append((done, total)),
        **checksum,
    )
    assert target.read_bytes() == CONTENT
    assert left_beside(target) == []
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert told == sorted(told)


def test_what_is_there_is_not_asked_for_again(served, target):
    target.parent.mkdir()
    target.write_bytes(b"anything")
    fetch(f"{served.url}/weights.pt", target, md5=MD5)
    assert served.asked == []


def test_a_later_call_asks_for_the_rest_alone(served, target):
    target.parent.mkdir()
    target.with_name("weights.pt.partial").write_bytes(CONTENT[:100_000])
    told = []
    fetch(
        f"{served.url}/weights.pt", target, md5=MD5, on_progress=lambda done, _: told.append(done)
    )
    assert target.read_bytes() == CONTENT
    assert served.asked == [("/weights.pt", "bytes=100000-")]
    assert told[0] == 100_000


def test_a_connection_that_breaks_off_is_taken_up_again(served, target):
    served.break_after = 70_000
    fetch(f"{served.url}/weights.pt", target, md5=MD5)
    assert target.read_bytes() == CONTENT
    assert served.asked == [("/weights.pt", None), ("/weights.pt", "bytes=70000-")]


def test_a_server_that_sends_no_parts_sends_all(served, target):
    served.ranges = False
    target.parent.mkdir()
    target.with_name("weights.pt.partial").write_bytes(b"x" * 5000)
    fetch(f"{served.url}/weights.pt", target, md5=MD5)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "partial", [CONTENT, CONTENT + b"too much"], ids=["already whole", "longer than the file"]
)
def test_a_partial_file_with_nothing_left_to_send(served, target, partial):
    target.parent.mkdir()
    target.with_name("weights.pt.partial").write_bytes(partial)
    fetch(f"{served.url}/weights.pt", target, md5=MD5)
    assert target.read_bytes() == CONTENT


def test_a_damaged_file_is_refused_and_the_next_call_starts_afresh(served, target):
    target.parent.mkdir()
    target.with_name("weights.pt.partial").write_bytes(b"x" * 5000)
    with pytest.raises(ChecksumError, match=rf"md5 is [0-9a-f]{{32}} where {MD5} is expected"):
        fetch(f"{served.url}/weights.pt", target, md5=MD5)
    assert not target.exists()
    assert left_beside(target) == []
    fetch(f"{served.url}/weights.pt", target, md5=MD5)
    assert target.read_bytes() == CONTENT


def test_a_file_that_the_server_lacks(served, target):
    with pytest.raises(UnreachableError, match=r"answers 404 Not Found.*put it at .*other\.pt"):
        fetch(f"{served.url}/other.pt", target.with_name("other.pt"), md5=MD5)


def test_without_a_network(served, target):
    url = served.url.rsplit(":", 1)[0] + ":9/weights.pt"  # nothing listens there
    with pytest.raises(UnreachableError, match=r"refused.*connect to the network.*put it at"):
        fetch(url, target, md5=MD5)
    assert not target.exists()


def test_a_full_disk_is_noticed_before_anything_is_written(served, target, monkeypatch):
    usage = shutil.disk_usage(target.parent.parent)._replace(free=1000)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match=r"needs another 2 MB and .* has 0 MB left; make room"):
        fetch(f"{served.url}/weights.pt", target, md5=MD5)
    assert left_beside(target) == []


def test_a_folder_that_cannot_be_made(served, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot be read or written .*\$UNISON_AUDIO_CACHE"):
        fetch(f"{served.url}/weights.pt", tmp_path / "file" / "weights.pt", md5=MD5)
    assert served.asked == []


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("UNISON_AUDIO_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("UNISON_AUDIO_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "unison-audio"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / "home" / ".cache" / "unison-audio"


def test_of_two_that_want_a_file_one_downloads_it(served, target):
    def want(_: int) -> bytes:
        fetch(f"{served.url}/weights.pt", target, md5=MD5)
        return target.read_bytes()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(want, range(2))) == [CONTENT, CONTENT]
    assert len(served.asked) == 1

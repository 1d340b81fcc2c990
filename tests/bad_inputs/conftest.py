"""The folder of the table's files, which the rows are run in."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from odd_files import write_all


@pytest.fixture(scope="session")
def odd(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    write_all(folder, tiny_checkpoint)
    return folder


@pytest.fixture
def there(odd: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in the folder; whatever a row leaves behind fails it."""
    monkeypatch.chdir(odd)
    before = listing(odd)
    yield odd
    assert listing(odd) == before, "something was left behind, or something is gone"


def listing(folder: Path) -> set[str]:
    return {
        os.path.join(place, name)  # noqa: PTH118
        for place, folders, files in os.walk(folder)
        for name in (*folders, *files)
    }

"""A test authority for all tests of marks."""

from pathlib import Path

import pytest
from authority import make_authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of `make_authority`."""
    folder = tmp_path_factory.mktemp("authority")
    make_authority(folder)
    return folder

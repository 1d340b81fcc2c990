"""Killed while they write: commands whose rerun gives what a first run gives."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unison_audio.cli import main as cli
from unison_audio.errors import InputError
from unison_audio.locks import only_writer

DIES = """
import os, signal, sys
from tiny_unison import StubEncoder
from unison_audio import files
from unison_audio.cli import main as cli
from unison_audio.text.table import TEXT_ENCODERS

TEXT_ENCODERS["minilm"] = StubEncoder
part = files._part

def half(path):
    found = part(path)
    if path.name == sys.argv[1]:
        found.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return found

files._part = half
cli.main(sys.argv[2:])
"""


def files_of(folder: Path) -> dict[str, bytes]:
    """Name -> content of all files, hidden ones too."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize(
    ("words", "file"),
    [(["export"], "codec.safetensors"), (["demo", "--steps", "1"], "t2a-output.png")],
    ids=["export", "demo"],
)
def test_a_rerun_finishes_what_a_killed_process_began(
    words: list[str], file: str, tiny_checkpoint: Path, stub_text: None, tmp_path: Path
) -> None:
    variant = [str(tiny_checkpoint)] if words == ["export"] else ["--variant", str(tiny_checkpoint)]
    command, out = [*words, *variant, "-o"], tmp_path / "out"
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    killed = subprocess.run(
        [sys.executable, "-c", DIES, file, *command, str(out)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-500:]
    hidden = {Path(name).name for name in files_of(out) if Path(name).name.startswith(".")}
    assert ".lock" in hidden
    assert any(name.startswith(f".{file}.") for name in hidden)

    assert cli.main([*command, str(out)]) == 0
    assert cli.main([*command, str(tmp_path / "fresh")]) == 0
    again, fresh = files_of(out), files_of(tmp_path / "fresh")
    assert again.keys() == fresh.keys()
    assert [name for name in fresh if again[name] != fresh[name]] == []


def test_two_exports_do_not_write_to_one_folder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from unison_audio.diffusers_export import export

    with only_writer(tmp_path, "export"), pytest.raises(InputError, match=r"process \d+"):
        export(tiny_checkpoint, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))

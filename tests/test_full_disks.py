"""Full disks: every command that writes weights says so in one sentence and leaves no half file."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from full_disk import full_disk, left, one_sentence
from safetensors.torch import load_file
from tiny_unison import RATE, random_backbone, random_codec, tiny_variant

from unison_audio.checkpoint import save
from unison_audio.cli import main as cli
from unison_audio.codecs.table import save_nano_codec
from unison_audio.errors import InputError
from unison_audio.locks import only_writer
from unison_audio.tensor_files import write_tensors
from unison_audio.training.checkpoints import full_disk_as_input_error


def test_finetune(
    tiny_checkpoint: Path, stub_text: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wave = 0.2 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    soundfile.write(tmp_path / "a.wav", wave, RATE)
    examples, run = tmp_path / "own.jsonl", tmp_path / "run"
    examples.write_text(json.dumps({"audio": "a.wav", "label": "a kazoo"}) + "\n")
    command = ["finetune", str(examples), "--run", str(run), "--variant", str(tiny_checkpoint)]
    command += ["--steps", "2", "--items", "1", "--rank", "2"]
    with full_disk():
        code = cli.main(command)
    said = one_sentence(code, capsys.readouterr().err)
    assert "is full (File too large)" in said
    assert "rerun the same command" in said
    assert not left(run)
    assert cli.main(command) == 0
    assert load_file(run / "weights" / "model.safetensors")


def test_weights_at_the_end_of_a_run(tmp_path: Path) -> None:
    """Checkpoints of a run may fit where its weights do not: the last files to write."""
    folder, variant = tmp_path / "weights", tiny_variant()
    with full_disk(), pytest.raises(InputError, match=r"File too large\); make room"):
        save(folder, variant, random_backbone(variant))
    assert not left(folder)
    codec = random_codec()
    with (
        full_disk(),
        pytest.raises(InputError, match=r"is full .*resumes from the beginning"),
        full_disk_as_input_error(folder),
    ):
        save_nano_codec(folder, codec)
    assert not left(folder)
    save_nano_codec(folder, codec)
    before = (folder / "codec.safetensors").read_bytes()
    with full_disk(), pytest.raises(OSError, match="File too large"):
        save_nano_codec(folder, codec)
    assert (folder / "codec.safetensors").read_bytes() == before


def test_quantize_and_export(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("quantize", "export"):
        with full_disk():
            code = cli.main([command, str(tiny_checkpoint), "-o", str(tmp_path / command)])
        assert "File too large" in one_sentence(code, capsys.readouterr().err)
        assert not list(tmp_path.iterdir())


def test_a_lock_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with (
        full_disk(0),
        pytest.raises(InputError, match=r"\.lock cannot be written \(File too large\)"),
        only_writer(tmp_path, "batch"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_the_error_of_the_system_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with full_disk(), pytest.raises(OSError, match="File too large") as caught:
        write_tensors({"a": torch.zeros(100_000)}, path)
    assert (caught.value.errno, caught.value.filename) == (27, str(path))
    with pytest.raises(FileNotFoundError):
        write_tensors({"a": torch.zeros(1)}, tmp_path / "none" / "x.safetensors")
    write_tensors({"a": torch.ones(3)}, path)
    assert load_file(path)["a"].tolist() == [1, 1, 1]

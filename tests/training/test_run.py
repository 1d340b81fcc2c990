"""From a folder of recordings to a trained full-size variant, by the commands, on small models."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_full_size import files  # noqa: F401

from unison_audio import checkpoint
from unison_audio.cli import main as cli
from unison_audio.training.checkpoints import load_checkpoint

RATE = 22_050
WORDS = ("red", "blue", "dog", "cat")


@pytest.fixture
def corpus(files: Path) -> Path:  # noqa: F811
    """A corpus of 12 sounds of 4 kinds and 12 utterances of 2 speakers, 8 of them held out."""
    root = files / "recordings"
    root.mkdir()
    rows = []
    for i in range(24):
        spoken = i >= 12
        seconds = 0.62 + 0.02 * (i % 12)
        time = np.arange(round(seconds * RATE)) / RATE
        soundfile.write(root / f"{i}.wav", 0.2 * np.sin(2 * np.pi * (150 + 30 * i) * time), RATE)
        said = {
            "text": f"{WORDS[i % 4]} {WORDS[(i + 1) % 4]}",
            "gender": ("male", "female")[i % 2],
            "speaker": f"speaker-{i % 2}",
            "language": "en",
        }
        heard = {"caption": f"Tone {i % 4} sounds.", "label": f"tone {i % 4}"}
        split = "heldout" if i % 12 >= 8 else "train"
        rows.append({"audio": f"{i}.wav", "split": split, **(said if spoken else heard)})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "metadata.jsonl").write_text(lines)
    command = ["data", "folder", "--root", str(root), "--out", str(files / "shards")]
    assert cli.main([*command, "--workers", "1"]) == 0
    return files / "shards"


def train(corpus: Path, run: Path, *options: str) -> int:
    folder = corpus.parent
    command = ["train", "backbone", "--variant", "d24-16k", "--corpora", str(corpus)]
    where = ["--codec-files", str(folder / "mmaudio")]
    where += ["--text-files", str(folder / "Qwen2.5-Omni-7B"), "--workers", "0", "--cpu"]
    return cli.main([*command, "--run", str(run), *where, "--mixed-precision", "no", *options])


def test_from_recordings_to_a_sound(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--steps", "4", "--items", "1", "--held-out", str(corpus))
    prompt = ("--system-prompt-file", str(corpus.parent / "prompt.txt"))
    assert train(corpus, run, *options, *prompt) == 0
    variant, _ = checkpoint.load(run / "weights")
    assert variant.system_prompt == "You hear what is to be heard."
    assert len((run / "log.jsonl").read_text().splitlines()) == 4
    validated = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    assert validated[-1]["step"] == 4
    assert len(validated[-1]) == 2 + 15  # step, mean, and every task
    made = ["generate", "[Audio] Tone 1 sounds", "--variant", str(run / "weights")]
    where = ["--codec-files", str(corpus.parent / "mmaudio")]
    where += ["--text-files", str(corpus.parent / "Qwen2.5-Omni-7B")]
    assert cli.main([*made, *where, "-o", str(tmp_path / "sound.wav")]) == 0


def test_a_resumed_run_equals_one_run(corpus: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(corpus, whole, "--steps", "6", "--items", "1") == 0
    assert train(corpus, parts, "--steps", "3", "--items", "1") == 0
    assert load_checkpoint(parts)["step"] == 3
    assert train(corpus, parts, "--steps", "6", "--items", "1") == 0

    def tasks_and_losses(run: Path) -> list[tuple[str, float]]:
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        return [(line["task"], line["loss"]) for line in lines]

    assert tasks_and_losses(parts) == tasks_and_losses(whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--recipe", "quick"), 'Invalid value "quick" for --recipe. Choose from: "base"'),
        (("--dtype", "int8"), 'Invalid value "int8" for --dtype'),
        (("--init", "nothing"), "no folder 'nothing'"),
        (("--trackers", "paper"), "no tracker 'paper'"),
    ],
)
def test_mistakes_are_one_sentence(
    options: tuple[str, ...], message: str, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert train(corpus, corpus.parent / "run", *options) == 2
    assert message in capsys.readouterr().err

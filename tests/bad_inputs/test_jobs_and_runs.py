"""Jobs files line by line, results by content, one writer a folder, runs with other settings."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from odd_files import RATE, tone_file
from rows import LONG, RAIN, TTS

from unison_audio.cli import main as cli
from unison_audio.errors import InputError
from unison_audio.locks import only_writer
from unison_audio.training.run_settings import own_run

PROGRAM = (sys.executable, "-m", "unison_audio")


def write(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8", "surrogatepass")
    return path


LINES: dict[str, Any] = {
    "deep": "[" * 100_000 + "]" * 100_000,
    "digits": '{"instruction": "[Audio] rain", "seed": ' + "9" * 5000 + "}",
    "seed": {"instruction": RAIN, "seed": 10**30},
    "surrogate": {"instruction": "[Audio] \ud800"},
    "nul name": {"instruction": RAIN, "output": "a\0.wav"},
    "long name": {"instruction": RAIN, "output": f"{LONG}.wav"},
    "part name": {"instruction": RAIN, "output": f"{'n' * 244}.wav"},
    "source text": {"instruction": RAIN, "source": 3},
    "long source": {"instruction": "[Edit][Audio] Add rain", "source": f"{LONG}.wav"},
    "results": {"instruction": RAIN, "output": "../out/x.wav"},
    "steps": {"instruction": RAIN, "steps": 1.5},
    "duration": {"instruction": RAIN, "duration": float("inf")},
    "interval": {"instruction": RAIN, "guidance_interval": [0.5]},
    "regions": {"instruction": RAIN, "region": {"from": 1}},
    "strict": {"instruction": RAIN, "strict": "yes"},
    "extract": {"instruction": RAIN, "extract": "yes"},
    "tokens": {"instruction": "[Audio] " + "rain " * 400},
}


@pytest.mark.parametrize("name", LINES)
def test_a_bad_line_is_found_before_the_first_job(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = write(tmp_path / "jobs.jsonl", {"instruction": RAIN}, LINES[name])
    assert cli.main(["batch", str(jobs), "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"unison-audio: {jobs}, line 2: "), said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lines_end_at_line_feeds_alone(
    mark: str, tiny_checkpoint: Path, stub_text: None, tmp_path: Path
) -> None:
    job = {"instruction": '[Speech] A male voice saying "red\u2028dog\u0085go"', "steps": 1}
    text = mark + json.dumps({**job, "guidance_interval": [0.2, 0.9]}, ensure_ascii=False) + "\r\n"
    (tmp_path / "jobs.jsonl").write_text(text, "utf-8", newline="")
    words = ["batch", str(tmp_path / "jobs.jsonl"), "-o", str(tmp_path / "out")]
    assert cli.main([*words, f"--variant={tiny_checkpoint}"]) == 0


class Batch:
    """A batch of one edit and one sound in a folder of its own."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.out, self.source = folder / "out", tone_file(folder / "source.wav", 0.5, RATE)
        self.jobs = write(
            folder / "jobs.jsonl",
            {"instruction": "[Edit][Audio] Add rain", "source": "source.wav", "steps": 1},
            {"instruction": TTS, "duration": 0.5, "steps": 1},
        )
        self.words = ["batch", str(self.jobs), "-o", str(self.out), f"--variant={checkpoint}"]

    def run(self, *more: str) -> int:
        return cli.main([*self.words, *more])

    def made(self, capsys: pytest.CaptureFixture[str]) -> list[str]:
        """The outputs that the last run made."""
        lines = capsys.readouterr().out.splitlines()
        return [Path(line.split(": ")[0]).name for line in lines]


@pytest.fixture
def batch(tmp_path: Path, tiny_checkpoint: Path, stub_text: None) -> Batch:
    return Batch(tmp_path, tiny_checkpoint)


def test_results_are_known_by_content(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    assert batch.run() == 0
    assert batch.made(capsys) == ["0001.wav", "0002.wav"]
    assert batch.run() == 0
    assert batch.made(capsys) == []
    tone_file(batch.source, 0.7, RATE)  # replaced under the same name
    assert batch.run() == 0
    assert batch.made(capsys) == ["0001.wav"]
    (batch.out / "0002.wav").write_bytes(b"")  # emptied
    assert batch.run() == 0
    assert batch.made(capsys) == ["0002.wav"]
    whole = (batch.out / "0002.wav").read_bytes()
    (batch.out / "0002.wav").write_bytes(whole[: len(whole) // 2])  # cut
    assert batch.run() == 0
    assert batch.made(capsys) == ["0002.wav"]
    assert batch.run("--dtype=bfloat16") == 0
    assert len(batch.made(capsys)) == 2


def test_other_weights_make_the_results_again(
    batch: Batch, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(tiny_checkpoint, tmp_path / "weights")
    batch.words[-1] = f"--variant={copy}"
    assert batch.run() == 0
    found = load_file(copy / "model.safetensors")
    save_file({name: 1.01 * value for name, value in found.items()}, copy / "model.safetensors")
    capsys.readouterr()
    assert batch.run() == 0
    assert batch.made(capsys) == ["0001.wav", "0002.wav"]


def test_files_of_others_are_not_replaced(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    batch.out.mkdir()
    mine = tone_file(batch.out / "0002.wav", 0.2, RATE)
    before = mine.read_bytes()
    assert batch.run() == 2
    assert "line 2: " in capsys.readouterr().err
    assert mine.read_bytes() == before
    assert not (batch.out / "0001.wav").exists()
    assert batch.run("--overwrite") == 0
    assert mine.read_bytes() != before


def test_an_output_stays_in_the_folder(
    batch: Batch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.out.mkdir()
    (batch.out / "0002.wav").symlink_to(tone_file(tmp_path / "mine.wav", 0.5, RATE))
    before = (tmp_path / "mine.wav").read_bytes()
    for flags in ((), ("--overwrite",)):
        assert batch.run(*flags) == 2
        assert "line 2: " in capsys.readouterr().err
        assert (tmp_path / "mine.wav").read_bytes() == before
        assert (batch.out / "0002.wav").is_symlink()


def test_a_link_to_nothing_is_refused_before_the_model_is_loaded(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*given: Any) -> None:
        pytest.fail("the model is loaded")

    monkeypatch.setattr("unison_audio.cli.job_machines.job_machine", load)
    link = batch.out
    link.symlink_to("nothing")
    for batch.out in (link, link / "sub"):
        batch.words[3] = str(batch.out)
        assert batch.run() == 2
        assert f"{link} is a link to nothing, which is not there" in capsys.readouterr().err
    assert not (link.parent / "nothing").exists()


def test_what_a_killed_process_left_is_removed(
    batch: Batch, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    (batch.out / "sub").mkdir(parents=True)
    left = [".0002.wav.0123abcd.part", ".results.jsonl.0123abcd.part"]
    others = [".0003.wav.0123abcd.part", ".0002.wav.part", ".0002.wav.0123.part", "sub/.0002.wav.x"]
    for name in (*left, *others):
        (batch.out / name).write_bytes(b"half")
    assert batch.run() == 0
    assert not any((batch.out / name).exists() for name in left)
    assert all((batch.out / name).exists() for name in others)

    old, new = tmp_path / ".x.wav.01234567.part", tmp_path / ".x.wav.76543210.part"
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))  # the new one may be another process' own
    words = ["generate", TTS, "-o", str(tmp_path / "x.wav"), "--steps=1", "--duration=0.5"]
    assert cli.main([*words, f"--variant={tiny_checkpoint}"]) == 0
    assert not old.exists()
    assert new.exists()


HOLD = """
import sys, time
from pathlib import Path
from unison_audio.locks import only_writer
with only_writer(Path(sys.argv[1]), "batch"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_by_process_and_host(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch.out.mkdir()
    command = [sys.executable, "-c", HOLD, str(batch.out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert batch.run() == 2
        said = capsys.readouterr().err
        assert f"process {other.pid} on {os.uname().nodename}" in said
        other.kill()
    assert batch.run() == 0  # a killed owner keeps no lock
    with only_writer(batch.out, "batch"):
        assert batch.run() == 2  # nor does one process get it twice
    assert not list(batch.out.glob(".lock*"))


def test_a_run_is_resumed_with_its_own_settings(tmp_path: Path) -> None:
    def begin(steps: int = 10, **settings: Any) -> None:
        with own_run(tmp_path / "run", {"rank": 16, "corpus": "a" * 64, **settings}, steps):
            pass

    begin()
    begin(rank=8)  # nothing is saved yet
    begin()
    torch.save({"step": 5}, tmp_path / "run" / "checkpoint-00000005.pt")
    begin(steps=20)
    with pytest.raises(InputError, match="started with --rank 16, not 8"):
        begin(rank=8)
    with pytest.raises(InputError, match="other content of --corpus"):
        begin(corpus="b" * 64)
    with pytest.raises(InputError, match="has done 5 steps, and 4 are asked for"):
        begin(steps=4)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"), own_run(tmp_path / "file", {}, 1):
        pass


ODD = [
    ("generate", RAIN, "-o", "x.txt"),
    ("generate", RAIN, "-o", "x.wav", "--steps=1.5"),
    ("generate", RAIN, "-o", "x.wav", "--seed=1e30"),
    ("generate", RAIN, "-o", "x.wav", "--device=meta"),
    ("generate", RAIN, "-o", "x.wav", "--variant=gone"),
    ("batch", "gone.jsonl", "-o", "out"),
    ("finetune", "gone.jsonl", "--run", "run"),
    ("evaluate", "nano", "--corpus", "gone", "--out", "out"),
    ("data", "folder", "--root", "gone", "--out", "out"),
    ("tasks", "extra"),
]


@pytest.mark.parametrize("words", ODD, ids=lambda words: " ".join(words)[:60])
def test_as_a_program(words: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("unison-audio: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("delay", [0.15, 0.25, 0.35])
def test_an_early_interrupt_is_quiet(delay: float, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "generate", RAIN, "-o", str(tmp_path / "x.wav"), "--steps=1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore interrupts, and hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # Python's own start cannot be guarded, so the wait is for the package's first file.
    mapped = Path(f"/proc/{process.pid}/maps")
    while "python" not in mapped.read_text():
        time.sleep(0.005)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert process.returncode in (130, -signal.SIGINT)
    assert not list(tmp_path.iterdir())


def test_sigterm_ends_with_a_sentence_and_its_code(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "generate", RAIN, "-o", str(tmp_path / "x.wav"), "--steps=1000"],
        stderr=subprocess.PIPE,
        text=True,
    )
    mapped = Path(f"/proc/{process.pid}/maps")
    while "tokenizers" not in mapped.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.2)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == cli.TERMINATED == 143
    assert err.startswith("unison-audio: Stopped by SIGTERM")
    assert not list(tmp_path.iterdir())

"""A run killed again and again, at moments nobody chose, against one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from unison_audio.training.checkpoints import load_checkpoint

STEPS, KILLS = 100, 10
SERVER = """
import dataclasses, os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import torch
from training.conftest import make_clips, tiny_codec_config
from training.test_trainer import RECIPE, make_trainer
from unison_audio.codecs.nano import NanoCodec
from unison_audio.training import objective
from unison_audio.training.loop import train_backbone

def train(folder):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    codec = NanoCodec(tiny_codec_config()).eval().requires_grad_(False)
    recipe = dataclasses.replace(RECIPE, steps=int(sys.argv[2]), checkpoint_every=2)
    objective.SAMPLE_STEPS = 1
    train_backbone(make_trainer(make_clips(), codec, recipe), Path(folder), workers=1)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        train(line.strip())
        os._exit(0)
    os.setpgid(child, child)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Starts runs as processes of their own, without importing torch again for each."""


class Runs:
    """Starts one run after the other and kills them."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", SERVER, str(Path(__file__).parents[1]), str(STEPS)]
        self.server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(self, folder: Path) -> int:
        assert self.server.stdin is not None
        self.server.stdin.write(f"{folder}\n")
        return self._line()

    def result(self) -> int:
        """Of the run begun last, when it has ended."""
        return self._line()

    def _line(self) -> int:
        assert self.server.stdout is not None
        return int(self.server.stdout.readline())


def losses(folder: Path) -> list[float]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def lines_in(log: Path) -> int:
    return log.read_text().count("\n") if log.exists() else 0


@pytest.fixture
def runs():
    started = Runs()
    yield started
    started.server.stdin.close()
    started.server.wait(timeout=60)
    started.server.stdout.close()


def test_a_run_killed_ten_times_ends_with_the_same_weights(runs: Runs, tmp_path: Path) -> None:
    """SIGKILL while it starts, computes or saves; to the bit."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    runs.start(whole)
    assert runs.result() == 0
    draw = random.Random(0)
    reached = []
    for _ in range(KILLS):
        saved = sorted(killed.glob("checkpoint-*.pt"))
        first = int(saved[-1].stem.split("-")[1]) if saved else 0
        steps, moment = draw.randint(0, 2), draw.uniform(0, 0.15)
        process = runs.start(killed)
        until = time.monotonic() + 60
        while steps and lines_in(killed / "log.jsonl") < first + steps:
            assert time.monotonic() < until
            time.sleep(0.002)
        time.sleep(moment)
        os.killpg(process, signal.SIGKILL)
        assert runs.result() == -signal.SIGKILL
        reached.append(lines_in(killed / "log.jsonl"))
    assert 0 < reached[-1] < STEPS
    runs.start(killed)
    assert runs.result() == 0
    assert len(losses(whole)) == STEPS
    assert losses(killed) == losses(whole)
    assert not list(killed.glob("*.partial"))
    ours, theirs = load_checkpoint(killed), load_checkpoint(whole)
    for part in ("backbone", "ema"):
        assert ours[part].keys() == theirs[part].keys()
        for name, value in theirs[part].items():
            assert torch.equal(ours[part][name], value), name

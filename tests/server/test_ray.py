"""`serve --ray`: two replicas on this machine answer as one server does."""

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from server_process import (
    SPEECH,
    RunningServer,
    read_sound,
    speech,
    start_server,
    stop_server,
    wait_until,
)

from unison_audio.cli import main as cli


@pytest.mark.slow
def test_two_replicas_answer_as_one_server(server: RunningServer, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    flags = ("--ray", "--min-replicas", "2")
    running = start_server(tmp_path, *flags, RAY_AUTH_MODE="disabled")
    try:
        fields = speech(response_format="wav", seed=3)
        with running.client() as many, server.client() as one:
            wanted = one.post(SPEECH, json=fields).content
            for _ in range(12):
                answer = many.post(SPEECH, json=fields)
                assert answer.status_code == 200
                assert answer.content == wanted
            assert many.get("/health").text == "OK"
            wrong = many.post(SPEECH, json=speech(voice="nobody"))
            assert wrong.status_code == 400
            assert wrong.json()["error"]["code"] == "voice_not_found"
        first = replicas(running)
        assert len(first) == 2

        # One is killed under load. OpenAI's client asks again where its answer was lost.
        create = running.openai(max_retries=4).audio.speech.create
        ask = partial(create, **speech(response_format="wav"), extra_body={"seed": 3})
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(ask) for _ in range(16)]
            os.kill(int(first.pop()), signal.SIGKILL)
            sounds = [read_sound(answer.result().content)[0] for answer in answers]
        expected = read_sound(wanted)[0]
        # One step of 16 bit: sounds of equal length are decoded together.
        assert all(np.abs(sound - expected).max() <= 1.01 / 32768 for sound in sounds)
        wait_until(lambda: len(replicas(running)) == 3, 90)  # another one took its place
    finally:
        assert stop_server(running) == 0


def replicas(running: RunningServer) -> set[str]:
    """Numbers of the replicas' processes that have been there."""
    text = running.log.read_text(errors="replace")
    return set(re.findall(r"ServeReplica:unison-audio:unison-audio pid=(\d+)", text))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--min-replicas", "2"), "--ray"),
        (("--ray", "--wyoming", "10200"), "--wyoming does not go"),
        (("--ray", "--device", "cpu,cpu"), "one device"),
    ],
)
def test_bad_flags_are_said(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], said: str
) -> None:
    assert cli.main(["serve", *flags]) == 2
    assert said in capsys.readouterr().err

"""`serve --ray`: two replicas on this machine answer as one server does."""

import hashlib
import re
from pathlib import Path

import pytest
from server_process import SPEECH, RunningServer, speech, start_server, stop_server

from unison_audio.cli import main as cli


@pytest.mark.slow
def test_two_replicas_answer_as_one_server(server: RunningServer, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    flags = ("--ray", "--min-replicas", "2")
    running = start_server(tmp_path, *flags, RAY_AUTH_MODE="disabled")
    try:
        fields = speech(response_format="pcm", seed=3)
        with running.client() as many, server.client() as one:
            wanted = hashlib.sha256(one.post(SPEECH, json=fields).content).digest()
            for _ in range(12):
                answer = many.post(SPEECH, json=fields)
                assert answer.status_code == 200
                assert hashlib.sha256(answer.content).digest() == wanted
            assert many.get("/health").text == "OK"
            wrong = many.post(SPEECH, json=speech(voice="nobody"))
            assert wrong.status_code == 400
            assert wrong.json()["error"]["code"] == "voice_not_found"
    finally:
        assert stop_server(running) == 0
    text = running.log.read_text(errors="replace")
    assert len(set(re.findall(r"ServeReplica:unison-audio:unison-audio pid=(\d+)", text))) == 2


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

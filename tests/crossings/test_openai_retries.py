"""OpenAI's client sends a POST again by itself: what the server's errors make it do."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from openai import APIConnectionError, APIStatusError, OpenAI

from unison_audio.server.api_errors import ApiError, error_response

SPEECH: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": "hello"}


class Answers(ThreadingHTTPServer):
    error: ApiError | None = None
    """What is answered; None for a sound that breaks off."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[bytes] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Answers

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.close_connection = True
        if self.server.error is None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"RIFF")
            return
        answer = error_response(self.server.error)
        self.send_response(answer.status_code)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(bytes(answer.body))

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def answers() -> Iterator[Answers]:
    server = Answers()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def client(server: Answers) -> OpenAI:
    """With the client's own number of retries."""
    return OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}/v1")


@pytest.mark.parametrize(("status", "times"), [(409, 1), (504, 1), (507, 1), (400, 1), (503, 3)])
def test_what_cannot_help_is_asked_once(answers: Answers, status: int, times: int) -> None:
    answers.error = ApiError(status, "It is so.")
    with pytest.raises(APIStatusError) as failed:
        client(answers).audio.speech.create(**SPEECH)
    assert failed.value.status_code == status
    assert len(answers.bodies) == times


def test_a_sound_that_breaks_off_is_asked_for_three_times(answers: Answers) -> None:
    """As docs/server.md says; the client gives the server nothing to know them by."""
    with pytest.raises(APIConnectionError):
        client(answers).audio.speech.create(**SPEECH)
    assert len(answers.bodies) == 3
    assert len({json.dumps(json.loads(body), sort_keys=True) for body in answers.bodies}) == 1

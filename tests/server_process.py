"""A server in a process of its own for tests, and what reads its answers."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import soundfile
from openai import OpenAI

SPEECH = "/v1/audio/speech"


@dataclass(frozen=True)
class RunningServer:
    process: subprocess.Popen
    url: str
    log: Path
    voices: Path
    wyoming: int = 0
    references: int = 0
    """Port of this machine that recordings may be fetched from."""

    def client(self, **options: Any) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=60, **options)

    def openai(self, **options: Any) -> OpenAI:
        options = {"api_key": "no-key", "max_retries": 0, **options}
        return OpenAI(base_url=f"{self.url}/v1", **options)

    def entries(self, event: str) -> list[dict[str, Any]]:
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [entry for entry in map(json.loads, lines) if entry["event"] == event]

    def metric(self, name: str) -> float:
        with self.client() as client:
            lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def wait_idle(self) -> None:
        wait_until(lambda: self.metric("unison_audio_active_requests ") == 0)


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(
    folder: Path, *flags: str, port: int | None = None, **environment: str
) -> RunningServer:
    """Start a server whose sounds are made in few steps, so that tests are quick."""
    port, log = port or free_port(), folder / "log.jsonl"
    few = ["--steps", "4", "--num-candidates", "1"]
    command = [sys.executable, "-m", "unison_audio.cli.main", "serve", "--port", str(port)]
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "--voices", str(folder / "voices"), *few, *flags],
            stderr=out,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
    server = RunningServer(process, f"http://127.0.0.1:{port}", log, folder / "voices")

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx2.get(f"{server.url}/readyz", timeout=5).status_code == 200
        except httpx2.TransportError:
            return False

    wait_until(ready, 240)  # Ray alone takes half a minute
    return server


def stop_server(server: RunningServer) -> int:
    server.process.send_signal(signal.SIGTERM)
    return server.process.wait(30)


def speech(**fields: Any) -> dict[str, Any]:
    return {"model": "tts-1", "input": "good morning", "voice": "alloy", **fields}


def read_sound(data: bytes) -> tuple[np.ndarray, int]:
    """(samples, channels) and the rate."""
    return soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)


def wav_bytes(seconds: float = 1.0, rate: int = 16_000, channels: int = 1) -> bytes:
    noise = np.random.default_rng(0).standard_normal((round(seconds * rate), channels))
    file = io.BytesIO()
    soundfile.write(file, (0.1 * noise).astype("float32"), rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def warnings_of(answer: httpx2.Response) -> list[str]:
    return list(json.loads(answer.headers.get("x-unison-warnings", "[]")))


def error_of(answer: httpx2.Response, status: int) -> dict[str, Any]:
    """The error of an answer, whose form is checked."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"].endswith(".")
    return dict(body["error"])

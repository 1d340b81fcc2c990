"""Batches, a full queue, deadlines, clients that leave, and a worker that dies."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai as sdk
import pytest
from server_process import (
    SPEECH,
    RunningServer,
    error_of,
    free_port,
    read_sound,
    speech,
    start_server,
    wait_until,
)

from unison_audio import Unison
from unison_audio.cli.main import main
from unison_audio.errors import InputError
from unison_audio.sampling_params import SamplingParams, resolve_sampling
from unison_audio.server import scheduler as scheduler_module
from unison_audio.server.answers import (
    BrokenAnswerError,
    Desk,
    Parts,
    SoundResponse,
    SoundRun,
    explained,
)
from unison_audio.server.batching import CancelledError, QueuedCall, Ticket, choose_batch
from unison_audio.server.limits import Limits
from unison_audio.server.model_worker import ModelCall, WorkerConfig
from unison_audio.server.scheduler import Scheduler
from unison_audio.server.telemetry import Telemetry
from unison_audio.server.worker_process import WorkerLostError
from unison_audio.tasks.table import TASKS
from unison_audio.variants import VARIANTS

LONG = "the red dog is in the house. " * 12


def queued(seconds: float, task: str = "t2a", **changes: Any) -> QueuedCall:
    params = changes.pop("params", SamplingParams(steps=4))
    call = QueuedCall(
        call=ModelCall(instruction="", inputs={}),
        sampling=params,
        settings=resolve_sampling(VARIANTS["nano"], params).for_task(TASKS[task]),
        seconds=seconds,
        ticket=Ticket("one"),
        first=changes.pop("first", True),
    )
    for name, value in changes.items():
        setattr(call, name, value)
    return call


def test_a_batch_holds_similar_lengths_and_equal_settings() -> None:
    head, near, far = queued(2.0), queued(2.9), queued(3.1)
    other = queued(2.0, params=SamplingParams(steps=5))
    speech_call = queued(2.0, "tts")
    assert choose_batch([head, near, far, other, speech_call], 16) == [head, near]


def test_sounds_of_one_length_stand_together_and_the_oldest_length_leads() -> None:
    calls = [queued(seconds, queued_at=float(n)) for n, seconds in enumerate([2.0, 2.5, 2.0, 2.2])]
    first, second, third, fourth = calls
    assert choose_batch(calls, 16) == [first, third, second, fourth]
    assert choose_batch(calls, 2) == [first, third]
    assert choose_batch([second, fourth], 2) == [second, fourth]


def test_candidates_count_and_the_oldest_goes_first() -> None:
    four = SamplingParams(steps=4, num_candidates=4)
    calls = [queued(2.0, "tts", params=four) for _ in range(9)]
    assert choose_batch(calls, 16) == calls[:4]
    later = queued(2.0, first=False, queued_at=calls[0].queued_at - 1)
    assert choose_batch([later, calls[0]], 4) == [calls[0]]
    waiting = queued(2.0, first=False, queued_at=calls[0].queued_at - 3)
    assert choose_batch([calls[0], waiting], 4) == [waiting]


def test_where_a_request_stands() -> None:
    scheduler = Scheduler((), Limits(), Telemetry())
    one, two, three = tickets = [scheduler.admit(name) for name in ("one", "two", "three")]
    places = ((one, 3.0), (two, 2.0), (two, 1.0))
    scheduler.submit([queued(1.0, ticket=ticket, queued_at=at) for ticket, at in places])
    assert scheduler.standing("one") == (3, 3, 2)
    assert scheduler.standing("two") == (3, 3, 0)
    assert scheduler.standing(three.request_id) == (3, 3, 0)  # it runs, or has asked for nothing
    assert scheduler.standing("four") == (3, 3, None)
    for ticket in tickets:
        scheduler.release(ticket, 1.0)
    assert scheduler.standing("one") == (0, 0, None)


def test_the_steps_of_a_running_request_are_told(
    server: RunningServer, client: httpx2.Client
) -> None:
    server.wait_idle()
    body = {"input": "rain", "steps": 300, "audio_length": 1.0}
    asked = {"request_id": "steps-1"}
    seen: list[dict[str, Any]] = []

    def look() -> bool:
        seen.append(client.get("/v1/audio/queue", params=asked).json())
        return seen[-1]["step"] is not None and seen[-1]["step"] > 1

    with ThreadPoolExecutor(1) as pool:
        headers = {"X-Request-Id": "steps-1"}
        answer = pool.submit(client.post, "/v1/audio/generate", json=body, headers=headers)
        wait_until(look, 60)
        assert (seen[-1]["steps"], seen[-1]["ahead"]) == (300, 0)
        assert answer.result(120).status_code == 200
    assert not look()


def test_what_may_have_killed_a_worker_runs_alone() -> None:
    poison, healthy = queued(2.0, lost=1), queued(2.0)
    assert choose_batch([poison, healthy], 16) == [poison]
    assert choose_batch([queued(2.0, queued_at=0.0), poison], 16) != [poison]


def test_answers_of_a_batch_equal_those_of_the_model_alone(
    server: RunningServer, client: httpx2.Client, tmp_path: Path
) -> None:
    bodies = [{"input": "rain", "audio_length": 1.5 + 0.1 * (i // 2), "seed": i} for i in range(5)]

    def ask(body: dict[str, Any]) -> bytes:
        return client.post("/v1/audio/generate", json=body).content

    batches = server.metric("unison_audio_batch_size_count")
    with ThreadPoolExecutor(5) as pool:
        together = list(pool.map(ask, bodies))
    assert server.metric("unison_audio_batch_size_count") - batches < 5
    unison = Unison.from_pretrained("nano")
    for body, answer in zip(bodies, together, strict=True):
        alone = unison.generate(
            "[Audio] rain", duration=body["audio_length"], seed=body["seed"], steps=4,
            num_candidates=1,
        )  # fmt: skip
        alone.save(tmp_path / "alone.wav")
        one, other = (
            read_sound(data)[0] * 32768 for data in (answer, (tmp_path / "alone.wav").read_bytes())
        )
        # A step of 16 bit: sounds of equal length are decoded together, and then differ by 1e-6.
        assert np.abs(one - other).max() <= 1


def test_fact_11_a_full_queue_answers_429_and_takes_more_later(
    server: RunningServer, client: httpx2.Client
) -> None:
    server.wait_idle()
    with ThreadPoolExecutor(6) as pool:
        held = [pool.submit(hold_stream, server) for _ in range(6)]
        wait_until(lambda: server.metric("unison_audio_active_requests ") == 6)
        answer = client.post(SPEECH, json=speech())
        assert error_of(answer, 429)["code"] == "queue_full"
        assert int(answer.headers["retry-after"]) >= 1
        with pytest.raises(sdk.RateLimitError):
            server.openai().audio.speech.create(**speech())
        RELEASE.set()
        assert all(one.result() for one in held)
    # Clients that left are cancelled: their twelve sentences are not spoken to the end.
    server.wait_idle()
    assert client.post(SPEECH, json=speech(input="yes")).status_code == 200
    assert server.metric("unison_audio_cancelled_requests_total") >= 6


RELEASE = threading.Event()


def hold_stream(server: RunningServer) -> bool:
    """Start an answer, read no more than its beginning, and leave."""
    with server.client() as own:
        request = own.stream("POST", SPEECH, json=speech(input=LONG, steps=30))
        with request as answer:
            RELEASE.wait(30)
            return answer.status_code == 200


def test_a_client_that_leaves_before_the_first_byte(server: RunningServer) -> None:
    before = server.metric("unison_audio_cancelled_requests_total")
    with server.client() as own, pytest.raises(httpx2.ReadTimeout):
        own.post(SPEECH, json=speech(steps=1000, num_candidates=4), timeout=0.3)
    server.wait_idle()
    assert server.metric("unison_audio_cancelled_requests_total") == before + 1


def test_a_deadline_answers_504(server: RunningServer, client: httpx2.Client) -> None:
    started = time.monotonic()
    headers = {"X-Unison-Deadline": "0.3"}
    answer = client.post(SPEECH, json=speech(steps=1000, num_candidates=4), headers=headers)
    assert error_of(answer, 504)["code"] == "deadline"
    assert time.monotonic() - started < 5
    server.wait_idle()
    error_of(client.post(SPEECH, json=speech(), headers={"X-Unison-Deadline": "soon"}), 400)


def test_a_slow_reader_holds_up_nobody_and_loses_nothing(
    server: RunningServer, client: httpx2.Client
) -> None:
    # Some 20 s of sound, a megabyte: more than the buffers of a connection hold.
    text = "the red bird is on the water. my dog has the blue ball. " * 6
    body = speech(input=text, response_format="pcm", steps=2, seed=3)
    whole = client.post(SPEECH, json=body).content
    assert len(whole) > 700_000
    with client.stream("POST", SPEECH, json=body) as slow:
        pieces = slow.iter_raw(20_000)
        read = [next(pieces)]
        started = time.monotonic()
        with server.client() as other:
            for _ in range(3):
                assert other.post(SPEECH, json=speech(steps=2)).status_code == 200
                read.append(next(pieces))
                time.sleep(0.2)
        assert time.monotonic() - started < 20
        read += pieces
    assert b"".join(read) == whole
    server.wait_idle()


def worker_pid(server: RunningServer) -> int:
    return int(server.entries("worker ready")[-1]["pid"])


def test_a_killed_worker_costs_no_request(server: RunningServer, client: httpx2.Client) -> None:
    server.wait_idle()
    body = {"input": "rain", "steps": 100, "seed": 4, "audio_length": 1.0}
    with ThreadPoolExecutor(1) as pool:
        first = worker_pid(server)
        answer = pool.submit(lambda: client.post("/v1/audio/generate", json=body))
        wait_until(lambda: server.metric("unison_audio_active_requests ") == 1)
        time.sleep(0.3)
        os.kill(first, signal.SIGKILL)
        found = answer.result(90)
    # The same call at the next worker gives the same sound, so nobody notices.
    assert found.status_code == 200
    assert worker_pid(server) != first
    assert found.content == client.post("/v1/audio/generate", json=body).content
    assert server.metric("unison_audio_worker_restarts_total") == 1


class DyingProcess:
    """A worker that is lost with every batch."""

    pid = memory_bytes = 0
    starts = 0

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config

    def start(self, stopping: Any) -> None:
        DyingProcess.starts += 1

    def run(self, *batch: Any) -> None:
        raise WorkerLostError("the worker died")

    def stop(self) -> None:
        """Nothing is left of it."""


def test_a_call_that_loses_two_workers_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "ModelProcess", DyingProcess)
    monkeypatch.setattr(scheduler_module, "RESTART_SECONDS", (0.0,))
    scheduler = Scheduler([WorkerConfig(checkpoint="nano")], Limits(), Telemetry())
    scheduler.start()
    call = queued(2.0)
    scheduler.submit([call])
    with pytest.raises(WorkerLostError):
        call.future.result(10)
    assert call.lost == 2
    assert DyingProcess.starts >= 2
    call.ticket.cancelled.set()
    with pytest.raises(CancelledError):
        scheduler.submit([call])
    scheduler.stop()
    with pytest.raises(WorkerLostError):
        scheduler.submit([queued(2.0)])


def test_a_lost_worker_is_503_with_a_time_to_retry() -> None:
    error = explained(WorkerLostError("the worker died"), 1.0)
    assert (error.status, error.code) == (503, "worker_lost")
    assert int(error.headers["Retry-After"]) >= 1


def test_sigterm_lets_running_answers_end_and_voices_stay(tmp_path: Path) -> None:
    key = "a-key-for-the-tests"
    second = start_server(tmp_path, "--max-input-characters", "500", UNISON_AUDIO_API_KEYS=key)
    check_keys(second, key)
    parts: list[bytes] = []
    begun = threading.Event()

    def read() -> None:
        headers = {"Authorization": f"Bearer {key}"}
        body = speech(input="good morning. the red dog.", response_format="wav", steps=30)
        with second.client(headers=headers) as own:  # noqa: SIM117
            with own.stream("POST", SPEECH, json=body) as answer:
                for part in answer.iter_raw():
                    parts.append(part)
                    begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(30)
    worker = worker_pid(second)
    second.process.send_signal(signal.SIGTERM)
    reader.join(30)
    assert second.process.wait(30) == 0
    samples, rate = read_sound(b"".join(parts))
    assert len(samples) > 1.0 * rate  # both sentences
    wait_until(lambda: not Path(f"/proc/{worker}").exists())


def run_in_memory(parts: Parts, *, leaves: bool = False) -> tuple[list[dict[str, Any]], int]:
    """Send an answer without a network: its messages, and the requests that are left."""
    scheduler = Scheduler([], Limits(), Telemetry())
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        while not leaves or len(sent) < 4:
            await asyncio.sleep(0.005)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def answer() -> None:
        with ThreadPoolExecutor(2) as pool:
            desk = Desk(
                variant=VARIANTS["nano"],
                scheduler=scheduler,
                telemetry=scheduler.telemetry,
                deadline_seconds=0.3,
                pool=pool,
            )
            ticket = scheduler.admit("one")
            run = SoundRun(desk=desk, ticket=ticket, parts=parts, deadline=0.3, route="/")
            try:
                await SoundResponse(run, b"first", "audio/wav", {})({}, receive, send)
            finally:
                for _ in range(100):
                    if not scheduler._tickets:
                        break
                    await asyncio.sleep(0.02)

    try:
        asyncio.run(answer())
    finally:
        sent.append({"left": len(scheduler._tickets)})
    return sent[:-1], sent[-1]["left"]


def test_a_whole_answer_ends_and_gives_its_place_back() -> None:
    sent, left = run_in_memory(part for part in (b"second", b"third"))
    bodies = [(one["body"], one["more_body"]) for one in sent[1:]]
    assert bodies == [(b"first", True), (b"second", True), (b"third", True), (b"", False)]
    assert left == 0


def failing(error: Exception) -> Parts:
    yield b"second"
    raise error


def endless(closed: list[bool]) -> Parts:
    try:
        while True:
            yield b"more"
    finally:
        closed.append(True)


def test_an_answer_that_cannot_be_ended_is_broken_off() -> None:
    # An exception is what lets the HTTP server break the connection in place of ending it.
    for error in (InputError("too late"), WorkerLostError("died"), RuntimeError("bug")):
        with pytest.raises(BrokenAnswerError) as raised:
            run_in_memory(failing(error))
        assert raised.value.__suppress_context__  # whose message may quote a text

    def slow() -> Parts:
        time.sleep(1)
        yield b"late"

    with pytest.raises(BrokenAnswerError, match="TimeoutError"):
        run_in_memory(slow())


def test_a_reader_that_vanished_ends_the_generator() -> None:
    closed: list[bool] = []
    sent, left = run_in_memory(endless(closed), leaves=True)
    assert len(sent) >= 4
    assert (closed, left) == ([True], 0)


def test_flags_that_cannot_be_used(
    server: RunningServer,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UNISON_AUDIO_CACHE", str(tmp_path))
    port = server.url.rpartition(":")[2]
    for flags, message in (
        (["--port", port], "cannot listen at 127.0.0.1"),
        (["--port", "99999"], "The port is 99999"),
        (["--port", "0", "--max-requests", "0"], "max_requests is 0"),
        (["--port", "0", "--api-keys-file", str(tmp_path / "none")], "The file of keys"),
        (["--port", "0", "--variant", "none"], "none"),
        (["--port", "0", "--voices", "/dev/null/voices"], "The folder /dev/null/voices"),
    ):
        assert main(["serve", *flags]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_device_that_is_missing_ends_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unison_audio.cli.main", "serve", "--port", str(free_port())]
    flags = ["--device", "meta:x", "--voices", str(tmp_path)]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "The device 'meta:x' cannot be used" in done.stderr.splitlines()[-1]


def check_keys(server: RunningServer, key: str) -> None:
    with server.client() as own:
        for path in (
            *("/health", "/readyz", "/v1/models", "/v1/audio/models", "/v1/audio/voices"),
            *("/", "/studio/studio.js", "/v1/audio/tasks"),
        ):
            assert own.get(path).status_code == 200  # Open WebUI lists without a key
        for path in ("/metrics", "/v1/audio/voices/one", "/v1/audio/queue"):
            error_of(own.get(path), 401)
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {key}"}):
            answer = own.post(SPEECH, json=speech(), headers=headers)
            assert error_of(answer, 401)["code"] == "invalid_api_key"
        bad = speech(voice="nobody")
        for headers in ({"Authorization": f"Bearer {key}"}, {"xi-api-key": key}):
            error_of(own.post(SPEECH, json=bad, headers=headers), 400)
    with pytest.raises(sdk.AuthenticationError):
        server.openai().audio.speech.create(**speech())

"""Sizes, uploads, origins, malformed bodies, logs: what a hostile client may try."""

import io
import json
import random
import socket
import struct
import wave
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import soundfile
from server_process import SPEECH, RunningServer, error_of, speech, wav_bytes

from unison_audio.errors import InputError
from unison_audio.server.api_errors import ApiError
from unison_audio.server.api_keys import ApiKeys, read_keys
from unison_audio.server.limits import Limits
from unison_audio.server.recording_store import RecordingStore, StoredVoice
from unison_audio.server.uploads import open_upload

EDITS = "/v1/audio/edits"


def edit(client: httpx2.Client, audio: bytes, **fields: Any) -> httpx2.Response:
    data = {"instruction": "[Edit][Audio] Add rain", **fields}
    return client.post(EDITS, files={"audio": ("a", audio)}, data=data)


def flac_of_silence(seconds: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(8000 * seconds, "int16"), 8000, format="FLAC")
    return file.getvalue()


def test_large_bodies_are_refused(client: httpx2.Client, server: RunningServer) -> None:
    assert error_of(client.post(SPEECH, content=b" " * 1_000_001), 413)["code"] == "body_too_large"

    def endless() -> Any:
        for _ in range(20):
            yield b"x" * 100_000

    chunked = {"Content-Type": "application/json"}
    assert error_of(client.post(SPEECH, content=endless(), headers=chunked), 413)
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as raw:
        head = "POST /v1/audio/edits HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n"
        raw.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 413")


def test_a_small_file_of_long_silence_is_refused_by_its_header(client: httpx2.Client) -> None:
    bomb = flac_of_silence(700)
    assert len(bomb) < 100_000
    assert "longer than the 600 s" in error_of(edit(client, bomb), 400)["message"]


def test_uploads_that_are_no_recordings(client: httpx2.Client, tmp_path: Path) -> None:
    playlist = f"#EXTM3U\n#EXTINF:1,\nfile://{tmp_path}/secret.wav\n".encode()
    broken = wav_bytes()[:5000]
    lying = bytearray(wav_bytes())
    struct.pack_into("<I", lying, 24, 4_000_000_000)  # samples per second
    for audio in (
        b"",
        b"hello",
        playlist,
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"\x1aE\xdf\xa3" + bytes(200),
        b"\x00\x00\x00\x20ftypM4A " + bytes(200),
        b"\xff\xf1" + bytes(200),
        broken,
        bytes(lying),
    ):
        message = error_of(edit(client, audio), 400)["message"]
        assert "/tmp" not in message
        assert str(tmp_path) not in message


def test_webm_and_m4a_are_read(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    noise = (0.1 * np.random.default_rng(0).standard_normal((1, 48_000))).astype("float32")
    for name, codec in (("webm", "libopus"), ("mp4", "aac"), ("adts", "aac"), ("mp3", "mp3")):
        path = tmp_path / name
        with av.open(str(path), "w", format=name) as container:
            stream = container.add_stream(codec, rate=48_000)
            frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            frame.sample_rate = 48_000
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
        found = open_upload(path, "audio", Limits(), 2.0)
        assert found.seconds == pytest.approx(1.0, abs=0.1)
        with pytest.raises(InputError, match=r"longer than the 0\.5 s"):
            open_upload(path, "audio", Limits(), 0.5)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"instruction": ""}, "instruction"),
        ({"instruction": "[Audio] rain"}, "instruction"),
        ({"response_format": "wma"}, "response_format"),
        ({"response_format": "pcm"}, "response_format"),
        ({"regions": "9-10"}, None),
        ({"regions": "1-0.5"}, None),
        ({"regions": "[[0, 1], 3]"}, "regions"),
        ({"regions": "[" * 5000}, "regions"),
        ({"seed": "-1"}, "seed"),
        ({"seed": "٣"}, "seed"),
        ({"extract": "maybe"}, "extract"),
        ({"extract": "true"}, None),
        ({"task": "cook"}, "task"),
        ({"model": "none"}, "model"),
        ({"steps": "many"}, None),
        ({"guidance_scale": "NaN"}, None),
    ],
)
def test_bad_edits(client: httpx2.Client, fields: dict[str, str], param: str | None) -> None:
    error = error_of(edit(client, wav_bytes(), **fields), 404 if param == "model" else 400)
    assert error["param"] == param


@pytest.mark.parametrize("field", ["task", "solver", "preset", "temperature", "guidance_interval"])
def test_an_answer_does_not_repeat_a_long_field(client: httpx2.Client, field: str) -> None:
    error = error_of(edit(client, wav_bytes(), **{field: "x" * 500_000}), 400)
    assert 10 < len(error["message"]) <= 1400


def test_bad_timelines(client: httpx2.Client) -> None:
    good = {"start": 0, "end": 1, "text": "rain"}
    for events in (
        [],
        [{**good, "start": 2}],
        [{**good, "text": "[Edit][Audio] Remove rain"}],
        [{**good, "text": "rain. From 3s to 4s, thunder"}],
        [{**good, "text": "rain from 3s to 4s"}],
        [{**good, "text": "..."}],
        [{**good, "end": 5000}],
        [{"start": 0, "end": 1}],
        "rain",
    ):
        error_of(client.post("/v1/audio/timeline", json={"events": events}), 400)


def test_scripts_of_other_pages_are_refused(client: httpx2.Client, server: RunningServer) -> None:
    body, form = speech(voice="nobody"), {"name": "x"}
    for origin in ("https://evil.example", "null", server.url + "0"):
        headers = {"Origin": origin}
        assert error_of(client.post(SPEECH, json=body, headers=headers), 403)["code"] == "origin"
        error_of(client.post("/v1/audio/voices", data=form, headers=headers), 403)
        answer = client.get("/v1/models", headers=headers)
        assert "access-control-allow-origin" not in answer.headers
    error_of(client.post(SPEECH, json=body, headers={"Origin": server.url}), 400)


def test_malformed_bodies_never_break_the_server(client: httpx2.Client) -> None:
    rng = random.Random(0)
    good = json.dumps(speech()).encode()
    bodies = [b"", b"{", b"[]", b"null", b"1e999", b"[" * 50_000, b'{"a":' * 9_000, b"\xff\xfe{}"]
    bodies += [b'{"model":"tts-1","voice":"alloy","input":"\\ud800"}', good[:-1], good + b"{"]
    while len(bodies) < 60:
        broken = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        bodies.append(bytes(broken))
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    forms = [b"", b"--x--", b"--x\r\n", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--"]
    while len(forms) < 40:
        forms.append(rng.randbytes(rng.randint(1, 300)))
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded", ""):
        for body in bodies if kind == "application/json" else bodies[:3]:
            answer = client.post(SPEECH, content=body, headers={"Content-Type": kind})
            assert answer.status_code in (200, 400, 404), (body, answer.text)
            if answer.status_code != 200:
                error_of(answer, answer.status_code)
    for path in (EDITS, "/v1/audio/voices"):
        for body in forms:
            error_of(client.post(path, content=body, headers=multipart), 400)
    many = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' for _ in range(3000)
    )
    error_of(client.post(EDITS, content=many + b"--x--\r\n", headers=multipart), 400)
    assert client.get("/health").text == "OK"


def test_the_document_agrees_with_the_answers(server: RunningServer) -> None:
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from schemathesis import GenerationMode

    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    posts = [one for one in operations if one.method == "post"]
    assert len(posts) >= 7
    checked = []

    def check(case: Any) -> None:
        answer = case.call(timeout=30)
        documented = case.operation.definition.raw["responses"]
        assert str(answer.status_code) in documented, (case.path, answer.status_code, case.body)
        assert answer.status_code < 500
        checked.append(answer.status_code)

    for operation in posts:
        cases = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
        rules = settings(
            max_examples=4,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seed(1)(rules(given(cases)(check)))()
    assert len(checked) >= 24
    assert set(checked) >= {400}


def test_logs_hold_neither_texts_nor_sound(client: httpx2.Client, server: RunningServer) -> None:
    marker = "zanzibarquux"
    client.post(SPEECH, json=speech(input=f"{marker} yes"))
    client.post(SPEECH, json=speech(voice=marker))
    client.post("/v1/audio/generate", json={"input": f"[Speech] {marker}"})
    edit(client, wav_bytes(), instruction=f"[Edit][Audio] {marker}")
    assert marker not in server.log.read_text()
    last = server.entries("request")[-1]
    assert {"request_id", "method", "route", "status", "seconds"} <= set(last)
    assert last["route"] == EDITS


def test_metrics(client: httpx2.Client) -> None:
    text = client.get("/metrics").text
    for name in ("queued_sounds", "batch_size", "real_time_factor", "first_byte_seconds"):
        assert f"unison_audio_{name}" in text
    assert 'unison_audio_memory_bytes{process="worker"}' in text


def stored(store: RecordingStore[StoredVoice], name: str) -> StoredVoice:
    facts = {"name": name, "ref_text": "a", "consent": "b", "speaker_description": ""}
    return store.add(np.arange(5, dtype="float32"), 16_000, **facts)


def test_voices_are_stored_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RecordingStore(tmp_path, StoredVoice, "voice", 2)
    kept = stored(store, "one")
    # A full disk at the second of the two files, and at the first.
    original = Path.write_bytes
    for suffix in (".json", ".safetensors"):

        def full(self: Path, data: bytes, suffix: str = suffix) -> int:
            if suffix in self.name:
                original(self, data[: len(data) // 2])
                raise OSError(28, "No space left on device")
            return original(self, data)

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(ApiError) as error:
            stored(store, "two")
        assert error.value.status == 507
        monkeypatch.undo()
        assert [path.name for path in sorted(tmp_path.iterdir())] == [
            f"{kept.id}.json",
            f"{kept.id}.safetensors",
        ]
    # A kill between the two files leaves an orphan, which the next start removes.
    (tmp_path / f"voice_{'0' * 24}.safetensors").write_bytes(b"x")
    (tmp_path / f".voice_{'0' * 24}.json.1234.part").write_bytes(b"x")
    (tmp_path / f"voice_{'1' * 24}.json").write_text("{}")
    again = RecordingStore(tmp_path, StoredVoice, "voice", 2)
    assert again.all() == [kept]
    assert again.waveform(kept).tolist() == [0, 1, 2, 3, 4]
    assert not list(tmp_path.glob("*0000*"))
    stored(again, "two")
    with pytest.raises(ApiError) as limit:
        stored(again, "three")
    assert limit.value.code == "too_many"
    with pytest.raises(ApiError):
        stored(again, "one")


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNISON_AUDIO_API_KEYS", raising=False)
    assert not read_keys(None)
    assert ApiKeys(()).allows("", "")
    file = tmp_path / "keys"
    file.write_text("# ours\nfirst-key-123\n\nsecond-key-456\n")
    monkeypatch.setenv("UNISON_AUDIO_API_KEYS", "third-key-789, ")
    keys = read_keys(file)
    for key in ("first-key-123", "second-key-456", "third-key-789"):
        assert keys.allows(f"Bearer {key}", "")
        assert keys.allows("", key)
        assert not keys.allows(f"Bearer {key}x", "")
    assert not keys.allows("", "")
    assert not keys.allows("Bearer # ours", "")
    file.write_text("short\n")
    with pytest.raises(InputError, match="fewer than 8"):
        read_keys(file)
    file.write_text("# nothing\n")
    with pytest.raises(InputError, match="holds no key"):
        read_keys(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_keys(tmp_path / "none")


def test_a_wav_of_one_window_states_its_length(client: httpx2.Client) -> None:
    answer = client.post(SPEECH, json=speech(response_format="wav"))
    with wave.open(io.BytesIO(answer.content)) as file:
        assert len(file.readframes(1 << 24)) == 2 * file.getnframes() > len(answer.content) - 600

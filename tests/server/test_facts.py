"""The numbered facts about what existing clients send and expect.

Fact 11, a full queue, is in `test_scheduling.py`. Fact 25 is the Wyoming protocol, which has a port
of its own.
"""

import base64
import http.client
import json
from typing import Any

import httpx2
import numpy as np
import openai as sdk
import pytest
from openai import OpenAI
from server_process import (
    SPEECH,
    RunningServer,
    error_of,
    read_sound,
    speech,
    warnings_of,
    wav_bytes,
)

THIRTEEN = {
    *("alloy", "ash", "ballad", "coral", "echo", "fable", "onyx"),
    *("nova", "sage", "shimmer", "verse", "marin", "cedar"),
}

FORMATS = {
    "mp3": ("audio/mpeg", (b"\xff\xf3", b"ID3")),
    "opus": ("audio/ogg", (b"OggS",)),
    "aac": ("audio/aac", (b"\xff\xf1",)),
    "flac": ("audio/flac", (b"fLaC",)),
    "wav": ("audio/wav", (b"RIFF",)),
    "pcm": ("audio/pcm", ()),
}


def test_fact_01_unknown_fields_are_tolerated_and_named(client: httpx2.Client) -> None:
    answer = client.post(SPEECH, json=speech(accent="en", mood={"a": [1]}))
    assert answer.status_code == 200
    assert warnings_of(answer) == ["Unknown and ignored: accent, mood."]
    for field in ("model", "input", "voice"):
        body = speech()
        del body[field]
        assert error_of(client.post(SPEECH, json=body), 400)["param"] == field
    for field in ("input", "instructions"):
        error = error_of(client.post(SPEECH, json=speech(**{field: "no " * 1366})), 400)
        assert error["param"] == field


def test_fact_02_voice_is_a_string_or_an_object(client: httpx2.Client) -> None:
    text, thing = (
        client.post(SPEECH, json=speech(voice=voice, response_format="wav"))
        for voice in ("alloy", {"id": "alloy"})
    )
    assert text.content == thing.content
    assert text.status_code == 200


def test_fact_03_thirteen_voices_and_the_models(client: httpx2.Client) -> None:
    listed = {voice["id"] for voice in client.get("/v1/audio/voices").json()["data"]}
    assert listed >= THIRTEEN
    models = {model["id"] for model in client.get("/v1/models").json()["data"]}
    assert {"tts-1", "tts-1-hd", "gpt-4o-mini-tts", "nano"} <= models
    sounds = set()
    for voice, model in (("onyx", "tts-1-hd"), ("sage", "nano"), ("marin", "gpt-4o-mini-tts")):
        answer = client.post(SPEECH, json=speech(voice=voice, model=model, input="yes"))
        assert answer.status_code == 200
        sounds.add(answer.content)
    assert len(sounds) == 3


@pytest.mark.parametrize("name", FORMATS)
def test_fact_04_six_formats(openai: OpenAI, name: Any) -> None:
    answer = openai.audio.speech.create(**speech(input="hello"), response_format=name)
    media_type, beginnings = FORMATS[name]
    assert answer.response.headers["content-type"] == media_type
    assert not beginnings or answer.content.startswith(beginnings)
    assert len(answer.content) > 1000


def test_fact_04_mp3_is_the_default(openai: OpenAI) -> None:
    answer = openai.audio.speech.create(**speech())
    assert answer.response.headers["content-type"] == "audio/mpeg"
    samples, rate = read_sound(answer.content)
    assert len(samples) > 0.3 * rate
    assert np.abs(samples).max() > 0.02


def test_fact_05_speed_changes_the_length_and_not_the_pitch(client: httpx2.Client) -> None:
    def sound(speed: float) -> np.ndarray:
        body = speech(speed=speed, response_format="wav", input="my red house")
        return read_sound(client.post(SPEECH, json=body).content)[0][:, 0]

    usual = sound(1.0)
    for speed in (0.25, 0.5, 2.0, 4.0):
        assert len(sound(speed)) / len(usual) == pytest.approx(1 / speed, rel=0.12)

    def center(samples: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(samples)) ** 2
        return float((power * np.linspace(0, 8000, len(power))).sum() / power.sum())

    assert center(sound(0.5)) == pytest.approx(center(usual), rel=0.25)
    for bad in (0.2, 4.1, "fast"):
        assert error_of(client.post(SPEECH, json=speech(speed=bad)), 400)["param"] == "speed"


def test_fact_06_ids_retries_and_bearer_keys(client: httpx2.Client) -> None:
    answer = client.post(SPEECH, json=speech(), headers={"Accept": "application/octet-stream"})
    assert answer.headers["x-request-id"].startswith("req_")
    own = client.get("/v1/models", headers={"X-Request-Id": "mine-1"})
    assert own.headers["x-request-id"] == "mine-1"


def test_fact_07_the_answer_is_chunked(client: httpx2.Client) -> None:
    answer = client.post(SPEECH, json=speech())
    assert answer.headers["transfer-encoding"] == "chunked"


def test_fact_08_pcm_is_24_khz_and_opus_is_ogg(client: httpx2.Client) -> None:
    wav = client.post(SPEECH, json=speech(response_format="wav")).content
    samples, rate = read_sound(wav)
    pcm = client.post(SPEECH, json=speech(response_format="pcm")).content
    values = np.frombuffer(pcm, "<i2")
    assert len(values) / 24_000 == pytest.approx(len(samples) / rate, abs=0.001)
    assert np.abs(values).max() / 32768 == pytest.approx(np.abs(samples).max(), abs=0.02)
    opus = client.post(SPEECH, json=speech(response_format="opus")).content
    decoded, opus_rate = read_sound(opus)
    assert len(decoded) / opus_rate == pytest.approx(len(samples) / rate, abs=0.05)


def test_fact_09_events_are_exactly_the_documented_ones(client: httpx2.Client) -> None:
    body = speech(stream_format="sse", response_format="pcm", input="yes. no. stop.")
    with client.stream("POST", SPEECH, json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        blocks = "".join(answer.iter_text()).split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    events = [json.loads(block.removeprefix("data: ")) for block in blocks]
    *deltas, done = events
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    assert all(set(event) == {"type", "audio"} for event in deltas)
    assert set(done) == {"type", "usage"}
    assert done["type"] == "speech.audio.done"
    assert set(done["usage"]) == {"input_tokens", "output_tokens", "total_tokens"}
    assert done["usage"]["input_tokens"] == 3
    assert done["usage"]["output_tokens"] > 0
    streamed = b"".join(base64.b64decode(event["audio"]) for event in deltas)
    body["stream_format"] = "audio"
    whole = np.frombuffer(client.post(SPEECH, json=body).content, "<i2").astype(int)
    # A stream is resampled in float32 and a whole sound in float64.
    assert np.abs(np.frombuffer(streamed, "<i2") - whole).max() <= 2


def test_fact_09_a_long_wav_is_one_header_and_samples(client: httpx2.Client) -> None:
    body = speech(input="good morning. " * 3 + "the red dog is in the house.", voice="echo")
    with client.stream("POST", SPEECH, json={**body, "response_format": "wav"}) as answer:
        parts = [part for part in answer.iter_raw() if part]
    assert len(parts) > 1
    data = b"".join(parts)
    assert data.count(b"RIFF") == data.count(b"WAVEfmt ") == 1
    samples, rate = read_sound(data)
    assert len(data) - 400 < 2 * len(samples) < len(data)  # the tags are in the header
    assert len(samples) > 2 * rate


def test_fact_10_errors_have_four_keys(client: httpx2.Client, openai: OpenAI) -> None:
    error = error_of(client.post(SPEECH, json={"model": "tts-1", "voice": "nobody"}), 400)
    assert error["type"] == "invalid_request_error"
    missing = error_of(client.post(SPEECH, json=speech(model="whisper")), 404)
    assert (missing["param"], missing["code"]) == ("model", "model_not_found")
    error_of(client.get("/v1/nothing"), 404)
    error_of(client.put("/v1/models"), 405)
    with pytest.raises(sdk.BadRequestError) as raised:
        openai.audio.speech.create(**speech(input=" "))
    assert raised.value.body == error_of(client.post(SPEECH, json=speech(input=" ")), 400)
    with pytest.raises(sdk.NotFoundError, match="runs nano"):
        openai.audio.speech.create(**speech(model="whisper"))


def test_fact_12_models(openai: OpenAI, client: httpx2.Client) -> None:
    found = openai.models.list().data
    assert all(model.object == "model" and isinstance(model.created, int) for model in found)
    assert openai.models.retrieve("tts-1").id == "tts-1"
    assert openai.models.retrieve("nano").owned_by == "unison-audio"
    with pytest.raises(sdk.NotFoundError):
        openai.models.retrieve("owner/none")
    assert set(client.get("/v1/models").json()) == {"object", "data"}


def test_fact_13_voices_by_the_official_client(openai: OpenAI) -> None:
    consent = openai.audio.voice_consents.create(
        name="of ann", language="en-US", recording=("a.wav", wav_bytes(), "audio/wav")
    )
    assert consent.object == "audio.voice_consent"
    assert [one.id for one in openai.audio.voice_consents.list()] == [consent.id]
    assert openai.audio.voice_consents.update(consent.id, name="of anna").name == "of anna"
    assert openai.audio.voice_consents.retrieve(consent.id).name == "of anna"
    voice = openai.audio.voices.create(
        name="anna",
        audio_sample=("a.wav", wav_bytes(), "audio/wav"),
        consent=consent.id,
        extra_body={"ref_text": "good morning"},
    )
    assert (voice.object, voice.name, voice.type) == ("audio.voice", "anna", "audio_sample")
    spoken = openai.audio.speech.create(**{**speech(), "voice": {"id": voice.id}})
    assert len(spoken.content) > 1000
    gone = openai.delete(f"/audio/voices/{voice.id}", cast_to=httpx2.Response)
    assert gone.json() == {"id": voice.id, "deleted": True, "object": "audio.voice.deleted"}
    assert openai.audio.voice_consents.delete(consent.id).deleted
    with pytest.raises(sdk.NotFoundError):
        openai.audio.voice_consents.retrieve(consent.id)


def test_fact_14_the_list_has_objects_under_both_names(client: httpx2.Client) -> None:
    body = client.get("/v1/audio/voices").json()
    assert body["voices"] == body["data"]
    assert all(voice["id"] and voice["name"] for voice in body["voices"])
    old = client.get("/v1/audio/voices", params={"legacy": "true"}).json()  # as Kokoro-FastAPI has
    assert old["voices"] == [voice["id"] for voice in body["data"]]


def test_fact_15_upload_list_speak_delete(client: httpx2.Client, server: RunningServer) -> None:
    form = {"name": "bob", "consent": "He agreed on 2026-11-01", "ref_text": "good morning"}
    made = client.post(
        "/v1/audio/voices", data=form, files={"audio_sample": ("b.wav", wav_bytes(4.0))}
    )
    assert made.status_code == 200
    assert "first 3 s" in warnings_of(made)[0]
    name = made.json()["id"]
    assert {path.name for path in server.voices.glob(f"{name}.*")} == {
        f"{name}.json",
        f"{name}.safetensors",
    }
    listed = client.get("/v1/audio/voices").json()["voices"]
    mine = next(voice for voice in listed if voice["id"] == name)
    assert "ref_text" not in mine
    assert "consent" not in mine
    facts = client.get("/v1/audio/voices/bob").json()
    assert (facts["consent"], facts["seconds"]) == ("He agreed on 2026-11-01", 4.0)
    assert client.post(SPEECH, json=speech(voice="bob", input="yes")).status_code == 200
    again = client.post(
        "/v1/audio/voices", data=form, files={"audio_sample": ("b.wav", wav_bytes())}
    )
    assert error_of(again, 409)["param"] == "name"
    assert client.delete("/v1/audio/voices/bob").json()["deleted"]
    error_of(client.delete("/v1/audio/voices/bob"), 404)
    assert not list(server.voices.glob(f"{name}.*"))
    assert error_of(client.post(SPEECH, json=speech(voice=name)), 400)["param"] == "voice"


def test_fact_16_open_webui(client: httpx2.Client) -> None:
    models = client.get("/v1/audio/models").json()["models"]
    voices = client.get("/v1/audio/voices").json()["voices"]
    body = {"input": "hello", "voice": voices[0]["id"], "model": models[0]["id"], "extra": 1}
    answer = client.post(SPEECH, json=body, headers={"Authorization": "Bearer sk"})
    assert answer.headers["content-type"] == "audio/mpeg"
    wrong = client.post(SPEECH, json={**body, "voice": "none"})
    assert "message" in wrong.json()["error"]


def test_fact_17_sillytavern(server: RunningServer) -> None:
    body = {
        "input": "hello",
        "response_format": "mp3",
        "voice": "shimmer",
        "speed": 1,
        "model": "tts-1",
    }
    # httpx refuses to send a bearer token that is empty, as SillyTavern does without a key.
    connection = http.client.HTTPConnection("127.0.0.1", int(server.url.rpartition(":")[2]))
    headers = {"Authorization": "Bearer ", "Content-Type": "application/json"}
    connection.request("POST", SPEECH, json.dumps(body), headers)
    answer = connection.getresponse()
    assert (answer.status, answer.read(3)) == (200, b"ID3")
    connection.close()


def test_fact_18_home_assistant(openai: OpenAI) -> None:
    with openai.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts",
        voice="marin",
        input="good night",
        instructions="None",
        speed=1.0,
        response_format="mp3",
    ) as answer:
        assert "x-unison-warnings" not in answer.headers
        assert sum(map(len, answer.iter_bytes())) > 1000
    styled = openai.audio.speech.with_raw_response.create(**speech(), instructions="angry")
    assert "instructions is ignored" in styled.headers["x-unison-warnings"]


def test_fact_19_hacs_openai_tts(client: httpx2.Client) -> None:
    body = {
        "model": "tts-1",
        "input": "stop",
        "voice": "nova",
        "response_format": "opus",
        "speed": 1.25,
        "chunk_size": 7,
    }
    headers = {"User-Agent": "HomeAssistant-OpenAI-TTS"}
    answer = client.post(SPEECH, json=body, headers=headers, timeout=30)
    assert answer.content[:4] == b"OggS"


def test_fact_20_wyoming_openai(client: httpx2.Client, openai: OpenAI) -> None:
    # It asks for /v1/readyz first, and would take an answer for LocalAI's.
    error_of(client.get("/v1/readyz"), 404)
    assert client.get("/v1/../health").text == "OK"
    voices = client.get("/v1/models/tts-1").json()["voices"]
    assert {voice["name"] for voice in voices} == THIRTEEN
    wav = openai.audio.speech.create(**speech(response_format="wav"))
    samples, rate = read_sound(wav.content)
    assert (rate, samples.shape[1]) == (16_000, 1)


def test_fact_21_fields_that_others_add(client: httpx2.Client) -> None:
    given = {"stream": True, "language": "en", "word_timestamps": True, "extra_params": {"a": 1}}
    told = warnings_of(client.post(SPEECH, json=speech(input="no", **given)))
    assert [note.partition(" is ignored")[0] for note in told] == [
        "word_timestamps",
        "language",
        "extra_params",
    ]
    scene = client.post(
        SPEECH, json=speech(ambient_sound="rain", duration_seconds=3, response_format="wav")
    )
    samples, rate = read_sound(scene.content)
    assert len(samples) == 3 * rate
    one, two = (
        client.post(SPEECH, json=speech(seed=seed, response_format="wav", sample_rate=22_050))
        for seed in (1, 2)
    )
    assert read_sound(one.content)[1] == 22_050
    assert one.content != two.content
    data = base64.b64encode(wav_bytes()).decode()
    for prefix in ("data:audio/wav;base64,", "data:;base64,"):
        cloned = client.post(
            SPEECH, json=speech(ref_audio=prefix + data, ref_text="good morning", input="no")
        )
        assert cloned.status_code == 200
    for address in ("http://127.0.0.1/a.wav", "file:///etc/passwd", "/etc/passwd"):
        error = error_of(client.post(SPEECH, json=speech(ref_audio=address, ref_text="a")), 400)
        assert error["param"] == "ref_audio"


def test_fact_22_generate(client: httpx2.Client) -> None:
    body = {"input": "rain", "audio_length": 1.5, "num_inference_steps": 3, "guidance_scale": 2.0}
    answer = client.post("/v1/audio/generate", json={**body, "negative_prompt": "dogs"})
    samples, rate = read_sound(answer.content)
    assert (answer.headers["content-type"], len(samples)) == ("audio/wav", round(1.5 * rate))
    assert warnings_of(answer) == ["negative_prompt is ignored: the model takes none."]
    error = error_of(client.post("/v1/audio/generate", json={**body, "stream_format": "sse"}), 400)
    assert error["param"] == "stream_format"
    odd = client.post("/v1/audio/generate", json={**body, "input": "a harmonica quartet"})
    assert "nano was not trained on" in warnings_of(odd)[0]


def test_fact_23_elevenlabs(client: httpx2.Client) -> None:
    body = {"text": "a dog barking", "duration_seconds": 0.5, "model_id": "eleven", "loop": True}
    mp3 = client.post("/v1/sound-generation", json=body, headers={"xi-api-key": "x"})
    assert (mp3.headers["content-type"], len(warnings_of(mp3))) == ("audio/mpeg", 1)
    assert read_sound(mp3.content)[1] == 44_100
    sounds = [
        client.post(
            "/v1/sound-generation?output_format=pcm_16000",
            json={"text": "rain", "duration_seconds": 0.5, "prompt_influence": influence},
        ).content
        for influence in (0.0, 0.3, 1.0)
    ]
    assert {len(sound) for sound in sounds} == {16_000}
    assert len(set(sounds)) == 3
    error_of(client.post("/v1/sound-generation", json={**body, "duration_seconds": 31}), 400)
    error_of(client.post("/v1/sound-generation?output_format=wma", json=body), 400)


def test_fact_24_edits_keep_what_no_region_covers(client: httpx2.Client) -> None:
    source = wav_bytes(2.0, 44_100, 2)
    answer = client.post(
        "/v1/audio/edits",
        files={"audio": ("a.wav", source)},
        data={"instruction": "[Edit][Audio] Add rain", "regions": "0.5-1.0", "seed": "3"},
    )
    before, after = read_sound(source)[0], read_sound(answer.content)[0]
    changed = (before != after).any(axis=1).nonzero()[0] / 44_100
    assert before.shape == after.shape
    assert changed.min() >= 0.5
    assert changed.max() <= 1.0
    assert answer.headers["x-unison-task"] == "edit_add"


BAD_SPEECH: dict[str, dict[str, Any]] = {
    "empty input": {"input": ""},
    "blank input": {"input": " \n\t "},
    "no words": {"input": "**!!!** 🎉"},
    "number for a text": {"input": 5},
    "list for a text": {"input": ["a"]},
    "empty voice": {"voice": ""},
    "unknown voice": {"voice": "nobody"},
    "voice object without an id": {"voice": {"name": "alloy"}},
    "number for a voice": {"voice": 1},
    "path for a voice": {"voice": "../../etc/passwd"},
    "unknown format": {"response_format": "wma"},
    "unknown stream": {"stream_format": "ws"},
    "negative seed": {"seed": -1},
    "huge seed": {"seed": 1 << 70},
    "seed with a fraction": {"seed": 1.5},
    "no steps": {"steps": 0},
    "many steps": {"steps": 100_000},
    "unknown solver": {"solver": "magic"},
    "rate of zero": {"sample_rate": 0},
    "loudness of zero": {"loudness": 0},
    "loudness in words": {"loudness": "loud"},
    "rate that opus lacks": {"sample_rate": 44_100, "response_format": "opus"},
    "too many candidates": {"num_candidates": 1000},
    "endless length": {"ambient_sound": "rain", "duration_seconds": 1e9},
    "ambient sound with tags": {"ambient_sound": "[Edit][Audio] Add rain"},
    "reference without words": {"ref_audio": "data:audio/wav;base64,AAAA"},
    "reference that is none": {"ref_audio": "data:audio/wav;base64,AAAA", "ref_text": "a"},
}


@pytest.mark.parametrize("case", BAD_SPEECH)
def test_fact_26_bad_input_is_refused(client: httpx2.Client, case: str) -> None:
    error = error_of(client.post(SPEECH, json=speech(**BAD_SPEECH[case])), 400)
    assert error["type"] == "invalid_request_error"

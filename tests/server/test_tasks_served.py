"""Every task of the table can be asked for over HTTP; texts are cleaned before they are spoken."""

from pathlib import Path
from typing import Any

import httpx2
import pytest
from server_process import SPEECH, RunningServer, read_sound, speech, wav_bytes

from unison_audio.loudness import measure
from unison_audio.provenance.file_tags import read_tags
from unison_audio.server.api_errors import ApiError
from unison_audio.server.served_tasks import served_task
from unison_audio.server.spoken_text import spoken_text
from unison_audio.tasks.table import TASKS

GENERATE, EDITS = "/v1/audio/generate", "/v1/audio/edits"

ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "tts": (SPEECH, speech(input="no", response_format="wav")),
    "t2as": (SPEECH, speech(input="no", ambient_sound="rain", response_format="wav")),
    "t2a": (GENERATE, {"input": "rain"}),
    "t2a_mix": (GENERATE, {"input": "[Audio] rain and a dog barking"}),
    "timed": ("/v1/audio/timeline", {"events": [{"start": 0.5, "end": 1, "text": "rain"}]}),
    "edit_add": (EDITS, {"instruction": "[Edit][Audio] Add rain"}),
    "edit_remove": (EDITS, {"instruction": "[Edit][Audio] Remove rain"}),
    "edit_replace": (EDITS, {"instruction": "[Edit][Audio] Replace rain with thunder"}),
    "speech_insert": (EDITS, {"instruction": '[Edit][Speech] Add a voice saying "yes"'}),
    "speech_delete": (EDITS, {"instruction": "[Edit][Speech] Remove the speech"}),
    "speech_rewrite": (EDITS, {"instruction": '[Edit][Speech] Change speech to "yes"'}),
    "denoise": (EDITS, {"instruction": "noisy, make it clear", "task": "denoise"}),
    "audio_to_speech": (
        EDITS,
        {"instruction": '[Edit][Audio] Remove rain [Edit][Speech] add a voice saying "yes"'},
    ),
    "speech_to_audio": (
        EDITS,
        {"instruction": "[Edit][Speech] Remove the speech [Edit][Audio] add rain"},
    ),
}


def test_all_tasks_are_asked_for() -> None:
    assert set(ASKED) | {"zero_shot_tts"} == set(TASKS)


@pytest.mark.parametrize("task", ASKED)
def test_task(client: httpx2.Client, task: str) -> None:
    path, fields = ASKED[task]
    if path == EDITS:
        answer = client.post(path, data=fields, files={"audio": ("a.wav", wav_bytes(1.5))})
        assert answer.headers["x-unison-task"] == task
    else:
        answer = client.post(path, json=fields)
    assert answer.status_code == 200, answer.text
    samples, rate = read_sound(answer.content)
    assert (rate, len(samples) > 0.2 * rate) == (16_000, True)


@pytest.mark.parametrize(
    ("path", "body", "param", "says"),
    [
        (GENERATE, {"input": "[Adio] rain"}, "input", "did you mean [Audio]?"),
        (GENERATE, {"input": "[Edit][Audio] Add rain"}, "input", "to /v1/audio/edits."),
        (GENERATE, {"input": "[Speech] no"}, "input", "; name its task with the field task, or"),
        (EDITS, {"instruction": "no rain"}, "instruction", "write [Edit][Audio] no rain for a"),
        (EDITS, {"instruction": "[Edit][Audio] Add rain at 1s"}, "instruction", "field regions"),
        (
            "/v1/sound-generation",
            {"text": "[Speech] no"},
            "text",
            "understood; without a recording",
        ),
        (
            "/v1/sound-generation",
            {"text": "[laugh] ha"},
            "text",
            "[Edit][Audio] or [Edit][Speech].",
        ),
    ],
)
def test_a_refused_instruction_names_the_field(
    client: httpx2.Client, path: str, body: dict[str, str], param: str, says: str
) -> None:
    if path == EDITS:
        answer = client.post(path, data=body, files={"audio": ("a.wav", wav_bytes(1.5))})
    else:
        answer = client.post(path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert says in error["message"]
    assert "--" not in error["message"]


def test_no_refusal_of_the_table_names_a_flag_over_http() -> None:
    table = Path(__file__).parents[1] / "tasks" / "instructions.tsv"
    rows = [line.split("\t") for line in table.read_text("utf-8").splitlines()[1:]]
    refused = [row for row in rows if row[2] == "refused"]
    assert len(refused) > 100
    for instruction, inputs, *_ in refused:
        given = ("source" in inputs, "reference" in inputs)
        with pytest.raises(ApiError) as caught:
            served_task(instruction, *given, None, "input")
        assert "--" not in caught.value.message, caught.value.message


def test_a_stored_voice_speaks_and_generates(client: httpx2.Client, server: RunningServer) -> None:
    made = client.post(
        "/v1/audio/voices",
        data={"name": "carla", "consent": "yes", "ref_text": "good morning"},
        files={"audio_sample": ("a.wav", wav_bytes())},
    ).json()
    for path, fields in (
        (SPEECH, speech(voice={"id": made["id"]}, input="no", response_format="wav")),
        (GENERATE, {"input": "[Speech with voice] no", "voice": "carla"}),
    ):
        answer = client.post(path, json=fields)
        assert len(read_sound(answer.content)[0]) > 1000
    assert client.delete(f"/v1/audio/voices/{made['id']}").status_code == 200


def test_every_answer_says_that_it_is_generated(client: httpx2.Client, tmp_path: Path) -> None:
    made = "trainedAlgorithmicMedia"
    long = speech(input="good morning. yes.\n\nno.")
    for kind, path, fields in (
        *((made, SPEECH, speech(response_format=name)) for name in ("mp3", "flac", "opus")),
        *((made, SPEECH, {**long, "response_format": name}) for name in ("mp3", "wav")),
        (made, GENERATE, {"input": "rain", "audio_length": 1}),
        ("compositeWithTrainedAlgorithmicMedia", EDITS, ASKED["edit_add"][1]),
        ("algorithmicallyEnhanced", EDITS, ASKED["denoise"][1]),
    ):
        files = {"audio": ("a.wav", wav_bytes())}
        sent = {"data": fields, "files": files} if path == EDITS else {"json": fields}
        file = tmp_path / f"x.{fields.get('response_format', 'wav')}"
        file.write_bytes(client.post(path, **sent).content)
        assert kind in " ".join(read_tags(file).values()), (path, fields)


def test_lengths_beyond_one_window(client: httpx2.Client) -> None:
    for path, fields, seconds in (
        (GENERATE, {"input": "rain", "audio_length": 7}, 7),
        ("/v1/audio/timeline", {"events": [{"start": 6, "end": 7, "text": "rain"}]}, 7),
        (
            "/v1/sound-generation?output_format=pcm_16000",
            {"text": "rain", "duration_seconds": 6},
            6,
        ),
    ):
        data = client.post(path, json=fields).content
        assert len(data) == pytest.approx(32_000 * seconds, abs=600)
    long = client.post(
        EDITS,
        data={"instruction": "[Edit][Audio] Add rain", "response_format": "flac"},
        files={"audio": ("a.wav", wav_bytes(6.0, 8_000, 2))},
    )
    samples, rate = read_sound(long.content)
    assert (samples.shape, rate) == ((48_000, 2), 8_000)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (SPEECH, speech(input="good morning. yes.\n\nno.", response_format="wav")),
        (GENERATE, {"input": "rain", "audio_length": 7}),
        (EDITS, ASKED["edit_add"][1]),
    ],
)
def test_answers_have_the_loudness_that_is_asked_for(
    client: httpx2.Client, path: str, fields: dict[str, Any]
) -> None:
    fields = {**fields, "loudness": -40}
    files = {"audio": ("a.wav", wav_bytes())}
    sent = {"data": fields, "files": files} if path == EDITS else {"json": fields}
    answer = client.post(path, **sent)
    assert answer.status_code == 200, answer.text
    samples, rate = read_sound(answer.content)
    assert measure([samples], rate, 1).integrated == pytest.approx(-40, abs=0.3)


def test_a_sound_without_loudness_says_so(client: httpx2.Client) -> None:
    answer = client.post(GENERATE, json={"input": "rain", "audio_length": 0.3, "loudness": -20})
    assert "shorter than 0.4 s" in answer.headers["x-unison-warnings"]
    for value in ("loud", "-3", "nan"):
        fields = {**ASKED["edit_add"][1], "loudness": value}
        answer = client.post(EDITS, data=fields, files={"audio": ("a.wav", wav_bytes())})
        assert answer.status_code == 400


@pytest.mark.parametrize(
    ("given", "spoken"),
    [
        ("# Title\n\n**Good** *morning*, `you`!", "Title\n\nGood morning, you!"),
        ("- one\n- two", "one\ntwo"),
        ("see [the house](https://example.org/a_b) 🎉", "see the house"),
        ("![a dog](dog.png)", "a dog"),
        ("```python\nprint\n```", "print"),
        ("snake_case and 2*3*4 stay", "snake_case and 2*3*4 stay"),
        ("tab\tand\x00null", "tab and null"),
        ("it's — “fine” 你好，世界", "it's — “fine” 你好，世界"),
        ("👩‍👩‍👧 family ❤️", "family"),
    ],
)
def test_spoken_text(given: str, spoken: str) -> None:
    assert spoken_text(given) == spoken

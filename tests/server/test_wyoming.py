"""Wyoming, by its own client: what Home Assistant asks, and what others may send (fact 25)."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import numpy as np
import pytest
from server_process import SPEECH, RunningServer, speech, wait_until, wav_bytes
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info, SelectProgram
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

from unison_audio.cli import main as cli
from unison_audio.server.wyoming_speech import take_sentences

TEXT = "Good morning. We see the sun."


def talk(server: RunningServer, *events: Any, until: type = AudioStop) -> list[Event]:
    """Send events, and read until one of a kind has come or the connection is closed."""

    async def run(client: AsyncClient) -> list[Event]:
        for event in events:
            await client.write_event(event.event())
        found = []
        while (event := await client.read_event()) is not None:
            found.append(event)
            if until.is_type(event.type):
                break
        return found

    return connected(server, run)


def connected(server: RunningServer, run: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with AsyncClient.from_uri(f"tcp://127.0.0.1:{server.wyoming}") as client:
            return await asyncio.wait_for(run(client), 60)

    return asyncio.run(main())


def samples(events: list[Event]) -> np.ndarray:
    chunks = [AudioChunk.from_event(one) for one in events if AudioChunk.is_type(one.type)]
    assert {(one.rate, one.width, one.channels) for one in chunks} == {(16_000, 2, 1)}
    return np.frombuffer(b"".join(one.audio for one in chunks), "<i2")


def kinds(events: list[Event]) -> list[str]:
    """The kinds of events in order, chunks of sound as one."""
    names = [event.type for event in events]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def test_describes_its_voices(server: RunningServer, client: httpx2.Client) -> None:
    form = {"name": "wyoming-guest", "ref_text": "good morning", "consent": "I agree."}
    files = {"audio_sample": ("voice.wav", wav_bytes(2.0))}
    stored = client.post("/v1/audio/voices", data=form, files=files).json()
    info = Info.from_event(talk(server, Describe(), until=Info)[-1])
    (program,) = info.tts
    assert program.supports_synthesize_streaming
    assert program.installed
    names = [voice.name for voice in program.voices]
    assert names[:2] == ["alloy", "ash"]
    assert len(names) == 14
    assert names[-1] == stored["id"]
    assert program.voices[-1].description == "wyoming-guest"
    assert all(voice.languages == ["en"] for voice in program.voices)
    client.delete(f"/v1/audio/voices/{stored['id']}")


def test_speaks_what_http_speaks(server: RunningServer, client: httpx2.Client) -> None:
    for name in ("echo", "nova"):
        events = talk(server, Synthesize(text=TEXT, voice=SynthesizeVoice(name=name)))
        assert kinds(events) == ["audio-start", "audio-chunk", "audio-stop"]
        start = AudioStart.from_event(events[0])
        assert (start.rate, start.width, start.channels) == (16_000, 2, 1)
        fields = speech(input=TEXT, voice=name, response_format="pcm", sample_rate=16_000)
        answer = client.post(SPEECH, json=fields)
        spoken, heard = samples(events), np.frombuffer(answer.content, "<i2")
        # A short answer of HTTP is written as a whole by libsndfile, whose full scale is 32,767.
        assert np.abs(spoken.astype(int) - heard.astype(int)).max() <= 1


def test_a_language_alone_leaves_the_voice_to_the_server(server: RunningServer) -> None:
    named = talk(server, Synthesize(text="red dog", voice=SynthesizeVoice(name="alloy")))
    for voice in (None, SynthesizeVoice(language="en")):
        events = talk(server, Synthesize(text="red dog", voice=voice))
        assert np.array_equal(samples(events), samples(named))


def test_speaks_sentences_as_they_come(server: RunningServer) -> None:
    """As Home Assistant does: pieces, then the whole text once more for older servers."""
    first, second = "Good mor", "ning. We see the s"

    async def run(client: AsyncClient) -> list[Event]:
        found: list[Event] = []
        await client.write_event(SynthesizeStart(voice=SynthesizeVoice(name="echo")).event())
        for piece in (first, second):
            await client.write_event(SynthesizeChunk(text=piece).event())
        while not any(AudioChunk.is_type(one.type) for one in found):
            event = await client.read_event()  # sound comes before the text is complete
            assert event is not None
            found.append(event)
        await client.write_event(SynthesizeChunk(text="un.").event())
        await client.write_event(Synthesize(text=TEXT).event())
        await client.write_event(SynthesizeStop().event())
        while not SynthesizeStopped.is_type(found[-1].type):
            event = await client.read_event()
            assert event is not None
            found.append(event)
        return found

    events = connected(server, run)
    assert kinds(events) == ["audio-start", "audio-chunk", "audio-stop", "synthesize-stopped"]
    echo = SynthesizeVoice(name="echo")
    parts = [
        samples(talk(server, Synthesize(text=text, voice=echo)))
        for text in ("Good morning.", "We see the sun.")
    ]
    pause = np.zeros(round(0.45 * 16_000), "<i2")
    assert np.array_equal(samples(events), np.concatenate([parts[0], pause, parts[1]]))


def test_one_connection_serves_several_requests(server: RunningServer) -> None:
    async def run(client: AsyncClient) -> list[str]:
        found = []
        for event in (Ping(text="a"), SelectProgram(name="unison-audio"), Event(type="unknown")):
            await client.write_event(event if isinstance(event, Event) else event.event())
        for _ in range(2):
            await client.write_event(Synthesize(text="red dog").event())
        while found.count("audio-stop") < 2:
            event = await client.read_event()
            assert event is not None
            found.append(event.type)
        return found

    found = connected(server, run)
    assert found[0] == Pong(text="a").event().type
    assert found.count("audio-start") == 2


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Synthesize(text=" "), "text is empty"),
        (Synthesize(text="..."), "no words"),
        (Synthesize(text="a" * 5000), "at most 4,096"),
        (Synthesize(text="red", voice=SynthesizeVoice(name="nobody")), "no voice 'nobody'"),
        (Synthesize(text="<speak>red</speak>", text_format="ssml"), "SSML"),
    ],
)
def test_says_what_is_wrong_and_closes(server: RunningServer, event: Any, said: str) -> None:
    events = talk(server, event)
    assert [one.type for one in events] == ["error"]
    assert said in Error.from_event(events[0]).text


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"[1, 2]\n",
        b'{"type": "synthesize", "data": [1]}\n',
        b'{"type": "synthesize", "data": {"text": 5}}\n',
        b'{"no": "type"}\n',
        b'{"type": "describe", "payload_length": 99999999999}\n',
        b'{"type": "describe", "data_length": "x"}\n',
        b"[" * 60_000 + b"\n",
        b"x" * 200_000,
    ],
)
def test_survives_what_is_not_wyoming(server: RunningServer, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.wyoming), 10) as raw:
        raw.sendall(data)
        raw.settimeout(10)
        left = b""
        try:
            while part := raw.recv(1 << 16):
                left += part
        except ConnectionResetError:
            pass
    assert left == b"" or json.loads(left.splitlines()[0])["type"] == "error"
    assert talk(server, Describe(), until=Info)


def test_a_client_that_leaves_frees_its_place(server: RunningServer) -> None:
    async def leave(client: AsyncClient) -> None:
        await client.write_event(Synthesize(text=TEXT * 20).event())
        event = await client.read_event()
        assert event is not None
        assert AudioStart.is_type(event.type)

    before = server.metric('unison_audio_requests_total{route="wyoming",status="499"}')
    connected(server, leave)
    wait_until(
        lambda: server.metric('unison_audio_requests_total{route="wyoming",status="499"}') > before
    )
    server.wait_idle()


def test_a_full_queue_is_said(server: RunningServer) -> None:
    async def run() -> list[str]:
        async def one() -> list[str]:
            async with AsyncClient.from_uri(f"tcp://127.0.0.1:{server.wyoming}") as client:
                await client.write_event(Synthesize(text=TEXT).event())
                found = []
                while (event := await client.read_event()) is not None:
                    found.append(event.type)
                    if AudioStop.is_type(event.type):
                        break
                    if Error.is_type(event.type):
                        assert Error.from_event(event).code == "queue_full"
                return found

        ends = await asyncio.gather(*(one() for _ in range(9)))
        return [found[-1] for found in ends]

    ends = asyncio.run(asyncio.wait_for(run(), 60))
    assert sorted(set(ends)) == ["audio-stop", "error"]
    assert ends.count("audio-stop") >= 6
    server.wait_idle()


def test_a_port_in_use_is_said(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    for port, said in ((server.wyoming, "cannot listen at 127.0.0.1"), (70_000, "0 to 65535")):
        assert cli.main(["serve", "--port", "0", "--wyoming", str(port)]) == 2
        assert said in capsys.readouterr().err


def test_sentences_are_taken_once_something_follows() -> None:
    assert take_sentences("Good morning.") == ("", "Good morning.")
    assert take_sentences("Good morning. We ") == ("Good morning. ", "We ")
    assert take_sentences("See Dr. Smith") == ("", "See Dr. Smith")
    assert take_sentences('"Go!" he said. The dog, the') == ('"Go!" he said. ', "The dog, the")
    assert take_sentences("One\nTwo") == ("One\n", "Two")
    assert take_sentences("你好。我们") == ("你好。", "我们")

"""Wyoming beside HTTP: Home Assistant's protocol for speech, one JSON line and a payload an event.

Wyoming has no keys and no errors that every client reads, so after an error the connection is
closed: a client that waits for sound then learns that none comes.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_read_event, async_write_event
from wyoming.info import Attribution, Describe, Info, TtsProgram, TtsVoice
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
)

from unison_audio.server.answers import CLIENT_CLOSED
from unison_audio.server.api_errors import ApiError, as_api_error
from unison_audio.server.builtin_voices import BUILTIN_VOICES
from unison_audio.server.limits import SEND_SECONDS
from unison_audio.server.server_state import ServerState
from unison_audio.server.speech_plans import require_text
from unison_audio.server.wyoming_speech import (
    SAMPLE_BYTES,
    WyomingSpeech,
    take_sentences,
    voice_named,
)

MAX_EVENT_BYTES = 1_000_000
"""Bytes of the data or the payload of one event."""

MAX_CONNECTIONS = 256

IDLE_SECONDS = 600.0
"""Seconds that a connection may stand without an event."""

CHUNK_SAMPLES = 2048
"""Samples in one event; satellites have little memory."""

_EVENTS_AHEAD = 64
"""Events that are read while one is answered."""


class BoundedReader(asyncio.StreamReader):
    """A stream whose events cannot state a length that fills the memory."""

    async def readexactly(self, n: int) -> bytes:
        """Read n bytes.

        Raises:
            ValueError: They are more than an event may have.
        """
        if not 0 <= n <= MAX_EVENT_BYTES:
            raise ValueError(f"an event of {n} bytes")
        return await super().readexactly(n)


@asynccontextmanager
async def wyoming_beside(
    state: ServerState, listening: socket.socket, drain_seconds: float
) -> AsyncIterator[None]:
    """Serve Wyoming for as long as HTTP is served.

    Args:
        state: The server.
        listening: An open port.
        drain_seconds: Seconds that speech which runs gets at the end.
    """
    loop = asyncio.get_running_loop()
    connections: dict[asyncio.Task[None], _Connection] = {}

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        connection = _Connection(state, reader, writer)
        task = loop.create_task(connection.run())
        connections[task] = connection
        task.add_done_callback(connections.pop)

    def protocol() -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(BoundedReader(limit=1 << 16, loop=loop), accept)

    server = await loop.create_server(protocol, sock=listening)
    try:
        yield
    finally:
        server.close()
        for connection in connections.values():
            connection.finish()
        if connections:
            _, late = await asyncio.wait(list(connections), timeout=drain_seconds)
            for task in late:
                task.cancel()


class _Connection:
    """One client."""

    def __init__(
        self, state: ServerState, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._state, self._reader, self._writer = state, reader, writer
        self._events: asyncio.Queue[Event | None] = asyncio.Queue(_EVENTS_AHEAD)
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._busy = self._finishing = False

    async def run(self) -> None:
        """Answer events until the client leaves or does what is not understood."""
        reading = asyncio.ensure_future(self._read())
        try:
            with suppress(TimeoutError, ConnectionError):
                while not self._finishing and (event := await self._next()) is not None:
                    await self._answer(event)
        except ApiError as error:
            with suppress(TimeoutError, ConnectionError):
                await self._send(Error(text=error.message, code=error.code))
        finally:
            reading.cancel()
            self._writer.close()

    def finish(self) -> None:
        """End after the speech that runs."""
        self._finishing = True
        if not self._busy:
            self._reader.feed_eof()

    async def _read(self) -> None:
        """Read ahead, so that a client that leaves is noticed while its speech is made."""
        event: Event | None = None
        try:
            while (event := await async_read_event(self._reader)) is not None:
                await self._events.put(event)
        except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError):
            pass  # the connection broke, or this is not Wyoming
        except RecursionError:
            pass  # JSON that is nested too deeply
        self._gone.set_result(None)
        await self._events.put(None)

    async def _next(self) -> Event | None:
        return await asyncio.wait_for(self._events.get(), IDLE_SECONDS)

    async def _send(self, event: Eventable) -> None:
        await asyncio.wait_for(async_write_event(event.event(), self._writer), SEND_SECONDS)

    async def _answer(self, event: Event) -> None:
        """Answer one event; those of other kinds, such as select-program, need no answer."""
        if Describe.is_type(event.type):
            await self._send(await self._info())
        elif Ping.is_type(event.type):
            await self._send(Pong(text=Ping.from_event(event).text))
        elif Synthesize.is_type(event.type):
            await self._speak(event, streaming=False)
        elif SynthesizeStart.is_type(event.type):
            await self._speak(event, streaming=True)

    async def _info(self) -> Info:
        from unison_audio import __version__

        maker = Attribution(name="unison-audio", url="https://pypi.org/project/unison-audio/")
        about: dict[str, Any] = {"attribution": maker, "installed": True, "version": __version__}
        stored = await self._state.in_thread(self._state.voices.all)
        voices = [
            TtsVoice(
                name=voice.name,
                description=f"{voice.name.title()} ({voice.gender})",
                languages=["en"],
                **about,
            )
            for voice in BUILTIN_VOICES.values()
        ]
        voices += [
            TtsVoice(name=voice.id, description=voice.name, languages=["en"], **about)
            for voice in stored
        ]
        program = TtsProgram(
            name="unison-audio",
            description=f"UNISON, variant {self._state.variant.name}",
            voices=voices,
            supports_synthesize_streaming=True,
            **about,
        )
        return Info(tts=[program])

    async def _speak(self, event: Event, *, streaming: bool) -> None:
        """Answer a text, or a text that comes in pieces."""
        speech: WyomingSpeech | None = None
        status = 200
        self._busy = True
        try:
            voice = await voice_named(self._state, _voice_name(event))
            speech = WyomingSpeech(self._state, voice, self._gone)
            texts = self._pieces() if streaming else self._text(event)
            await self._speak_all(speech, texts)
            if streaming:
                await self._send(SynthesizeStopped())
        except Exception as error:
            status = as_api_error(error).status
            if isinstance(error, TimeoutError | ConnectionError):
                status = CLIENT_CLOSED
                raise
            raise as_api_error(error) from error
        except asyncio.CancelledError:
            status = CLIENT_CLOSED
            raise
        finally:
            self._busy = False
            if speech is not None:
                speech.end(status)

    async def _speak_all(self, speech: WyomingSpeech, texts: AsyncIterator[str]) -> None:
        """Send texts as one sound."""
        form: dict[str, Any] = {
            "rate": self._state.variant.sample_rate,
            "width": SAMPLE_BYTES,
            "channels": 1,
        }
        step = CHUNK_SAMPLES * SAMPLE_BYTES
        started = False
        async for text in texts:
            async with aclosing(speech.say(text)) as parts:
                async for part in parts:
                    if not started:
                        started = True
                        await self._send(AudioStart(**form))
                    for at in range(0, len(part), step):
                        await self._send(AudioChunk(audio=part[at : at + step], **form))
        if not started:
            raise ApiError(400, "The text holds no words; give one that does.", param="text")
        await self._send(AudioStop())

    async def _text(self, event: Event) -> AsyncIterator[str]:
        text = _text_of(event)
        require_text(text, self._state.limits.max_input_characters, "text")
        yield text

    async def _pieces(self) -> AsyncIterator[str]:
        """Complete sentences of a text that comes in pieces."""
        waiting = ""
        while (event := await self._next()) is not None:
            if SynthesizeStop.is_type(event.type):
                break
            # Home Assistant sends the whole text once more, for servers that take no pieces.
            if not SynthesizeChunk.is_type(event.type):
                continue
            waiting += _text_of(event)
            ready, waiting = await self._state.in_thread(partial(take_sentences, waiting))
            require_text(waiting + ".", self._state.limits.max_input_characters, "text")
            if ready.strip():
                yield ready
        else:
            raise ConnectionResetError
        if waiting.strip():
            yield waiting


def _text_of(event: Event) -> str:
    text = event.data.get("text")
    if not isinstance(text, str):
        raise ApiError(400, f"{event.type} has no text; give one.", param="text")
    if event.data.get("text_format", "text") != "text":
        raise ApiError(400, "The text must be plain text; SSML is not read.", param="text_format")
    return text


def _voice_name(event: Event) -> str | None:
    """The voice that an event names; a language alone leaves the choice to the server."""
    voice = event.data.get("voice")
    name = voice.get("name") if isinstance(voice, dict) else None
    return name if isinstance(name, str) else None

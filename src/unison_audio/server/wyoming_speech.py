"""The speech of one Wyoming request: texts in one voice, one after the other, as 16-bit samples."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncGenerator

from unison_audio.longform.text_windows import SENTENCE_PAUSE, split_sentences
from unison_audio.output_format import OutputFormat
from unison_audio.server.answers import Parts, SoundRun, explained
from unison_audio.server.output_encoding import speech_format, streamed
from unison_audio.server.remote_model import RemoteModel
from unison_audio.server.server_state import ServerState
from unison_audio.server.speech_plans import ChosenVoice, SpeechPlan, choose_voice
from unison_audio.server.spoken_text import spoken_text

ROUTE = "wyoming"
"""Name of these requests in figures and in the log."""

DEFAULT_VOICE = "alloy"
"""Speaks where a client names no voice, or only a language."""

SAMPLE_BYTES = 2

_SENTENCE_GOES_ON = re.compile(r"[.!?…。！？][\"'”’」』）)\]]*\s*\S|\n")
"""Cheap sign that a sentence may have ended; only then the text is split."""

_DROPPED = re.compile(r'[\s"“”„«»「」『』]')
"""Characters that `split_sentences` drops."""

log = logging.getLogger(__name__)


class WyomingSpeech:
    """One request: admitted at its first text, for as long as `end` has not been called.

    Args:
        state: The server.
        voice: Who speaks.
        gone: Done once the client has left.
    """

    def __init__(
        self, state: ServerState, voice: ChosenVoice, gone: "asyncio.Future[None]"
    ) -> None:
        self._state, self._voice, self._gone = state, voice, gone
        self._output: OutputFormat = speech_format("pcm", state.variant.sample_rate)
        self._run: SoundRun | None = None
        self._name, self._started = f"req_{secrets.token_hex(12)}", time.monotonic()
        self._first_byte = 0.0

    async def say(self, text: str) -> AsyncGenerator[bytes, None]:
        """Speak a text after those before it.

        Args:
            text: One or more sentences; without words nothing is said.

        Yields:
            Samples as soon as there are some.

        Raises:
            ApiError: It cannot be spoken.
        """
        text = spoken_text(text)
        if not re.search(r"\w", text):
            return
        follows = self._run is not None
        desk = self._state.desk
        try:
            run = self._run = self._run or self._admitted()
            run.parts = self._parts(text, run)
            if follows:
                yield bytes(SAMPLE_BYTES * round(SENTENCE_PAUSE * self._state.variant.sample_rate))
            while (part := await run.part(self._gone)) is not None:
                if not self._first_byte:
                    self._first_byte = time.monotonic() - self._started
                    desk.telemetry.first_byte.labels(ROUTE).observe(self._first_byte)
                yield part
        except Exception as error:
            found = explained(error, desk.deadline_seconds)
            if found.status == 500:
                fields = {"request_id": self._name}
                log.error("request failed", exc_info=error, extra={"fields": fields})
            raise found from error

    def end(self, status: int) -> None:
        """Give the place back, and note the request.

        Args:
            status: What HTTP would have answered.
        """
        telemetry = self._state.desk.telemetry
        telemetry.requests.labels(ROUTE, str(status)).inc()
        fields = {
            "request_id": self._name,
            "route": ROUTE,
            "status": status,
            "seconds": round(time.monotonic() - self._started, 3),
            "first_byte_seconds": round(self._first_byte, 3),
        }
        if self._run is not None:
            self._run.close()
            ticket = self._run.ticket
            fields |= {"model_calls": ticket.calls, "audio_seconds": round(ticket.audio_seconds, 3)}
        log.info("request", extra={"fields": fields})

    def _admitted(self) -> SoundRun:
        desk = self._state.desk
        ticket = desk.admit(self._name)
        ticket.told = True
        return SoundRun(
            desk=desk,
            ticket=ticket,
            parts=_nothing(),
            deadline=desk.deadline_seconds,
            route=ROUTE,
        )

    def _parts(self, text: str, run: SoundRun) -> Parts:
        state = self._state
        plan = SpeechPlan(
            variant=state.variant, text=text, voice=self._voice, sampling=state.sampling
        )
        sounds, _ = plan.sounds(RemoteModel(state.variant, state.desk.scheduler, run.ticket))
        yield from streamed(sounds, self._output, run.ticket, state.variant.sample_rate)


async def voice_named(state: ServerState, name: str | None) -> ChosenVoice:
    """The voice that a client names.

    Args:
        state: The server.
        name: A built-in or stored voice; None for the default.

    Raises:
        ApiError: There is no such voice.
    """
    return await state.in_thread(
        lambda: choose_voice(name or DEFAULT_VOICE, state.voices, 0, state.variant)
    )


def take_sentences(text: str) -> tuple[str, str]:
    """Split off the sentences that are complete: those that something follows.

    Args:
        text: What has come so far.

    Returns:
        The complete sentences, and the rest.
    """
    if not _SENTENCE_GOES_ON.search(text):
        return "", text
    done, newline, rest = text.rpartition("\n")
    sentences = list(split_sentences(rest))
    if len(sentences) < 2:
        return done + newline, rest
    # The rest is kept as it came, its blanks included: the next piece may continue a word. The
    # splitter drops blanks and double quotes, so that its place is counted without them.
    kept = [at for at, character in enumerate(rest) if not _DROPPED.match(character)]
    begin = kept[-len("".join(sentences[-1].split()))]
    return done + newline + rest[:begin], rest[begin:]


def _nothing() -> Parts:
    yield from ()

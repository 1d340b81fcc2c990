"""OpenAI's routes: speech and the lists of models."""

import re
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from unison_audio.server import events
from unison_audio.server.answers import Parts
from unison_audio.server.api_errors import ApiError
from unison_audio.server.builtin_voices import BUILTIN_VOICES, MODEL_ALIASES
from unison_audio.server.open_api import ERRORS, SOUND
from unison_audio.server.output_encoding import streamed, whole
from unison_audio.server.remote_model import RemoteModel
from unison_audio.server.request_models import SpeechRequest
from unison_audio.server.server_state import ServerState, state_of
from unison_audio.server.speech_plans import (
    ChosenVoice,
    choose_voice,
    data_url,
    plan_request,
    require_text,
)
from unison_audio.server.spoken_text import spoken_text
from unison_audio.server.tempo import at_speed
from unison_audio.server.warning_header import unknown_fields

router = APIRouter(tags=["speech"])

STARTED = int(time.time())
"""When the server started: the models are as old as that."""

State = Annotated[ServerState, Depends(state_of)]


def require_model(name: str, state: ServerState) -> None:
    """Refuse a model that does not run here.

    Raises:
        ApiError: It does not.
    """
    if name not in state.model_names:
        raise ApiError(
            404,
            f"There is no model {name!r:.120}; this server runs {', '.join(state.model_names)}.",
            param="model",
            code="model_not_found",
        )


@router.post("/v1/audio/speech", responses=SOUND | ERRORS, response_class=Response)
async def create_speech(request: Request, body: SpeechRequest, state: State) -> Response:
    """Speak a text of any length; sound is sent as soon as its first window is done."""
    require_model(body.model, state)
    require_text(body.input, state.limits.max_input_characters, "input")
    text = spoken_text(body.input)
    if not re.search(r"\w", text):
        raise ApiError(400, "input holds no words; give a text that does.", param="input")
    output = body.output(body.response_format)
    voice = await state.in_thread(lambda: _voice(body, state))
    sampling = body.sampling(state.sampling)
    plan, notes = plan_request(body, state.variant, voice, text, sampling)
    rate = state.variant.sample_rate
    sse = body.stream_format == "sse"

    def produce(model: RemoteModel) -> Parts:
        ticket = model.ticket
        ticket.told = True
        sounds, single = plan.sounds(model)
        coder = whole if single and not sse else streamed
        parts = coder(at_speed(sounds, body.speed), output, ticket, rate)
        if sse:
            parts = events.as_events(parts, ticket, text, state.variant.latent_fps)
        yield from parts

    media_type = events.MEDIA_TYPE if sse else output.info.media_type
    headers = {"Cache-Control": "no-cache"} if sse else {}
    notes = [*unknown_fields(body.unknown), *notes]
    return await state.desk.answer(request, produce, media_type, notes=notes, headers=headers)


def _voice(body: SpeechRequest, state: ServerState) -> ChosenVoice:
    """The voice that a request names, or the one whose recording it brings along."""
    if not body.ref_audio:
        return choose_voice(body.voice, state.voices, body.seed, state.variant)
    require_text(body.ref_text, 1000, "ref_text")
    most = state.limits.max_voice_bytes
    if state.references and not body.ref_audio.strip().startswith("data:"):
        data = state.references.fetch(body.ref_audio.strip(), most)
    else:
        data = data_url(body.ref_audio, most)
    waveform, rate = state.read_reference(data, "ref_audio")
    return ChosenVoice(
        template="[Speech with voice]",
        seed=body.seed,
        reference=(waveform, rate),
        reference_text=body.ref_text,
    )


@router.get("/v1/models", responses=ERRORS)
async def list_models(state: State) -> dict[str, Any]:
    """List the variant that runs, and OpenAI's names that mean it."""
    return {"object": "list", "data": [_model(name) for name in state.model_names]}


@router.get("/v1/audio/models", responses=ERRORS)
async def list_audio_models(state: State) -> dict[str, Any]:
    """The same list, as Open WebUI asks for it."""
    models = [_model(name) for name in state.model_names]
    return {"object": "list", "models": models, "data": models}


@router.get("/v1/models/{model:path}", responses=ERRORS)
async def retrieve_model(model: str, state: State) -> dict[str, Any]:
    """Describe one model, with the voices that it speaks in."""
    require_model(model, state)
    voices = [
        {"name": voice.name, "language": "en", "gender": voice.gender}
        for voice in BUILTIN_VOICES.values()
    ]
    facts = {"task": "text-to-speech", "sample_rate": state.variant.sample_rate}
    return {**_model(model), **facts, "voices": voices}


def _model(name: str) -> dict[str, Any]:
    entry = {"id": name, "object": "model", "created": STARTED, "owned_by": "unison-audio"}
    if name in MODEL_ALIASES:
        entry["owned_by"] = "alias"
    return entry

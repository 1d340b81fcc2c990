"""Routes of stored voices: list, upload, get, delete."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, Response, UploadFile

from unison_audio.frame_layout import REFERENCE_SECONDS
from unison_audio.server.api_errors import ApiError
from unison_audio.server.builtin_voices import BUILTIN_VOICES
from unison_audio.server.open_api import ERRORS
from unison_audio.server.openai_routes import State
from unison_audio.server.recording_store import MAX_NAME, StoredVoice, taken
from unison_audio.server.server_state import ServerState
from unison_audio.server.speech_plans import require_text
from unison_audio.server.warning_header import unknown_fields, warning_header

router = APIRouter(tags=["voices"])

_KNOWN = (
    "name",
    "audio_sample",
    "consent",
    "ref_text",
    "speaker_description",
    "type",
    "prompt",
    "script_hint",
)


@router.get("/v1/audio/voices", responses=ERRORS)
async def list_voices(state: State, legacy: bool = False) -> dict[str, Any]:
    """List the built-in voices and the stored ones, under both names that clients read.

    With `legacy`, `voices` holds names alone, as older clients read it.
    """
    built_in = [
        {"id": voice.name, "name": voice.name, "object": "audio.voice", "gender": voice.gender}
        for voice in BUILTIN_VOICES.values()
    ]
    stored = await state.in_thread(state.voices.all)
    voices = [*built_in, *(_listed(voice) for voice in stored)]
    listed = [voice["id"] for voice in voices] if legacy else voices
    return {"object": "list", "voices": listed, "data": voices}


@router.post("/v1/audio/voices", responses=ERRORS)
async def create_voice(
    request: Request,
    response: Response,
    state: State,
    name: str = Form(max_length=200),
    audio_sample: Annotated[
        UploadFile | None, File(description="A recording of up to 30 s")
    ] = None,
    consent: str = Form("", max_length=2000, description="The speaker's consent"),
    ref_text: str = Form("", max_length=1000, description="The words of the recording"),
) -> dict[str, Any]:
    """Store a voice for later requests.

    Further fields of the form: `speaker_description`, and OpenAI's `type`, which is `audio_sample`.
    """
    form = await request.form()
    if str(form.get("type", "audio_sample")) != "audio_sample" or audio_sample is None:
        raise ApiError(
            400, "A voice is made from a recording here; send audio_sample.", param="audio_sample"
        )
    name = require_name(name)
    if name.lower() in (*BUILTIN_VOICES, "male", "female"):
        raise taken(name)
    require_text(consent, 2000, "consent")
    require_text(ref_text, 1000, "ref_text")
    description = str(form.get("speaker_description", "")).strip()
    if len(description) > 1000:
        raise ApiError(
            400, "speaker_description is longer than 1,000 characters.", param="speaker_description"
        )
    file = audio_sample.file
    voice = await state.in_thread(
        lambda: _store(
            state,
            file.read(state.limits.max_voice_bytes + 1),
            name=name,
            ref_text=ref_text.strip(),
            consent=consent.strip(),
            speaker_description=description,
        )
    )
    notes = unknown_fields(field for field in form if field not in _KNOWN)
    if voice.seconds > REFERENCE_SECONDS:
        notes.append(
            f"Only the first {REFERENCE_SECONDS:g} s of speech are used; ref_text must be what is "
            "said in them."
        )
    response.headers.update(warning_header(notes))
    return _official(voice)


@router.get("/v1/audio/voices/{voice_id}", responses=ERRORS)
async def retrieve_voice(voice_id: str, state: State) -> dict[str, Any]:
    """Describe one stored voice, by its id or name."""
    voice = await state.in_thread(lambda: state.voices.find(voice_id))
    if voice is None:
        raise _missing(voice_id)
    return {**asdict(voice), **_official(voice)}


@router.delete("/v1/audio/voices/{voice_id}", responses=ERRORS)
async def delete_voice(voice_id: str, state: State) -> dict[str, Any]:
    """Delete one stored voice, by its id or name."""
    voice = await state.in_thread(lambda: state.voices.delete(voice_id))
    if voice is None:
        raise _missing(voice_id)
    return {"id": voice.id, "deleted": True, "object": "audio.voice.deleted"}


def require_name(name: str) -> str:
    """Check the name of a recording.

    Returns:
        The name without blanks around it.

    Raises:
        ApiError: It is empty, too long, or not printable.
    """
    name = name.strip()
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ApiError(400, f"The name must be 1 to {MAX_NAME} printable characters.", param="name")
    return name


def _store(state: ServerState, data: bytes, **facts: str) -> StoredVoice:
    consent = facts["consent"]
    if consent.startswith("cons_") and state.consents.find(consent) is None:
        raise ApiError(404, f"There is no stored consent {consent!r:.60}.", param="consent")
    waveform, rate = state.read_reference(data, "audio_sample")
    return state.voices.add(waveform, rate, **facts)


def _official(voice: StoredVoice) -> dict[str, Any]:
    """OpenAI's description of a voice."""
    return {
        "object": "audio.voice",
        "id": voice.id,
        "name": voice.name,
        "created_at": voice.created_at,
        "type": "audio_sample",
    }


def _listed(voice: StoredVoice) -> dict[str, Any]:
    """A voice in the list, which is open: neither the words nor the consent are in it."""
    return {**_official(voice), "seconds": voice.seconds}


def _missing(name: str) -> ApiError:
    return ApiError(
        404, f"There is no stored voice {name!r:.120}.", param="voice_id", code="voice_not_found"
    )
